"""The report's sections about what went in: sources and features."""

from __future__ import annotations

from cumulant.flows.reports import wording
from cumulant.flows.reports.blocks import Column, Section, definitions, details, section, table, tag
from cumulant.flows.reports.content import CheckReport, FeatureReport, ReportData, SourceReport
from cumulant.flows.reports.markup import Child, Markup, element, join

MANY = 12


def data(report: ReportData) -> Section:
    """Each source: how many rows came, which were refused and by what."""
    total = sum(source.rows_in for source in report.sources)
    lead = (
        f"{wording.plural(total, 'row')} from {wording.plural(len(report.sources), 'source')}. "
        "Every row is counted: it passed, was quarantined by a rule, or was dropped by the project's own preparation."
        if report.sources
        else "This run reached no data."
    )
    return section("data", "Data", lead, *[_source(source) for source in report.sources])


def features(report: ReportData) -> Section:
    """What each feature is, in words."""
    found = report.features
    lead = f"{wording.plural(len(found), 'feature')}, computed only from what was known at the moment of prediction."
    owned, weighed = any(one.owner for one in found), any(one.importance is not None for one in found)
    columns = [Column("name"), Column("type", "w"), Column("definition", "prose")]
    columns += [Column("importance", "w")] if weighed else []
    columns += [Column("owner", "w")] if owned else []
    most = max((one.importance or 0.0 for one in found), default=0.0)
    rows = ((_feature(one, most=most, owned=owned), None) for one in found)
    return section("features", "Features", lead, table("Features", columns, rows))


def _feature(feature: FeatureReport, *, most: float, owned: bool) -> list[Child]:
    words: list[Child] = [feature.definition]
    if feature.description:
        words = [element("div", feature.description), element("div", feature.definition, class_="quiet")]
    words += [tag(name) for name in feature.tags]
    cells: list[Child] = [element("code", feature.name), feature.dtype, join(words)]
    if feature.importance is not None:
        width = 100 * feature.importance / (most or 1.0)
        bar = element("span", element("span", style=f"width:{width:.1f}%"), class_="weight", aria_hidden="true")
        cells.append(join([bar, wording.share(feature.importance)]))
    return [*cells, feature.owner or "–"] if owned else cells


def _source(source: SourceReport) -> Markup:
    facts = definitions(
        [
            ("key", element("code", ", ".join(source.key)) if source.key else None),
            ("event time", element("code", source.event_time) if source.event_time else None),
            ("snapshot", element("code", source.snapshot)),
            ("accepted", wording.moment(source.accepted) if source.accepted else None),
            ("stored", _stored(source)),
        ]
    )
    return element(
        "div",
        element("h3", source.name),
        _flow(source),
        facts,
        _checks(source),
        _listed("Warnings", source.warnings),
        _listed("Schema changes against the last accepted snapshot", source.changes),
        _listed("Shifts against the last accepted snapshot", source.shifts),
        _files(source),
    )


def _stored(source: SourceReport) -> str | None:
    if not source.bytes:
        return None
    text = f"{wording.size(source.bytes)} as Parquet"
    if source.csv_bytes > source.bytes:
        text += f", {source.csv_bytes / source.bytes:.1f} times smaller than the same rows as CSV"
    return text


def _flow(source: SourceReport) -> Markup:
    parts = [
        ("passed", source.rows_passed),
        ("quarantined", source.rows_quarantined),
        ("dropped", source.rows_dropped),
    ]
    whole = source.rows_in or 1
    bar = [element("span", class_=kind, style=f"flex:{rows}") for kind, rows in parts if rows]
    items = [element("li", element("b", wording.count(source.rows_in)), " rows in")]
    items += [
        element(
            "li",
            element("span", class_=f"key {kind}", aria_hidden="true"),
            f"{wording.count(rows)} {kind}"
            + (f" ({wording.share(rows / whole)})" if rows and kind != "passed" else ""),
        )
        for kind, rows in parts
    ]
    return join([element("div", *bar, class_="flow", aria_hidden="true"), element("ul", *items, class_="legend")])


def _checks(source: SourceReport) -> Markup | None:
    if not source.checks:
        return None
    rows = (
        (
            [
                check.text,
                element("code", check.column) if check.column else "whole table",
                wording.count(check.failed),
                wording.share(check.share),
                _state(check),
            ],
            None,
        )
        for check in sorted(source.checks, key=lambda check: (check.passed and not check.quarantines, -check.failed))
    )
    columns = [Column("rule"), Column("column"), Column("rows that fail", "n"), Column("share", "n"), Column("", "w")]
    return table(f"Rules of {source.name}", columns, rows)


def _state(check: CheckReport) -> Markup:
    if check.quarantines and check.failed:
        return tag("quarantined rows", "bad")
    return tag("holds", "good") if check.passed else tag("broken", "bad")


def _listed(title: str, lines: tuple[str, ...]) -> Markup | None:
    if not lines:
        return None
    return join([element("p", title, class_="quiet"), element("ul", *[element("li", line) for line in lines])])


def _files(source: SourceReport) -> Markup | None:
    if not source.files:
        return None
    columns = [Column("file"), Column("rows", "n"), Column("size", "n"), Column("SHA-256")]
    rows = (
        (
            [file.name, wording.count(file.rows), wording.size(file.bytes), element("code", file.sha256)],
            None,
        )
        for file in source.files
    )
    found = table(f"Files of {source.name}", columns, rows)
    return details(wording.plural(len(source.files), "source file"), found, open_=len(source.files) <= 1)
