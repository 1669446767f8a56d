"""The report as one page: no script, no request to any network, readable on paper."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files

from cumulant.flows.reports import data_sections, model_sections, wording
from cumulant.flows.reports.blocks import Column, Section, definitions, section, table, tag, tile, tiles
from cumulant.flows.reports.content import MetricReport, ReportData
from cumulant.flows.reports.markup import Child, Markup, element, join, style_sheet

#: What the browser may load for this page: nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
HEADLINES = 3


def render(report: ReportData) -> str:
    """The whole document."""
    return document(report.subject, _header(report), contents(report), _footer(report))


def document(subject: str, header: Markup, sections: Sequence[Section], footer: Markup) -> str:
    """A page in the style of the report, with its contents beside it."""
    css = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    links = [element("li", element("a", part.title, href=f"#{part.anchor}")) for part in sections]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", subject),
        style_sheet(css),
    )
    body = element(
        "body",
        element("a", "Skip to the content", href="#main", class_="skip"),
        element(
            "div",
            header,
            element("nav", element("ol", *links), aria_label="Contents"),
            element("main", *[part.body for part in sections], id="main"),
            footer,
            class_="layout",
        ),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def contents(report: ReportData) -> list[Section]:
    """The sections that this report has something to say in, in reading order."""
    found = [_summary(report)]
    if report.metrics:
        found.append(model_sections.quality(report))
    if report.gate is not None:
        found.append(model_sections.gate(report.gate))
    found.append(data_sections.data(report))
    if report.features:
        found.append(data_sections.features(report))
    if report.training is not None:
        found.append(model_sections.training(report.training))
    if report.serving is not None:
        found.append(model_sections.serving(report.serving))
    found.append(_lineage(report))
    if report.events:
        found.append(_events(report))
    return found


def _header(report: ReportData) -> Markup:
    kicker = "Model report" if report.version else "Run report"
    aliases = join([tag(alias, "good" if alias == "champion" else "") for alias in report.aliases])
    facts: list[tuple[str, Child]] = [
        ("version", report.version),
        ("alias", aliases or None),
        ("owner", report.owner),
        ("risk", report.risk),
        ("trained", wording.moment(report.created) if report.created else None),
        ("run", element("code", report.run) if report.run else None),
    ]
    return element(
        "header",
        element("p", kicker, class_="kicker"),
        element("h1", report.name),
        element("p", report.purpose, class_="purpose") if report.purpose else None,
        element("ul", *[element("li", element("b", label), value) for label, value in facts if value], class_="facts"),
    )


def _summary(report: ReportData) -> Section:
    parts = [_headline(metric) for metric in _main_metrics(report)]
    if report.sources:
        rows = sum(source.rows_in for source in report.sources)
        refused = sum(source.rows_quarantined for source in report.sources)
        parts.append(tile("Rows in", wording.count(rows), f"{wording.count(refused)} quarantined"))
    if report.features:
        parts.append(tile("Features", wording.count(len(report.features))))
    gate = model_sections.banner(report.gate) if report.gate else None
    missing = None if report.training else element("p", "This run did not reach training.", class_="lead")
    return section("summary", "At a glance", "", gate, tiles(*parts) if parts else None, missing)


def _main_metrics(report: ReportData) -> list[MetricReport]:
    """The figures that the gate asks about, then the others."""
    asked = [rule.metric for rule in report.gate.rules] if report.gate else []
    order = {name: index for index, name in enumerate(asked)}
    return sorted(report.metrics, key=lambda metric: order.get(metric.name, len(order)))[:HEADLINES]


def _headline(metric: MetricReport) -> Markup:
    against = f"naive {wording.number(metric.naive.value)}" if metric.naive else ""
    between = wording.interval(metric.model)
    return tile(
        wording.title(metric.name), wording.number(metric.model.value), "" if between == "–" else between, against
    )


def _lineage(report: ReportData) -> Section:
    told = {"model": report.uri or "", **report.lineage}
    made = definitions((label, element("code", value)) for label, value in told.items() if value)
    around = definitions((label, element("code", value)) for label, value in report.environment.items())
    lead = "What made it. Every name here is a hash of content: the same inputs, code and settings have the same names."
    return section(
        "lineage", "Lineage", lead, made, element("h3", "Environment") if report.environment else None, around
    )


def _events(report: ReportData) -> Section:
    columns = [Column("when", "w"), Column("who"), Column("what"), Column("", "prose")]
    rows = (
        (
            [
                wording.moment(event.time),
                event.actor,
                element("code", event.kind),
                element("span", event.text, class_="quiet"),
            ],
            None,
        )
        for event in report.events
    )
    lead = "The events of this run, from the project's chain; `cumulant events verify` proves that none was altered."
    shown = wording.steps(report.steps, report.seconds)
    steps = element("p", f"The steps of the run took {shown}.") if shown else None
    return section("events", "Who did what", lead, steps, table("Events", columns, rows))


def _footer(report: ReportData) -> Markup:
    return made_by(report.made, report.cumulant)


def made_by(when: datetime, cumulant: str) -> Markup:
    """The last line of a page."""
    text = f"Made {wording.moment(when)} by Cumulant {cumulant}. This page loads nothing from any network."
    return element("footer", text)
