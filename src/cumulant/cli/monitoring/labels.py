"""`cumulant labels`: what became of the predictions, and how much of them is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.output import print_rest
from cumulant.core.errors import UsageError
from cumulant.core.units import moment
from cumulant.flows.reports.terminal import table
from cumulant.flows.reports.wording import plural

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.outcomes.labels import Intake
    from cumulant.outcomes.labels.label_counts import Report
    from cumulant.outcomes.labels.label_fact import LabelFact

app = application(
    "labels",
    "What became of the predictions: labels that come late, joined with the prediction log.",
    examples=[
        "cumulant labels ingest landed.csv",
        "cumulant labels report --by week",
        "cumulant labels show d1c754e0d1cd9785",
    ],
)

#: of a report on a terminal; the document has all
_COHORTS = 20

Map = Annotated[
    str | None,
    typer.Option(
        "--map", metavar="PART=COLUMN,...", help="Which columns are which parts, where they are named otherwise."
    ),
]


#: most labels of one page
_PAGE = 1_000


@command(
    app,
    operations=("labels.ingest",),
    action="labels.ingest",
    examples=[
        "cumulant labels ingest",
        "cumulant labels ingest 'landed/*.csv' --map id=request,label=late,known_time=landed",
        "cumulant labels ingest --watch landed/",
    ],
)
def ingest(
    call: Invocation,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Files, globs or URLs; default: `monitoring.labels` of the project file."),
    ] = None,
    watch: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Take in what comes into a folder, until it is ended.")
    ] = None,
    map_: Map = None,
) -> None:
    """Take in labels, each file once, and join them with the predictions.

    Exit code 1 where no row of the files can be used.
    """
    names = parts(map_)
    if not files and watch is None and not names:
        with call.api() as api, call.progress("labels") as progress:
            intake = api.call("labels.ingest", progress=progress)
        _finish(call, intake)
        return
    from cumulant.flows.outcomes.labels import ingest_labels, watch_labels

    if watch is not None and files:
        raise UsageError("files and a folder to watch are named at once", hint="leave out one of them")
    with call.project() as project:
        principal = project.principal()
        if watch is not None:
            watch_labels(project, watch, principal=principal, names=names, report=lambda intake: _tell(call, intake))
            return
        intake = ingest_labels(project, files or [], principal=principal, names=names)
    _finish(call, intake)


def _finish(call: Invocation, intake: Intake) -> None:
    _tell(call, intake)
    if intake.useless:
        raise typer.Exit(1)


@command(
    app,
    operations=("labels.list",),
    action="labels.show",
    name="list",
    examples=["cumulant labels list", "cumulant labels list --state contradicted --json"],
)
def list_(
    call: Invocation,
    state: Annotated[
        Literal["usable", "unmatched", "waiting", "refused", "contradicted"] | None,
        typer.Option(
            help="Only labels of a state. `usable`: of a prediction in the log; `unmatched`: of none; "
            "`waiting`: known in the future; `refused`: cannot be used; `contradicted`: contradict another."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="How many of the newest.", min=1)] = 20,
) -> None:
    """Show labels, the newest first."""
    with call.api() as api:
        page = api.call("labels.list", state=state, limit=min(limit, _PAGE))
        labels_listed, total = page.items, page.total
        while page.next is not None and len(labels_listed) < limit:
            page = api.call("labels.list", state=state, limit=min(limit - len(labels_listed), _PAGE), cursor=page.next)
            labels_listed += page.items

    def text(console: Console) -> None:
        if labels_listed:
            _print_labels(console, labels_listed)
            print_rest(console, len(labels_listed), total)
            return
        none = f"no labels yet: {call.line('labels ingest FILE')}"
        console.print(none if state is None else f"no label is {state}", style="dim")

    call.answer(labels_listed, text)


@command(app, operations=("labels.show",), action="labels.show", examples=["cumulant labels show d1c754e0d1cd9785"])
def show(
    call: Invocation,
    request: Annotated[str, typer.Argument(metavar="ID", help="The request's id, as the answer named it.")],
) -> None:
    """Show one request: its predictions and all labels of it."""
    with call.api() as api:
        result = api.call("labels.show", request=request)
    rows, labels_listed = result.predictions, result.unmatched

    def text(console: Console) -> None:
        shown = [
            (
                prediction.row,
                prediction.model,
                prediction.version,
                prediction.arm or "–",
                prediction.score,
                prediction.label,
                prediction.label_known_time,
                prediction.provenance,
            )
            for prediction in rows
        ]
        columns = ["row", "model", "version", "arm", "score", "label", "known", "state"]
        console.print(table(columns, _dashed(shown)) if rows else "no prediction in the log has this id")
        _print_labels(console, labels_listed)

    call.answer({"predictions": rows, "labels": labels_listed}, text)


@command(
    app,
    operations=("labels.report",),
    action="labels.show",
    examples=["cumulant labels report", "cumulant labels report --by week --json"],
)
def report(
    call: Invocation,
    by: Annotated[Literal["day", "week"], typer.Option(help="Cohorts of a day or a week, in UTC.")] = "day",
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Predictions since that day: 2026-11-24.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Predictions until that day.")] = None,
) -> None:
    """Show which share of the predictions is labelled, by cohort, and what cannot be used."""
    first, last = (None if text is None else moment(text).date() for text in (since, until))
    with call.api() as api:
        summary = api.call("labels.report", by=by, since=first, until=last)
    call.answer(_document(summary), lambda console: _print_report(console, summary, call))


@command(
    app,
    operations=("predictions.import",),
    action="predictions.import",
    name="import-predictions",
    examples=["cumulant labels import-predictions scores.parquet --map id=request_id,time=at,score=p --version 7"],
)
def import_predictions(
    call: Invocation,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV, JSON, JSON lines or Parquet, one prediction a row.")
    ],
    map_: Annotated[
        str,
        typer.Option(
            "--map",
            metavar="PART=COLUMN,...",
            help="Columns of id, time, and score or prediction; also row, event_time, model, version, arm, and "
            "probabilities (of several classes).",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model, where no column names it; default: the project's.")
    ] = None,
    version: Annotated[str, typer.Option(metavar="TEXT", help="The version, where no column names it.")] = "imported",
) -> None:
    """Bring predictions that were logged elsewhere into the prediction log, each file once.

    With --server the file is sent there, up to 64 MiB. Exit code 1 where no row of the file can be used.
    """
    columns = tuple(f"{part}={column}" for part, column in parts(map_).items())
    with call.api() as api:
        imported = api.call(
            "predictions.import", upload=file, name=file.name, part=columns, model=model or "", version=version
        )

    def text(console: Console) -> None:
        if imported.again:
            console.print(f"{file.name} was imported before; nothing was added")
            return
        lacking = imported.refused - imported.future
        refused = f", {lacking:,} rows have no id, time or answer" if lacking else ""
        future = f", {imported.future:,} rows are of the future: check `time` of --map" if imported.future else ""
        console.print(f"{imported.rows:,} predictions came into the log{refused}{future}")

    call.answer(imported, text)
    if imported.refused and not imported.rows and not imported.again:
        raise typer.Exit(1)


def parts(text: str | None) -> dict[str, str]:
    """`id=request,label=late` as a mapping.

    Raises:
        UsageError: a part has no column, or is named twice.
    """
    columns: dict[str, str] = {}
    for pair in (text or "").split(","):
        part, equals, column = (word.strip() for word in pair.partition("="))
        if not pair.strip():
            continue
        if not equals or not column or part in columns:
            raise UsageError(f'"{pair}" names no column', subject=pair, hint="write --map id=COLUMN,label=COLUMN")
        columns[part] = column
    return columns


def _tell(call: Invocation, intake: Intake) -> None:
    call.answer(intake, lambda console: _print_intake(console, intake, call))


def _refused(problems: Mapping[str, int]) -> str:
    if not problems:
        return ""
    reasons = ", ".join(f"{count:,} {problem}" for problem, count in problems.items())
    return f", {sum(problems.values()):,} refused ({reasons})"


def _print_intake(console: Console, intake: Intake, call: Invocation) -> None:
    for source in intake.sources:
        if source.error:
            console.print(f"nothing was ingested: {source.error}", style="yellow", markup=False)
        elif source.again:
            console.print(f"{source.name}: ingested before, {plural(source.rows, 'row')}", markup=False)
        else:
            console.print(f"{source.name}: {plural(source.rows, 'row')}{_refused(source.problems)}", markup=False)
    has = "has" if intake.labelled == 1 else "have"
    console.print(f"{plural(intake.labelled, 'prediction')} {has} a label now")
    if any(labels_source.problems for labels_source in intake.sources):
        console.print(f"refused rows: {call.line('labels list --state refused')}", style="dim")
    usable = sum(
        labels_source.rows - sum(labels_source.problems.values())
        for labels_source in intake.sources
        if not labels_source.again
    )
    if intake.labelled < usable:
        rest = f"unmatched, duplicate and contradicted labels: {call.line('labels report')}"
        console.print(rest, style="dim")
    if intake.pairs or intake.graded:
        console.print(f"{intake.pairs:,} mirrored requests were paired, {intake.graded:,} pairs have a label now")


def _print_labels(console: Console, labels_listed: list[LabelFact]) -> None:
    rows = [
        (label.state, meant(label), label.label, label.known_time, label.problem, f"{label.source}:{label.line}")
        for label in labels_listed
    ]
    console.print(table(["state", "prediction", "label", "known", "problem", "from"], _dashed(rows)))


def meant(label: LabelFact) -> str:
    """The prediction that a label names: its id and row, or its key and event time as far as they are known."""
    if label.id is not None:
        return label.id if not label.row else f"{label.id} row {label.row}"
    key = "" if label.key is None else ", ".join(map(str, label.key))
    return key if label.event_time is None else f"{key} at {label.event_time}"


def _dashed(rows: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return [tuple("–" if value in (None, "") else value for value in row) for row in rows]


def _document(report: Report) -> dict[str, object]:
    import msgspec

    plain = msgspec.structs.asdict(report)
    plain["cohorts"] = [msgspec.structs.asdict(cohort) | {"share": cohort.share} for cohort in report.cohorts]
    return plain


def _print_report(console: Console, report: Report, call: Invocation) -> None:
    rows = [
        (
            cohort.start,
            cohort.model,
            cohort.version,
            cohort.arm or "–",
            cohort.predictions,
            cohort.labelled,
            f"{cohort.share:.1%}",
        )
        for cohort in report.cohorts[-_COHORTS:]
    ]
    numbers = ["predictions", "labelled", "share"]
    if earlier := report.cohorts[:-_COHORTS]:
        answered, labelled = sum(cohort.predictions for cohort in earlier), sum(cohort.labelled for cohort in earlier)
        console.print(
            f"{len(earlier):,} earlier cohorts have {answered:,} predictions, {labelled / answered:.1%} labelled; "
            "`--by week`, `--until` and `--json` show them",
            style="dim",
        )
    if rows:
        console.print(table(["from", "model", "version", "arm", *numbers], rows, right=numbers))
    else:
        console.print("no prediction is in the log, or none of these days", style="dim")
    if len(report.cohorts) > 1:
        share = f" ({report.labelled / report.predictions:.1%})" if report.predictions else ""
        console.print(f"predictions: {report.predictions:,}, of these {report.labelled:,} labelled{share}")
    counts = {
        "duplicate": report.duplicates,
        "known in the future": report.waiting,
        "without a prediction in the log": report.unmatched,
    }
    rest = "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    console.print(
        f"labels: {plural(report.rows, 'row')}{rest}{_refused(report.problems)}", soft_wrap=True, markup=False
    )
    changed = {"a corrected label": report.corrected, "contradictory labels": report.contradicted}
    console.print(
        "".join(f"{plural(count, 'prediction')} with {what}\n" for what, count in changed.items() if count), end=""
    )
    if report.early:
        console.print(
            f"{report.early:,} labelled predictions have a label that was known before them: a clock that was wrong, "
            "an answer to something else, or an outcome that the model could have received",
            soft_wrap=True,
        )
    for state, count in (("refused", len(report.problems)), ("contradicted", report.contradicted)):
        if count:
            console.print(f"next: {call.line(f'labels list --state {state}')}", style="dim")
