"""`cumulant monitor watch`: evaluate the served model repeatedly, and retrain it where the policy requires it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import command
from cumulant.cli.errors import show
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import CumulantError, RetryableError, TerminalError, UsageError
from cumulant.core.units import duration, moment
from cumulant.flows.reports.terminal import clean, pairs, table

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.monitoring.result import EvaluationResult
    from cumulant.flows.monitoring.run import MonitorRun
    from cumulant.flows.monitoring.state import RetrainRequest
    from cumulant.monitoring.performance.unlabelled import EstimatedFigure
    from cumulant.statistics.performance.audit import Audit

#: fields of an evaluation in documents for machines
_DOCUMENTED = (
    *("fault", "until", "fresh", "late", "harm", "estimate", "estimates", "estimate_refused", "audit"),
    *("reference_loss", "windows", "notes"),
)


def declare(app: typer.Typer) -> None:
    command(
        app,
        action="monitor.run",
        name="watch",
        examples=[
            "cumulant monitor watch",
            "cumulant monitor watch --once --json",
            "cumulant monitor watch --once --at 2013-07-24 --no-retrain",
        ],
    )(_watch)


def _watch(
    call: Invocation,
    *,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    every: Annotated[str, typer.Option(metavar="SPAN", help="Time between two looks: 10m, 1h.")] = "10m",
    at: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="With --once: rows, labels and windows as they were by then.")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain/--no-retrain", help="Begin a training that the policy of the project requires.")
    ] = True,
) -> None:
    """Evaluate drift and loss of the served model, raise alerts, and retrain and release where the policy requires it.

    `cumulant tick` runs one evaluation. Exit code 1 with --once where something is alarming.
    """
    pause, when = duration(every).total_seconds(), None if at is None else moment(at)
    if at is not None and not once:
        raise UsageError("--at looks at the past, once", hint="add --once")
    if pause <= 0:
        raise UsageError(f"there is no time between two looks: {every}", subject="--every", hint="give 10m or 1h")
    round_ = None
    while True:
        try:
            round_, done = _round(call, at=when, retrain=retrain)
        except CumulantError as error:
            if once or not _passes(error, before=round_ is not None):
                raise
            _tell(call, error, every)
        else:
            call.answer(document(round_, done), partial(_print, round_=round_, done=done, call=call))
            if not once and not call.json:
                notice = f"next look in {every} (Ctrl-C stops it; --once looks once)"
                call.output.notices().print(notice, style="dim", soft_wrap=True)
        if once:
            break
        time.sleep(pause)
    if round_ is not None and round_.alarming:
        raise typer.Exit(1)


def _round(call: Invocation, *, at: datetime | None, retrain: bool) -> tuple[MonitorRun, RetrainRequest | None]:
    """Run one evaluation and the required training; an interrupted training is resumed first."""
    from cumulant.flows.monitoring.retraining import continue_retraining
    from cumulant.flows.monitoring.run import run_monitoring

    with call.project() as project:
        who = project.principal()
        with call.progress("monitor watch") as progress:
            if retrain and at is None:
                continue_retraining(project, principal=who, progress=progress)
            round_ = run_monitoring(project, principal=who, at=at, progress=progress)
            retrain = retrain and (at is None or round_.action.do == "train")
            return round_, continue_retraining(project, principal=who, as_of=at, progress=progress) if retrain else None


def _passes(error: CumulantError, *, before: bool) -> bool:
    """Whether the next evaluation may succeed; `before`: an earlier one did."""
    return isinstance(error, RetryableError) or (before and not isinstance(error, TerminalError))


def _tell(call: Invocation, error: CumulantError, every: str) -> None:
    notices = call.output.notices()
    show(error.reworded(call.output.redact), notices, debug=False)
    notices.print(f"the next look is in {every}", soft_wrap=True)


def document(round_: MonitorRun, done: RetrainRequest | None) -> dict[str, object]:
    about = {name: getattr(round_, name) for name in ("at", "model", "version", "findings", "action")}
    return about | {name: getattr(round_.evaluation, name) for name in _DOCUMENTED} | {"retraining": done}


def _print(console: Console, *, round_: MonitorRun, done: RetrainRequest | None, call: Invocation) -> None:
    evaluation = round_.evaluation
    rows: list[tuple[str, object]] = [
        ("model", f"{round_.model}/{round_.version}"),
        ("labels judged", _labels(round_)),
        ("loss", _losses(round_)),
        ("harm", "no window was judged yet" if evaluation.harm is None else clean(evaluation.harm.sentence)),
    ]
    if evaluation.estimates or evaluation.estimate_refused is not None:
        rows.append(("without labels", clean(_estimates(evaluation))))
    if evaluation.audit is not None:
        rows.append(("estimates", _audit(evaluation.audit)))
    if evaluation.fault is not None:
        rows.append(("newest data", clean(evaluation.fault)))
    rows.append(("rule", clean(round_.action.sentence)))
    if done is not None:
        rows.append(("training", clean(f"{done.stage}: {done.message or done.sentence}")))
    pairs(console, rows)
    if round_.findings:
        listed = [
            (
                finding.feature,
                finding.kind if finding.active else f"{finding.kind}, over",
                "–" if finding.effect is None else f"{finding.effect:.3f}",
                _day(finding.since),
                clean(finding.says),
            )
            for finding in round_.findings
        ]
        console.print("")
        console.print(table(["what", "kind", "effect", "since", "says"], listed, right=["effect"]))
    for note in (*evaluation.notes, *filter(None, [evaluation.late.sentence])):
        console.print(clean(note), style="dim", markup=False, highlight=False)
    if round_.alarming:
        console.print(f"next: {call.line('alerts list')}", style="dim", markup=False, soft_wrap=True)


def _labels(round_: MonitorRun) -> str:
    evaluation = round_.evaluation
    waiting = sum(window.end > evaluation.until for window in evaluation.windows)
    new = f"{evaluation.fresh} new window{'' if evaluation.fresh == 1 else 's'}, up to {_day(evaluation.until)}"
    if not waiting:
        return new
    if not any(window.labelled for window in evaluation.windows):
        return f"none: {waiting} windows wait for labels, which `cumulant labels ingest` reads"
    return f"{new}; {waiting} wait for labels"


def _losses(round_: MonitorRun) -> str:
    from cumulant.flows.monitoring.result import newest_since

    estimated, measured = round_.evaluation.losses_since(newest_since(round_.evaluation))
    parts = [
        f"{value:.4f} {how}" for value, how in ((estimated, "estimated"), (measured, "measured")) if value is not None
    ]
    before = round_.evaluation.reference_loss
    losses = ", ".join(parts) or "not known yet"
    return losses if before is None else f"{losses}; {before:.4f} on the test rows of its training"


def _estimates(evaluation: EvaluationResult) -> str:
    if evaluation.estimate_refused is not None:
        return f"not estimated: {evaluation.estimate_refused}"
    return f"{figures(evaluation.estimates)}, of the newest windows with 95%"


def _audit(audit: Audit) -> str:
    text = (
        f"{audit.covered} of {audit.windows} windows lost what was estimated, within its interval; off by "
        f"{audit.mean_absolute_error:.2g} on average, where the loss on the test rows is off by {audit.unmoved:.2g}"
    )
    return text if audit.holds else f"{text}. That is less often than 95%: go by labels"


def _day(when: datetime) -> str:
    return when.strftime("%Y-%m-%d" if when.hour == when.minute == 0 else "%Y-%m-%d %H:%M")


#: metrics that a line shows, in this order; documents have all
_SHOWN: Mapping[str, str] = {"accuracy": "accuracy", "log_loss": "log loss", "brier": "Brier score"}


def figures(estimated: Mapping[str, EstimatedFigure], reference: Mapping[str, float] | None = None) -> str:
    """Each metric with its interval, and what the reference showed where `reference` knows it."""
    parts, known = [], reference or {}
    for name, title in _SHOWN.items():
        figure = estimated.get(name)
        if figure is not None:
            before = f" ({known[name]:.3f} on the reference)" if name in known else ""
            parts.append(f"{title} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]{before}")
    return ", ".join(parts)
