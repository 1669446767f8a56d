"""`cumulant monitor`: whether the rows of a model still look like those it was made for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.monitoring.monitor_backtest import declare as declare_backtest
from cumulant.cli.monitoring.monitor_watch import declare as declare_watch
from cumulant.cli.monitoring.monitor_watch import figures
from cumulant.core.errors import UsageError
from cumulant.core.units import moment
from cumulant.flows.reports.terminal import clean, table
from cumulant.monitoring.spec import DriftSpec
from cumulant.project.monitoring_section import drift_policy

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.monitoring.drift.sides import MonitorRequest
    from cumulant.flows.monitoring.drift.table_estimates import TableEstimates
    from cumulant.flows.monitoring.drift.table_loss import TableLoss
    from cumulant.flows.monitoring.monitor import MonitorResult
    from cumulant.monitoring.drift.findings import DriftFinding, Findings
    from cumulant.monitoring.drift.joint import Joint
    from cumulant.monitoring.policy import DriftPolicy

app = application(
    "monitor",
    "Watch a served model: what moved, since when, and whether it matters.",
    examples=["cumulant monitor run", "cumulant monitor watch", "cumulant monitor backtest"],
)
declare_watch(app)
declare_backtest(app)


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


@app.callback()
def _group() -> None:
    """Keep `run` a command of its own."""


@command(
    app,
    action="monitor.run",
    examples=[
        "cumulant monitor run",
        "cumulant monitor run --reference training.parquet --out drift.html",
        "cumulant monitor run --predictions scored.parquet --reference march.parquet --window 1d --json",
        "cumulant monitor run --predictions scored.csv --reference march.csv --labels later.csv --windows 10",
    ],
)
def run(
    call: Invocation,
    *,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Rows as they should be: a file, glob or a prediction log. Default: what the champion was trained on.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Rows to look at: a file, glob or log. Default: the project's log."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="PATH", help="What became of the rows, with the same key.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The label: where the file of labels has more columns, or that only the reference has.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="By which columns labels find their row. Default: the id of a log, else one that is unique per row.",
        ),
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The moment of each row. Default: the column that is a time.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Look at windows of this length: 1h, 1d, 7d.")
    ] = None,
    windows: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Look at N windows with the same number of rows.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Only these columns. Default: all that both have.")
    ] = None,
    ignore: Annotated[str | None, typer.Option(metavar="NAME,...", help="Not these columns.")] = None,
    answers: Annotated[str | None, typer.Option(metavar="NAME,...", help="The columns of the model's answers.")] = None,
    since: Annotated[str | None, typer.Option(metavar="DAY", help="Of a log: from this day on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Of a log: up to this day.")] = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="Ask a classifier whether all features together have moved.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Show every column of the newest window.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with charts: .html.")] = None,
) -> None:
    """Compare rows with a reference, window by window, as a monitor would have done.

    An alarm is a change that is large enough to matter and is not chance, at a rate of
    false alarms that holds for all columns and windows together. With labels the loss is
    reported, too. Exit code 1 where something is alarming, or the model loses more than it should.
    """
    from cumulant.flows.monitoring.drift.sides import MonitorRequest

    if window is not None and windows is not None:
        raise UsageError("--window and --windows are given at once", hint="leave out one of them")
    first, last = (None if text is None else moment(text).date() for text in (since, until))
    request = MonitorRequest(
        predictions=predictions or Path(),
        reference=reference,
        labels=labels,
        label=label,
        key=_list(key),
        time=time,
        windows=windows,
        columns=_list(columns),
        answers=_list(answers),
        since=first,
        until=last,
        joint=joint,
        estimate=True,
        out=out,
    )
    monitored = _monitor(call, request, own=predictions is None, window=window, ignore=_list(ignore))

    def text(console: Console) -> None:
        _print(console, monitored, every=every, page=out)
        # Of other rows than the project's no alert is made.
        steps = [call.line("alerts list")] if predictions is None else []
        steps += [] if out else ["add --out drift.html for charts"]
        if monitored.alarming and steps:
            console.print(f"next: {'; '.join(steps)}", style="dim", markup=False, soft_wrap=True)

    call.answer(_document(monitored), text)
    if monitored.alarming:
        raise typer.Exit(1)


def _monitor(
    call: Invocation, request: MonitorRequest, *, own: bool, window: str | None, ignore: tuple[str, ...]
) -> MonitorResult:
    from dataclasses import replace

    import msgspec

    from cumulant.flows.data.memory_budget import scratch_folder
    from cumulant.flows.monitoring.monitor import monitor
    from cumulant.flows.monitoring.project_drift import declared_targets, monitor_project
    from cumulant.flows.serving.predictions import prediction_log
    from cumulant.monitoring.spec import DriftSpec

    def policy_of(spec: DriftSpec) -> DriftPolicy:
        return drift_policy(msgspec.structs.replace(spec, window=window or spec.window, ignore=[*spec.ignore, *ignore]))

    if not own and call.given is None and not (call.directory / "cumulant.yaml").is_file():
        return monitor(request, policy_of(DriftSpec()))
    with call.project() as project:
        principal = project.principal()
        policy = policy_of(project.file.spec.monitoring.drift)
        if not own:
            return monitor(
                replace(request, targets=declared_targets(project)),
                policy,
                performance=project.policies.monitoring.performance,
                scratch=scratch_folder(project),
            )
        log = prediction_log(project, principal=principal)
        if not log.days():
            raise UsageError(
                "the project has no prediction log yet",
                subject=log.location,
                hint="serve the model, or name the rows with --predictions",
            )
        with call.progress("monitor run") as progress:
            return monitor_project(project, request, log, policy, principal=principal, progress=progress)


def _document(monitored: MonitorResult) -> dict[str, object]:
    import msgspec

    from cumulant.monitoring.drift.words import day, sentence

    plain = msgspec.to_builtins(monitored)
    plain["drift"]["findings"] += plain.pop("volume")
    for entry, finding in zip(plain["drift"]["findings"], monitored.findings, strict=True):
        entry |= {"since": day(finding.since), "until": day(finding.until), "says": sentence(finding)}
    windows = zip(monitored.drift.windows, monitored.alarming_windows, strict=True)
    plain["drift"]["windows"] = [
        {"from": day(entry), "rows": entry.rows, "alarming": alarming} for entry, alarming in windows
    ]
    for entry in plain["drift"]["findings"]:
        del entry["alarmed"]
    del plain["drift"]["alarming"]
    rest = plain.pop("drift")
    return {**plain, **rest}


def _print(console: Console, monitored: MonitorResult, *, every: bool, page: Path | None) -> None:
    from cumulant.flows.monitoring.monitor import notes
    from cumulant.monitoring.drift.words import day
    from cumulant.monitoring.tables import MOMENT

    drift = monitored.drift
    by = "" if monitored.time in (None, MOMENT) else f" by {clean(monitored.time)}"
    several = f"{len(drift.windows)} windows{by} ({day(drift.windows[0])} to {day(drift.windows[-1])})"
    console.print(
        f"{monitored.rows:,} rows in {several if len(drift.windows) > 1 else 'one window'} against "
        f"{drift.reference_rows:,} rows of the reference, {len(drift.columns)} columns",
        highlight=False,
        markup=False,
    )
    _print_alarms(console, monitored)
    if every:
        shown = [
            (
                column.feature,
                column.role,
                f"{column.effect:.3f}",
                "" if column.missing is None else f"{column.missing:.1%}",
                "yes" if column.alarming else "–",
            )
            for column in drift.columns
        ]
        numbers = ["distance", "missing"]
        console.print(table(["column", "role", *numbers, "alarming"], shown, right=numbers))
    if monitored.joint is not None:
        console.print(clean(_joint(monitored.joint)), markup=False, highlight=False)
    if monitored.loss is not None:
        console.print(clean(_loss(monitored.loss)), markup=False, highlight=False)
    if monitored.estimates is not None:
        console.print(clean(_estimates(monitored.estimates)), markup=False, highlight=False)
    for note in notes(monitored):
        console.print(clean(note), style="dim", markup=False, highlight=False)
    if page is not None:
        console.print(f"written to {page}", markup=False, highlight=False)


def _print_alarms(console: Console, monitored: MonitorResult) -> None:
    drift, alarming = monitored.drift, monitored.alarming_windows
    if not monitored.findings:
        console.print("nothing is alarming")
        return
    rows = [_row(finding, drift) for finding in monitored.findings]
    console.print(table(["column", "kind", "effect", "since", "windows", "what"], rows, right=["effect"]))
    for finding in drift.findings:
        for part in finding.segments[:1]:
            where = f"where {part.column} is {part.value}, {part.rows:.0%} of the rows"
            text = clean(f"{finding.feature}: {part.carries:.0%} of the change is {where}")
            console.print(text, markup=False, highlight=False)
    now = "the newest one too" if any(alarming[drift.newest :]) else "the newest one not"
    console.print(f"alarming: {sum(alarming)} of {len(drift.windows)} windows, {now}")


def _loss(loss: TableLoss) -> str:
    if loss.loss is None:
        return f"loss: {loss.refused}"
    before = "" if loss.reference is None else f", {loss.reference:.3g} on the reference"
    labelled = sum(window.labelled for window in loss.windows)
    outcome = loss.sentence or loss.refused or "no harm is shown"
    return f"loss ({loss.measure}) of {labelled:,} labelled rows: {loss.loss:.3g}{before}; {outcome}"


def _estimates(estimates: TableEstimates) -> str:
    if estimates.refused is not None:
        return f"without labels nothing is estimated of the newest windows: {estimates.refused}"
    return (
        f"estimated without labels, with 95%, of {estimates.rows:,} rows of the newest windows: "
        f"{figures(estimates.figures, estimates.reference)}"
    )


def _joint(joint: Joint) -> str:
    between = "" if joint.low is None else f" [{joint.low:.3f}, {joint.high:.3f}]"
    by = ", ".join(f"{feature.feature} {feature.part:.3f}" for feature in joint.by)
    return f"separable by all features together: AUC {joint.area:.3f}{between}" + (f"; by {by}" if by else "")


def _row(finding: DriftFinding, findings: Findings) -> tuple[str, ...]:
    from cumulant.monitoring.drift.words import day, sentence

    effect = (
        f"{finding.effect:.3f}"
        if finding.low is None
        else f"{finding.effect:.3f} [{finding.low:.3f}, {finding.high:.3f}]"
    )
    state = "" if finding.active else ", over" if findings.is_over(finding) else ", not sure"
    windows = f"{finding.windows} of {len(findings.windows)}"
    since = (
        f"{day(finding.since)} or before"
        if finding.since == findings.windows[0] and len(findings.windows) > 1
        else day(finding.since)
    )
    return finding.feature, f"{finding.kind}{state}", effect, since, windows, sentence(finding)
