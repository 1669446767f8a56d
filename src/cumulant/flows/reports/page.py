"""The report as one page: no script, no request to any network, readable on paper."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from markupsafe import Markup

from cumulant.flows.reports import report_charts, wording
from cumulant.flows.reports.content import (
    CheckReport,
    FeatureReport,
    FoldReport,
    GateReport,
    Interval,
    MetricReport,
    ReportData,
    SliceReport,
    SourceReport,
    TrainingReport,
    TrialReport,
)
from cumulant.flows.reports.decisions import decisions, search_summary
from cumulant.flows.reports.rendering import render as render_template
from cumulant.flows.reports.svg_elements import Drawing, style_sheet

_HEADLINES = 3
#: rows of slices of a column that are not folded away
_SLICES = 12
#: what the threshold does to a slice, beside its main metric
_DECISION = ("recall", "precision", "cost")


def page_style() -> Markup:
    """The style sheets of a page and its report_charts."""
    return Markup(style_sheet("charts.css") + style_sheet("style.css"))  # noqa: S704 - our own files


class Section(msgspec.Struct, frozen=True):
    """A part of a page, by the template of its name; `lead`: a sentence about its content."""

    anchor: str
    title: str
    lead: str = ""


class PageLayout(msgspec.Struct, frozen=True, kw_only=True):
    """What the layout of pages needs; `folder` has the templates of the sections."""

    folder: str
    sections: tuple[Section, ...]
    generated: datetime
    cumulant: str
    style: Markup = msgspec.field(default_factory=page_style)


class MetricRow(msgspec.Struct, frozen=True):
    metric: MetricReport
    drawing: Markup


class SliceRow(msgspec.Struct, frozen=True):
    """One slice: its main metric, drawn where it could be measured, and the texts of other metrics."""

    value: str
    rows: int
    measured: Interval | None
    drawing: Markup | None
    others: tuple[str, ...]


class SliceTable(msgspec.Struct, frozen=True, kw_only=True):
    """The slices by one column; `others`: head and style of each further column."""

    column: str
    metric: str
    others: list[tuple[str, str]]
    rows: tuple[SliceRow, ...]
    smaller: tuple[SliceRow, ...]


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    data: SourceReport
    stored: str
    flow: tuple[tuple[str, int], ...]
    checks: tuple[CheckReport, ...]
    lists: tuple[tuple[str, tuple[str, ...]], ...]


class FeatureTable(msgspec.Struct, frozen=True, kw_only=True):
    features: tuple[FeatureReport, ...]
    owned: bool
    weighed: bool
    most: float


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a time axis, in percent of it."""

    style: str
    text: str
    start: float
    width: float


class SplitRow(msgspec.Struct, frozen=True):
    name: str
    spans: tuple[Span, Span]


class Splits(msgspec.Struct, frozen=True):
    """Folds on one time axis, with its first, middle and last day."""

    rows: tuple[SplitRow, ...]
    days: tuple[str, ...]


class Search(msgspec.Struct, frozen=True):
    """The chart of the trials; `trainers`: style and name of each."""

    drawing: Drawing
    trainers: tuple[tuple[str, str], ...]


class ReportPage(PageLayout, frozen=True, kw_only=True):
    """All values of the page of a report."""

    report: ReportData
    headlines: tuple[MetricReport, ...]
    gate_text: str
    measured: str
    metrics: tuple[MetricRow, ...]
    decisions: tuple[tuple[str, str, str], ...]
    curves: tuple[report_charts.TitledDrawing, ...]
    slices: tuple[SliceTable, ...]
    sources: tuple[SourceView, ...]
    features: FeatureTable
    splits: Splits | None
    search: Search | None
    trials: tuple[TrialReport, ...]


def render(report: ReportData) -> str:
    """The whole document."""
    training = report.training or TrainingReport()
    page = ReportPage(
        folder="report",
        sections=tuple(sections(report)),
        generated=report.generated,
        cumulant=report.cumulant,
        report=report,
        headlines=tuple(main_metrics(report)[:_HEADLINES]),
        gate_text=gate_text(report.gate) if report.gate else "",
        measured="tested model" if report.of_tested else "this model",
        metrics=tuple(_metric_row(metric) for metric in report.metrics),
        decisions=tuple(decisions(report)),
        curves=tuple(_curves(report)),
        slices=tuple(slice_tables(report)),
        sources=tuple(_source(source) for source in report.sources),
        features=_features(report.features),
        splits=_splits(training.folds),
        search=search_chart(training),
        trials=tuple(sorted(training.trials, key=lambda trial: rank_trial(trial, higher=training.higher_is_better))),
    )
    return render_template("report/page.html.jinja", page)


def sections(report: ReportData) -> list[Section]:
    """The sections of this report that have content, in reading order."""
    reference = report.gate.reference if report.gate else ""
    features = wording.plural(len(report.features), "feature")
    parts: list[tuple[object, Section]] = [
        (True, Section("summary", "At a glance")),
        (report.metrics, Section("quality", "Quality", _quality_lead(report))),
        (report.gate, Section("gate", "Gate", f"The model was compared with {reference} on the same rows.")),
        (True, Section("data", "Data", _data_lead(report.sources))),
        (
            report.features,
            Section(
                "features", "Features", f"{features}, computed only from what was known at the moment of prediction."
            ),
        ),
        (report.training, Section("training", "Training", search_summary(report.training or TrainingReport()))),
        (
            report.serving,
            Section(
                "serving",
                "Serving",
                "A caller sends the raw fields of one row; stored history and lookups are added by the server.",
            ),
        ),
        (
            True,
            Section(
                "lineage",
                "Lineage",
                "What made it. Every name here is a hash of content: the same inputs, code and settings have the same"
                " names.",
            ),
        ),
        (
            report.events,
            Section(
                "events",
                "Who did what",
                "The events of this run, from the project's chain; `cumulant events verify` proves that none was"
                " altered.",
            ),
        ),
    ]
    return [section for present, section in parts if present]


def _quality_lead(report: ReportData) -> str:
    test = report.training.test_rows if report.training else 0
    rows = f" ({wording.plural(test, 'row')})" if test else ""
    lead = f"Measured on rows that neither the search nor the fit has seen{rows}."
    if report.of_tested:
        lead = (
            f"Measured of the tested model: the same configuration, fitted without the test rows{rows}, which this"
            " model has learned too."
        )
    if report.cluster in ("", "row"):
        return f"{lead} Intervals hold 95%, from resampling rows."
    clusters = wording.plural(report.clusters, report.cluster)
    return f"{lead} Intervals hold 95%, from resampling the {clusters} whole: rows of one depend on each other."


def gate_text(gate: GateReport) -> str:
    return " ".join([_rules_text(gate), *(f"Warning: {warning}." for warning in gate.warnings)])


def _rules_text(gate: GateReport) -> str:
    failed = [rule for rule in gate.rules if not rule.passed]
    if failed:
        names = ", ".join(wording.title(rule.metric).lower() for rule in failed)
        return f"The gate refused: {wording.plural(len(failed), 'rule')} did not hold ({names})."
    if not gate.passed:
        return "The gate refused."
    if len(gate.rules) == 1:
        return f"The gate's only rule holds, against {gate.reference}."
    return f"The gate's {len(gate.rules)} rules hold, against {gate.reference}."


def _data_lead(sources: Sequence[SourceReport]) -> str:
    if not sources:
        return "This run reached no data."
    total = sum(source.rows_in for source in sources)
    return (
        f"{wording.plural(total, 'row')} from {wording.plural(len(sources), 'source')}. "
        "Every row is counted: it passed, was quarantined by a rule, or was dropped by the project's own preparation."
    )


def main_metrics(report: ReportData) -> list[MetricReport]:
    gated = [rule.metric for rule in report.gate.rules] if report.gate else []
    order = {name: index for index, name in enumerate(gated)}
    return sorted(report.metrics, key=lambda metric: order.get(metric.name, len(order)))


def _metric_row(metric: MetricReport) -> MetricRow:
    return MetricRow(
        metric, report_charts.strip(metric.model, metric.naive, *report_charts.bounds([metric.model, metric.naive]))
    )


def _curves(report: ReportData) -> list[report_charts.TitledDrawing]:
    naive = next((m.naive for m in report.metrics if m.name == "average_precision" and m.naive), None)
    figures = (report_charts.curve(curve, naive.value if naive else None) for curve in report.curves)
    return [figure for figure in figures if figure is not None]


def slice_tables(report: ReportData) -> list[SliceTable]:
    """A table for each column; none where the slices have no metric in common that the report has."""
    measured = [part for part in report.slices if part.metrics]
    shared = [m.name for m in report.metrics if measured and all(m.name in part.metrics for part in measured)]
    gated = [rule.metric for rule in report.gate.rules] if report.gate else []
    # A metric of ranks compares slices of different base rates better than a loss does.
    gated.sort(key=lambda name: not wording.higher_is_better(name))
    main = next((name for name in (*gated, *shared) if name in shared), None)
    if main is None:
        return []
    overall = next(metric.model.value for metric in report.metrics if metric.name == main)
    return [
        _slice_table([part for part in report.slices if part.column == column], main, overall)
        for column in dict.fromkeys(part.column for part in report.slices)
    ]


def _slice_table(slices: Sequence[SliceReport], main: str, overall: float) -> SliceTable:
    low, high = report_charts.bounds([part.metrics.get(main) for part in slices])
    low, high = min(low, overall), max(high, overall)
    beside = [name for name in _DECISION if name != main and any(name in part.metrics for part in slices)]
    rows = []
    for part in slices:
        measured = part.metrics.get(main)
        drawing = report_charts.forest(measured, overall, low, high) if measured else None
        others = tuple(wording.number(part.metrics[name].value) if name in part.metrics else "–" for name in beside)
        rows.append(SliceRow(part.value, part.rows, measured, drawing, others))
    shown = _SLICES if len(rows) > _SLICES + 2 else len(rows)
    return SliceTable(
        column=slices[0].column,
        metric=wording.title(main),
        others=[(wording.title(name).lower(), "n") for name in beside],
        rows=tuple(rows[:shown]),
        smaller=tuple(rows[shown:]),
    )


def _source(source: SourceReport) -> SourceView:
    stored = f"{wording.size(source.bytes)} as Parquet" if source.bytes else ""
    if stored and source.csv_bytes > source.bytes:
        stored += f", {source.csv_bytes / source.bytes:.1f} times smaller than the same rows as CSV"
    return SourceView(
        data=source,
        stored=stored,
        flow=(
            ("passed", source.rows_passed),
            ("quarantined", source.rows_quarantined),
            ("dropped", source.rows_dropped),
        ),
        checks=tuple(sorted(source.checks, key=lambda check: (check.passed and not check.quarantines, -check.failed))),
        lists=(
            ("Warnings", source.warnings),
            ("Schema changes against the last accepted snapshot", source.changes),
            ("Shifts against the last accepted snapshot", source.shifts),
        ),
    )


def _features(features: tuple[FeatureReport, ...]) -> FeatureTable:
    weights = [feature.importance for feature in features if feature.importance is not None]
    owned = any(feature.owner for feature in features)
    return FeatureTable(features=features, owned=owned, weighed=bool(weights), most=max(weights, default=0.0) or 1.0)


def _splits(folds: Sequence[FoldReport]) -> Splits | None:
    times = [
        [_stamp(row.train_from), _stamp(row.train_to), _stamp(row.held_from), _stamp(row.held_to)] for row in folds
    ]
    timed = [(row, at) for row, stamps in zip(folds, times, strict=True) if len(at := [s for s in stamps if s]) == 4]
    if not timed:
        return None
    begin, end = min(at[0] for _, at in timed), max(at[3] for _, at in timed)

    def span(row: FoldReport, style: str, start: float, stop: float, rows: int) -> Span:
        whole = (end - begin) or 1.0
        text = f"{row.name}, {style.split(maxsplit=1)[0]}: {_day(start)} to {_day(stop)}, {wording.count(rows)} rows"
        width = max(100 * (stop - start) / whole, 0.5)
        return Span(style=style, text=text, start=100 * (start - begin) / whole, width=width)

    rows = [
        SplitRow(
            row.name,
            (
                span(row, "train", at[0], at[1], row.train_rows),
                span(row, "held test" if row.name == "test" else "held", at[2], at[3], row.held_rows),
            ),
        )
        for row, at in timed
    ]
    return Splits(tuple(rows), tuple(_day(begin + (end - begin) * part / 2) for part in range(3)))


def _stamp(when: datetime | None) -> float | None:
    return None if when is None else when.timestamp()


def _day(stamp: float) -> str:
    return wording.day(datetime.fromtimestamp(stamp, UTC))


def search_chart(training: TrainingReport) -> Search | None:
    drawing = report_charts.search(
        training.trials, training.best, training.score_name or "score", higher=training.higher_is_better
    )
    if drawing is None:
        return None
    trainers = dict.fromkeys(trial.trainer for trial in training.trials if trial.score is not None)
    styles = [(f"kind{index % 4}", trainer) for index, trainer in enumerate(trainers)]
    return Search(drawing, (*styles, ("best", "best")))


def rank_trial(trial: TrialReport, *, higher: bool) -> tuple[bool, float]:
    if trial.score is None:
        return True, float(trial.number)
    return False, -trial.score if higher else trial.score
