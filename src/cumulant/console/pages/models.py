"""Models: the versions, and one of them with its evidence, beside another where that is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup
from msgspec.json import encode

from cumulant.console.charts import Chart, csv_response
from cumulant.console.page_request import Crumb, Nav, PageRequest, PageRoute
from cumulant.console.pages.model_charts import version_charts
from cumulant.console.security import security_headers
from cumulant.core.errors import IntegrityError, NotFoundError, not_found
from cumulant.flows.registry.models import model_names, model_versions, show_model
from cumulant.flows.reports import report_charts, wording
from cumulant.flows.reports.content import FeatureReport, Interval, MetricReport, ReportData, TrainingReport
from cumulant.flows.reports.page import gate_text, main_metrics, rank_trial, slice_tables
from cumulant.flows.reports.version_content import VersionContent, version_content

if TYPE_CHECKING:
    from starlette.responses import Response

    from cumulant.ports.registry import ModelVersion

_SHOW = "model.show"
_LIST, _ONE = "/projects/{project}/models", "/projects/{project}/models/{model}/{version}"
_PAGE, _HEADLINES, _FEATURES = 50, 4, 40
#: most models that the page of one links to
_SWITCH = 12


class VersionMetric(NamedTuple):
    """A metric of a version, of the naive baseline, of the champion on the same rows, and of another version."""

    metric: MetricReport
    champion: Interval | None
    other: Interval | None
    drawing: Markup


def models(page: PageRequest) -> Response:
    """The versions of a model: of the one that is named, else of the project's own, else of the first."""
    known = model_names(page.project, principal=page.principal, limit=_SWITCH)
    own = page.project.name
    name, before = page.query("model"), page.query("before")
    listed = _versions(page, name, before=before or None) if name else ()
    if not name and known.names:
        try:
            name, listed = own, _versions(page, own)
        except NotFoundError:  # nothing of the project's own is registered yet
            name, listed = known.names[0], _versions(page, known.names[0])
    shown = listed[:_PAGE]
    return page.page(
        "models.html.jinja",
        title=f"Models of {own}",
        crumbs=[Crumb(own, page.href()), Crumb("Models")],
        live=True,
        name=name,
        names=known.names if known.total <= _SWITCH else (),
        total=known.total,
        complete=not before and len(listed) <= _PAGE,
        versions=shown,
        rows=page.site.rows.render(
            "version",
            shown,
            key=encode,
            values=lambda version: {"version": version},
            base=page.href("models"),
            run_base=page.href("runs"),
        ),
        older=page.href("models", model=name, before=shown[-1].version) if len(listed) > _PAGE else "",
        newest=page.href("models", model=name) if before else "",
        base=page.href("models"),
        every=page.href("models", "all"),
    )


def all_models(page: PageRequest) -> Response:
    """The models of the registry by name."""
    text = page.query("text")
    listed = model_names(page.project, principal=page.principal, text=text, after=page.query("after"), limit=_PAGE)
    own = {"text": text} if text else {}
    return page.page(
        "all_models.html.jinja",
        title="All models",
        crumbs=[Crumb(page.project.name, page.href()), Crumb("Models", page.href("models")), Crumb("all")],
        listed=listed,
        text=text,
        base=page.href("models"),
        here=page.href("models", "all"),
        next=page.href("models", "all", **own, after=listed.after) if listed.after else "",
        first=page.href("models", "all", **own) if page.query("after") else "",
    )


def version(page: PageRequest) -> Response:
    uri = f"{page.path('model')}/{page.path('version')}"
    try:
        content = version_content(page.project, uri, principal=page.principal)
    except IntegrityError:
        return _plain_version(page, uri)
    other_version = page.query("compare")
    other = None
    if other_version and other_version != content.version.version:
        other = version_content(page.project, f"{content.version.name}/{other_version}", principal=page.principal)
    report = content.report
    training = report.training or TrainingReport()
    charts = version_charts(content, lambda name: _chart_href(page, content.version, name))
    other_charts = {} if other is None else version_charts(other, lambda name: _chart_href(page, other.version, name))
    return page.page(
        "version.html.jinja",
        title=report.subject,
        crumbs=_crumbs(page, content.version),
        content=content,
        report=report,
        training=training,
        other=other,
        same_rows=other is not None and other.tested is not None and other.tested == content.tested,
        others=[each for each in _versions(page, content.version.name) if each.version != content.version.version],
        gate_text=gate_text(report.gate) if report.gate else "",
        headlines=main_metrics(report)[:_HEADLINES],
        metrics=metric_lines(report, content.champion, {} if other is None else _figures(other.report)),
        charts=[chart_pair(name, charts[name], other_charts.get(name)) for name in charts],
        slices=slice_tables(report),
        trials=sorted(training.trials, key=lambda trial: rank_trial(trial, higher=training.higher_is_better))[:_PAGE],
        features=feature_lines(report, None if other is None else other.report),
        other_slices={} if other is None else _slice_figures(other.report),
        lineage=_lineage(page, content),
        lineage_href=page.href("lineage", focus=f"version:{content.version.name}/{content.version.version}"),
        run_href="" if content.lineage is None else page.href("runs", content.lineage.run),
        here=page.href("models", content.version.name, content.version.version),
    )


def _plain_version(page: PageRequest, uri: str) -> Response:
    """A version that reads tensors: its figures and its signature."""
    detail = show_model(page.project, uri, principal=page.principal)
    return page.page(
        "plain_version.html.jinja",
        title=f"{detail.version.name} version {detail.version.version}",
        crumbs=_crumbs(page, detail.version),
        detail=detail,
    )


def chart_file(page: PageRequest) -> Response:
    """The numbers of a chart."""
    uri = f"{page.path('model')}/{page.path('version')}"
    content = version_content(page.project, uri, principal=page.principal)
    charts = version_charts(content, lambda _: "")
    name = page.path("chart")
    if name not in charts:
        raise not_found("chart", name, charts)
    heads = [head for head, _ in charts[name].heads]
    file = f"{content.version.name}-{content.version.version}-{name}"
    return csv_response(file, heads, charts[name].rows, security_headers(page.nonce))


def metric_lines(
    report: ReportData, champion: Mapping[str, Interval], other: Mapping[str, Interval]
) -> list[VersionMetric]:
    lines = []
    for metric in main_metrics(report):
        beside = champion.get(metric.name) or metric.naive
        drawing = report_charts.strip(metric.model, beside, *report_charts.bounds([metric.model, beside]))
        lines.append(VersionMetric(metric, champion.get(metric.name), other.get(metric.name), drawing))
    return lines


class ChartPair(NamedTuple):
    """A chart of a version, and that of another; `same`: both draw the same numbers, and the other is left out."""

    name: str
    chart: Chart
    other: Chart | None
    same: bool = False


def chart_pair(name: str, chart: Chart, other: Chart | None) -> ChartPair:
    if other is not None and chart.rows == other.rows:
        return ChartPair(name, chart, None, same=True)
    return ChartPair(name, chart, other)


class FeatureLine(NamedTuple):
    """A feature with its part of all importance, and the other version's. `change`: what differs between both."""

    feature: FeatureReport
    importance: float | None
    other: float | None
    change: str


def feature_lines(report: ReportData, other: ReportData | None) -> list[FeatureLine]:
    """The most important features first; beside another version also those that it alone has."""
    theirs = {} if other is None else {each.name: each for each in other.features}
    lines = [
        FeatureLine(each, each.importance, _importance(theirs.get(each.name)), _change(each, theirs, other))
        for each in report.features
    ]
    mine = {each.name for each in report.features}
    lines += [FeatureLine(each, None, each.importance, "removed") for each in theirs.values() if each.name not in mine]
    return sorted(lines, key=lambda line: -max(line.importance or 0.0, line.other or 0.0))[:_FEATURES]


def _importance(feature: FeatureReport | None) -> float | None:
    return None if feature is None else feature.importance


def _change(feature: FeatureReport, theirs: Mapping[str, FeatureReport], other: ReportData | None) -> str:
    if other is None:
        return ""
    before = theirs.get(feature.name)
    if before is None:
        return "added"
    return "" if (before.definition, before.dtype) == (feature.definition, feature.dtype) else "changed"


def _slice_figures(report: ReportData) -> dict[tuple[str, str], str]:
    """By column and value, the figure of a slice."""
    return {
        (part.column, row.value): wording.figure(row.measured) for part in slice_tables(report) for row in part.rows
    }


def _figures(report: ReportData) -> dict[str, Interval]:
    return {metric.name: metric.model for metric in report.metrics}


def _lineage(page: PageRequest, content: VersionContent) -> list[tuple[str, Sequence[tuple[str, str, str]]]]:
    """The stages that made the version, each with its parts: a label, an identity, and a link or nothing."""
    lineage = content.lineage
    if lineage is None:
        return []
    snapshots = [(source, identity[:12], page.href("data", source)) for source, identity in lineage.snapshots.items()]
    table = lineage.table.rpartition("/")[2][:12]
    number = content.version.version
    return [
        ("Snapshots", snapshots),
        ("Features", [(f"{lineage.features} features", table, page.href("features"))]),
        ("Run", [("training", lineage.run, page.href("runs", lineage.run))]),
        ("Version", [(content.version.name, number, page.href("models", content.version.name, number))]),
    ]


def _versions(page: PageRequest, name: str, before: str | None = None) -> Sequence[ModelVersion]:
    """One more than a page has."""
    return model_versions(page.project, name, principal=page.principal, before=before, limit=_PAGE + 1)


def _crumbs(page: PageRequest, shown: ModelVersion) -> list[Crumb]:
    return [
        Crumb(page.project.name, page.href()),
        Crumb("Models", page.href("models", model=shown.name)),
        Crumb(f"version {shown.version}"),
    ]


def _chart_href(page: PageRequest, shown: ModelVersion, name: str) -> str:
    return page.href("models", shown.name, shown.version, "charts", f"{name}.csv")


ROUTES = (
    PageRoute(_LIST, models, _SHOW, nav=Nav("Models", "m")),
    PageRoute(f"{_LIST}/all", all_models, _SHOW),
    PageRoute(_ONE, version, _SHOW),
    PageRoute(f"{_ONE}/charts/{{chart}}.csv", chart_file, _SHOW),
)
