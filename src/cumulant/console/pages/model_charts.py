"""The charts of a model version, by the name that their CSV files have."""

from __future__ import annotations

from collections.abc import Callable

from cumulant.console import reliability_chart
from cumulant.console.charts import Cell, Chart, numbered
from cumulant.flows.reports import report_charts
from cumulant.flows.reports.content import CurveReport, ReportData, TrainingReport
from cumulant.flows.reports.page import search_chart
from cumulant.flows.reports.version_content import VersionContent

_HEADS = {
    "calibration": ("predicted", "observed", "rows"),
    "precision_recall": ("recall", "precision"),
    "roc": ("false positive rate", "true positive rate"),
    "predicted_observed": ("predicted", "observed", "rows"),
}
_LEGENDS = {
    "calibration": [("model", "model; a dot is as large as its rows are many"), ("ideal", "perfect calibration")],
    "precision_recall": [("model", "model"), ("ideal", "guessing")],
    "roc": [("model", "model"), ("ideal", "guessing")],
    "predicted_observed": [("model", "model"), ("ideal", "perfect")],
}


def version_charts(content: VersionContent, link: Callable[[str], str]) -> dict[str, Chart]:
    """By name. `link`: the path of a chart's CSV file."""
    report = content.report
    naive = next((each.naive for each in report.metrics if each.name == "average_precision" and each.naive), None)
    charts = {}
    for curve in report.curves:
        titled = report_charts.curve(curve, naive.value if naive else None)
        if titled is not None:
            heads, rows = numbered(*_HEADS[curve.kind]), _points(curve)
            charts[curve.kind] = Chart(
                titled.title, titled.drawing, heads, rows, link(curve.kind), legend=_LEGENDS[curve.kind]
            )
    if content.reliability and content.scores:  # records of before have tenths of the rows alone
        charts |= {
            "calibration": _reliability(content, link("calibration")),
            "scores": _scores(content, link("scores")),
        }
    if content.thresholds:
        charts["thresholds"] = _thresholds(content, link("thresholds"))
    search = _search(report, link("search"))
    if search is not None:
        charts["search"] = search
    return charts


def _points(curve: CurveReport) -> list[tuple[Cell, ...]]:
    return [(point.x, point.y, point.weight)[: len(_HEADS[curve.kind])] for point in curve.points]


def _reliability(content: VersionContent, link: str) -> Chart:
    names = ("predicted", "observed", "low", "high")
    return Chart(
        "Calibration",
        reliability_chart.reliability(content.reliability, content.scores),
        numbered("predicted", "observed", "band, low", "band, high"),
        list(zip(*(content.reliability[name] for name in names), strict=True)),
        link,
        note=f"{reliability_chart.describe(content.reliability)}. The band takes rows as independent.",
        legend=[
            ("model", "isotonic fit"),
            ("consistency", "where 95% of the fits of a calibrated model lie"),
            ("ideal", "perfect calibration"),
            ("now", "rows (below)"),
        ],
    )


def _scores(content: VersionContent, link: str) -> Chart:
    return Chart(
        "Predictions by what happened",
        reliability_chart.histogram(content.scores),
        numbered("from", "to", "rows, did not happen", "rows, happened"),
        list(zip(*(content.scores[name] for name in ("from", "to", "negative", "positive")), strict=True)),
        link,
        legend=[("now", "happened"), ("then", "did not happen")],
    )


def _thresholds(content: VersionContent, link: str) -> Chart:
    columns = content.thresholds
    serving = content.report.serving
    return Chart(
        "Thresholds",
        report_charts.thresholds(columns, content.report.threshold),
        numbered(*(name.replace("_", " ") for name in columns)),
        list(zip(*columns.values(), strict=True)),
        link,
        note="" if serving is None else serving.threshold_text,
        legend=[("model", "precision"), ("second", "recall"), ("ideal", "the version's threshold")],
    )


def _search(report: ReportData, link: str) -> Chart | None:
    training = report.training or TrainingReport()
    search = search_chart(training)
    if search is None:
        return None
    rows = [(each.number, each.trainer, each.score, each.state, each.seconds) for each in training.trials]
    heads = [
        ("trial", ""),
        ("trainer", ""),
        (training.score_name or "score", "num"),
        ("state", ""),
        ("time, s", "num"),
    ]
    return Chart("The search", search.drawing, heads, rows, link, legend=search.trainers)
