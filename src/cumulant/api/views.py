"""How each result of a flow is displayed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.api.display import Listing, ResultPage, ResultView, Value, drop_empty
from cumulant.core.servable import GraphServable
from cumulant.flows.packaging.package_summary import summary_rows
from cumulant.flows.reports import rendering, wording
from cumulant.flows.reports.origins import lines
from cumulant.flows.reports.request_example import curl, fields
from cumulant.flows.reports.terminal import heading, pairs, table

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.core.events import Event
    from cumulant.flows.data.validate import Validation
    from cumulant.flows.ledger.ledger_records import RunRecord
    from cumulant.flows.packaging.register import RegisterResult
    from cumulant.flows.project.planning import TrainingPlan
    from cumulant.flows.registry.models import ModelDetail
    from cumulant.flows.reports.content import Interval, ReportData


class FramePage(msgspec.Struct, frozen=True):
    """A whole document, shown in a frame."""

    document: str
    title: str


class TrainingView(ResultView[Value]):
    """A finished training or evaluation; `.page` is the content of its report."""

    page: ReportData


def plan(result: TrainingPlan) -> ResultView[TrainingPlan]:
    """A plan: what is predicted when, from which sources and features."""
    rows: list[tuple[str, object]] = [
        ("target", f"{result.target}, for each row of {result.entity}"),
        ("predicted at", result.predict_at),
        ("sources", ", ".join(f"{source.name} ({source.rows:,} rows)" for source in result.sources)),
        ("features", ", ".join(result.features.names)),
        ("request", ", ".join(field.name for field in result.features.request)),
    ]
    return _facts(f"Plan of {result.project}", rows, result)


def validation(result: Validation) -> ResultView[Validation]:
    """Rows in and where they went, source by source."""
    columns = ("source", "rows in", "passed", "quarantined", "dropped", "files", "")
    rows = [
        (
            name,
            snapshot.rows_in,
            snapshot.rows_passed,
            snapshot.rows_quarantined,
            snapshot.rows_dropped,
            len(snapshot.files),
            "nothing new" if name in result.reused else "",
        )
        for name, snapshot in result.snapshots.items()
    ]
    return _table("Data", columns, rows, result)


def training(result: Value, page: ReportData) -> TrainingView[Value]:
    """Metrics beside the naive baseline, the gate, the model."""

    def text(console: Console) -> None:
        from cumulant.flows.reports.summary import show_training

        show_training(console, page)

    shown = TrainingView(result, text=text, html=lambda: _page(page).render())
    shown.page = page
    return shown


def model(result: ModelDetail) -> ResultView[ModelDetail]:
    """A version with its figures and its request."""
    from cumulant.flows.reports.collect import figures

    version = result.version
    if isinstance(result.servable, GraphServable):
        from cumulant.flows.packaging.package_summary import graph_rows

        about = [("uri", version.uri), ("aliases", version.aliases), ("registered", version.created)]
        return _facts(f"{version.name} version {version.version}", [*about, *graph_rows(result.servable)], result)
    rows: list[tuple[str, object]] = [
        ("uri", version.uri),
        ("aliases", version.aliases),
        ("registered", version.created),
        ("threshold", result.servable.threshold),
        *[(wording.title(name), _figure(name, figure, result)) for name, figure in figures(result.metrics).items()],
        ("request", ", ".join(field.name for field in fields(result.servable))),
    ]
    return _facts(f"{version.name} version {version.version}", rows, result, code=curl(result.servable, result.url))


def _figure(name: str, figure: Interval, result: ModelDetail) -> str:
    naive = result.metrics.get(f"naive_{name}")
    return wording.figure(figure) + ("" if naive is None else f", naive {wording.number(naive)}")


def registered(result: RegisterResult) -> ResultView[RegisterResult]:
    """What was packaged, the results of the checks, and its place."""
    notes = [("note" if index == 0 else "", line) for index, line in enumerate(result.packaged.notes)]
    return _facts(result.servable.name, [("where", result.uri), *summary_rows(result.packaged), *notes], result)


def lineage(result: Any) -> ResultView[Any]:
    """Where a version comes from."""
    return _facts("Lineage", lines(result), result)


def reproduction(result: Any) -> ResultView[Any]:
    """Whether the retrained model is the recorded one."""
    rows: list[tuple[str, object]] = [("identical", result.identical)]
    rows += [("differs" if index == 0 else "", line) for index, line in enumerate(result.differences)]
    return _facts("Reproduction", rows, result)


def report(page: ReportData) -> ResultView[ReportData]:
    """The report, inside a frame of its own so that its style stays in it."""

    def text(console: Console) -> None:
        from cumulant.flows.reports.markdown import render

        console.print(render(page), markup=False)

    def html() -> str:
        from cumulant.flows.reports.page import render

        return rendering.render("notebook/frame.html.jinja", FramePage(render(page), page.subject))

    return ResultView(page, text=text, html=html)


def runs(records: Sequence[RunRecord]) -> Listing[RunRecord]:
    """Runs as a table."""
    columns = ("run", "flow", "status", "started", "seconds", "steps", "who")
    return Listing(
        records,
        columns,
        lambda run: (run.id, run.flow, run.ended, run.started, run.seconds, len(run.steps), run.principal),
    )


def events(listed: Sequence[Event]) -> Listing[Event]:
    """Events as a table."""
    columns = ("seq", "time", "who", "what", "run")
    return Listing(listed, columns, lambda event: (event.seq, event.time, event.actor, event.kind, event.run))


def _page(page: ReportData) -> ResultPage:
    rows = [
        (
            f"{wording.title(metric.name)} {'↑' if metric.higher_is_better else '↓'}",
            metric.model.value,
            wording.interval(metric.model),
            metric.naive.value if metric.naive else None,
        )
        for metric in page.metrics
    ]
    where = [("model", page.uri), ("aliases", page.aliases), ("run", page.run)]
    return ResultPage(
        title=page.subject,
        columns=("on the test rows", "model", "95% interval", "naive"),
        rows=rows,
        gate=page.gate,
        facts=None if page.uri is None else drop_empty(where),
    )


def _facts(title: str, rows: Sequence[tuple[str, object]], value: Any, *, code: str | None = None) -> ResultView[Any]:
    def text(console: Console) -> None:
        heading(console, title)
        pairs(console, drop_empty(rows))

    return ResultView(value, text=text, html=ResultPage(title=title, facts=drop_empty(rows), code=code).render)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], value: Any) -> ResultView[Any]:
    def text(console: Console) -> None:
        heading(console, title)
        console.print(table(columns, rows))

    return ResultView(value, text=text, html=ResultPage(title=title, columns=columns, rows=rows).render)
