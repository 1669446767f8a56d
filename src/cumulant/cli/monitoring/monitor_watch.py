"""`cumulant monitor watch`: look at the served model again and again, and train it again where the rule says so."""

from __future__ import annotations

import time
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation
from cumulant.cli.program import line
from cumulant.core.errors import CumulantError, RetryableError, TerminalError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.monitoring.result import Judged
    from cumulant.flows.monitoring.run import Round
    from cumulant.flows.monitoring.state import Wanted
    from cumulant.statistics.performance import Audit


def declare(app: typer.Typer) -> None:
    """Make it a command of `app`."""
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
        bool, typer.Option("--retrain/--no-retrain", help="Begin a training that the rule of the project asks for.")
    ] = True,
) -> None:
    """Hold the served model against what it was: its rows, its loss with labels and without, and what became of them.

    What is found becomes alerts. Where `monitoring.retrain` asks for a training it is done, the gate
    compares, and a release delivers. `cumulant tick` does the same, one look at a time. Exit code 1 with --once where
    something is alarming.
    """
    from cumulant.core.units import duration, moment

    pause, when = duration(every).total_seconds(), None if at is None else moment(at)
    if at is not None and not once:
        raise UsageError("--at looks at the past, once", hint="add --once")
    if pause <= 0:
        raise UsageError(f"there is no time between two looks: {every}", subject="--every", hint="give 10m or 1h")
    found = None
    while True:
        try:
            found, done = _round(call, at=when, retrain=retrain)
        except CumulantError as error:
            if once or not _passes(error, before=found is not None):
                raise
            _tell(call, error, every)
        else:
            call.answer(document(found, done), partial(_print, found=found, done=done, project=call.given))
            if not once and not call.json:
                said = f"next look in {every} (Ctrl-C stops it; --once looks once)"
                call.output.notices().print(said, style="dim", soft_wrap=True)
        if once:
            break
        time.sleep(pause)
    if found is not None and found.alarming:
        raise typer.Exit(1)


def _round(call: Invocation, *, at: datetime | None, retrain: bool) -> tuple[Round, Wanted | None]:
    """One look, and the training that is wanted, before and after it: one that was cut off goes on, whatever the look
    finds. A look at the past carries out only what it asked for itself: what was asked for later is not for its data.
    """
    from cumulant.flows.monitoring.retraining import go_on
    from cumulant.flows.monitoring.run import watch_round

    with call.project() as project:
        who = project.principal()
        with call.progress("monitor watch") as progress:
            if retrain and at is None:
                go_on(project, principal=who, progress=progress)
            found = watch_round(project, principal=who, at=at, progress=progress)
            retrain = retrain and (at is None or found.action.do == "train")
            return found, go_on(project, principal=who, as_of=at, progress=progress) if retrain else None


def _passes(error: CumulantError, *, before: bool) -> bool:
    """Whether the next look may succeed: after one that did (`before`), the project may be being changed, or a new
    version may have answered nothing yet.
    """
    return isinstance(error, RetryableError) or (before and not isinstance(error, TerminalError))


def _tell(call: Invocation, error: CumulantError, every: str) -> None:
    from cumulant.cli.errors import show

    notices = call.output.notices()
    show(error.reworded(call.output.redact), notices, debug=False)
    notices.print(f"the next look is in {every}", soft_wrap=True)


def document(found: Round, done: Wanted | None) -> dict[str, object]:
    """One round for machines."""
    judged = found.judged
    return {
        "at": found.at,
        "model": found.model,
        "version": found.version,
        "findings": found.findings,
        "action": found.action,
        "fault": judged.fault,
        "until": judged.until,
        "fresh": judged.fresh,
        "late": judged.late,
        "harm": judged.harm,
        "estimate": judged.estimate,
        "estimates": judged.estimates,
        "estimate_refused": judged.estimate_refused,
        "audit": judged.audit,
        "reference_loss": judged.reference_loss,
        "windows": judged.windows,
        "retraining": done,
        "notes": judged.notes,
    }


def _print(console: Console, *, found: Round, done: Wanted | None, project: str | None) -> None:
    from cumulant.flows.reports.terminal import clean, pairs, table

    judged = found.judged
    rows: list[tuple[str, object]] = [
        ("model", f"{found.model}/{found.version}"),
        ("labels judged", _labels(found)),
        ("loss", _losses(found)),
        ("harm", "no window was judged yet" if judged.harm is None else clean(judged.harm.sentence)),
    ]
    if judged.estimates or judged.estimate_refused is not None:
        rows.append(("without labels", clean(_estimates(judged))))
    if judged.audit is not None:
        rows.append(("estimates", _audit(judged.audit)))
    if judged.fault is not None:
        rows.append(("newest data", clean(judged.fault)))
    rows.append(("rule", clean(found.action.sentence)))
    if done is not None:
        rows.append(("training", clean(f"{done.stage}: {done.said or done.sentence}")))
    pairs(console, rows)
    if found.findings:
        listed = [
            (
                one.feature, one.kind if one.active else f"{one.kind}, over",
                "–" if one.effect is None else f"{one.effect:.3f}", _day(one.since), clean(one.says),
            )
            for one in found.findings
        ]  # fmt: skip
        console.print("")
        console.print(table(["what", "kind", "effect", "since", "says"], listed, right=["effect"]))
    for note in (*judged.notes, *filter(None, [judged.late.said])):
        console.print(clean(note), style="dim", markup=False, highlight=False)
    if found.alarming:
        console.print(f"next: {line('alerts list', project=project)}", style="dim", markup=False, soft_wrap=True)


def _labels(found: Round) -> str:
    """How far the served version was judged, and what it waits for."""
    judged = found.judged
    waiting = sum(one.end > judged.until for one in judged.windows)
    new = f"{judged.fresh} new window{'' if judged.fresh == 1 else 's'}, up to {_day(judged.until)}"
    if not waiting:
        return new
    if not any(one.labelled for one in judged.windows):
        return f"none: {waiting} windows wait for labels, which `cumulant labels ingest` takes in"
    return f"{new}; {waiting} wait for labels"


def _losses(found: Round) -> str:
    """Of the newest windows, as estimated and as measured, against the test rows."""
    from cumulant.flows.monitoring.result import span_of

    estimated, measured = found.judged.losses_since(span_of(found.judged))
    told = [
        f"{value:.4f} {how}" for value, how in ((estimated, "estimated"), (measured, "measured")) if value is not None
    ]
    before = found.judged.reference_loss
    said = ", ".join(told) or "not known yet"
    return said if before is None else f"{said}; {before:.4f} on the test rows of its training"


def _estimates(judged: Judged) -> str:
    """Metrics of classes of the newest windows, or why there are none."""
    from cumulant.cli.monitoring.estimated import figures

    if judged.estimate_refused is not None:
        return f"not estimated: {judged.estimate_refused}"
    return f"{figures(judged.estimates)}, of the newest windows with 95%"


def _audit(audit: Audit) -> str:
    """How the estimates did where labels have come."""
    said = (
        f"{audit.covered} of {audit.windows} windows lost what was estimated, within its interval; off by "
        f"{audit.mean_absolute_error:.2g} on average, where the loss on the test rows is off by {audit.unmoved:.2g}"
    )
    return said if audit.holds else f"{said}. That is less often than 95%: go by labels"


def _day(when: datetime) -> str:
    return when.strftime("%Y-%m-%d" if when.hour == when.minute == 0 else "%Y-%m-%d %H:%M")
