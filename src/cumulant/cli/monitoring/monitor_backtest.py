"""`cumulant monitor backtest`: what each rule of retraining would have cost on the project's own history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation
from cumulant.core.units import duration, moment
from cumulant.flows.reports.terminal import clean, table

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.monitoring.backtest.backtest_record import BacktestResult
    from cumulant.flows.monitoring.backtest.policy_comparison import Difference

#: rows of the table of losses over time
_PERIODS = 12


def declare(app: typer.Typer) -> None:
    command(
        app,
        operations=("monitoring.backtest",),
        action="monitor.backtest",
        name="backtest",
        examples=[
            "cumulant monitor backtest",
            "cumulant monitor backtest --every 7d --first 8 --since 2013-02-01 --json",
            "cumulant monitor backtest --history all",
            "cumulant monitor backtest --history growing,90d,half-life:30d",
        ],
    )(_backtest)


def _backtest(
    call: Invocation,
    *,
    every: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Length of a window: 1d, 7d. Default: a week, or a day of a short history."),
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="DAY", help="Rows from this day on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Rows before this day.")] = None,
    first: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Windows that train the first model. Default: a fifth of them."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="What a training learns from, under each rule: growing, 90d, half-life:30d. Default: the project's.",
        ),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(metavar="KIND,...", help="Compare kinds of history for the first rule: all, or as listed."),
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Let an estimated loss confirm drift, where labels are late (yes or no).")
    ] = False,
) -> None:
    """Replay labelled history under rules of retraining: trainings, alarms and loss of each.

    A model is judged on a window before it may learn from it, and labels come as late as
    they do in life. At each training the champion's trainer is fitted with its parameters.
    """
    with call.api() as api, call.progress("backtest") as progress:
        result = api.call(
            "monitoring.backtest",
            every=every,
            since=None if since is None else moment(since),
            until=None if until is None else moment(until),
            first=first,
            memory=memory,
            history=history,
            estimate=estimate,
            progress=progress,
        )
    call.answer(result, lambda console: _print(console, result))


def _print(console: Console, result: BacktestResult) -> None:
    from cumulant.flows.monitoring.backtest.policy_comparison import figure

    late = f", labels {result.delay} window{'s' * (result.delay != 1)} late" if result.delay else ""
    by = f"{result.trainer} as in {result.parameters_of}" if result.parameters_of else result.trainer
    span = f"{result.windows} windows of {result.every} ({result.start:%Y-%m-%d} to {result.end:%Y-%m-%d})"
    labelled = f"{result.target}: {result.rows:,} labelled rows in {span}"
    rows = f"{labelled}; the first {result.first} train the first model{late}"
    for line in (rows, f"at each training: {by}, on a history that is {_history(result.history)}"):
        console.print(clean(line), markup=False, highlight=False)
    loss = {"brier": "Brier loss", "squared_error": "squared error"}[result.loss]
    numbers = [loss, "against the first [95%]", "trainings", "alarms"]
    rules = [
        (
            row.rule,
            figure(row.loss),
            _between(row.difference, figure(row.loss)),
            len(row.trainings),
            f"{row.alarms} of {row.looks}",
        )
        for row in result.rules
    ]
    console.print(table(["rule", *numbers], rules, right=numbers))
    _print_time(console, result)
    if result.histories:
        kinds = [
            (
                row.history + (" *" if row.best else ""),
                figure(row.loss),
                _between(row.difference, figure(row.loss)),
                len(row.trainings),
            )
            for row in result.histories
        ]
        console.print(table(["history", *numbers[:3]], kinds, right=numbers[:3]))
    for sentence in result.sentences:
        console.print(clean(sentence), markup=False, highlight=False)
    for note in result.notes:
        console.print(clean(note), style="dim", markup=False, highlight=False)


def _print_time(console: Console, result: BacktestResult) -> None:
    """Loss over time, in at most some periods of equal numbers of windows, with a mark for each training in one."""
    every, looks = duration(result.every), result.rules[0].looks
    begun, step = result.end - looks * every, -(-looks // _PERIODS)
    rows = []
    for place in range(0, looks, step):
        start, end = begun + place * every, begun + min(place + step, looks) * every
        cells = [
            _mean(rule.losses[place : place + step]) + "*" * sum(start < when <= end for when in rule.trainings)
            for rule in result.rules
        ]
        rows.append((f"{start:%Y-%m-%d}", *cells))
    names = [rule.rule for rule in result.rules]
    console.print(table(["from", *names], rows, right=names, title="loss over time (* a training)"))


def _mean(losses: Sequence[float | None]) -> str:
    from cumulant.flows.monitoring.backtest.policy_comparison import figure

    known = [loss for loss in losses if loss is not None]
    return figure(sum(known) / len(known)) if known else "–"


def _history(name: str) -> str:
    return name if name == "growing" else f"of {name.replace('half-life:', 'a half-life of ').replace('+', ' and ')}"


def _between(difference: Difference | None, loss: str) -> str:
    if difference is None:
        return "–"
    if difference.low is None or difference.high is None:
        return "the same" if not difference.value else f"{difference.value:+.2g}"
    places = len(loss.partition(".")[2])
    return f"{difference.value:+,.{places}f} [{difference.low:+,.{places}f}, {difference.high:+,.{places}f}]"
