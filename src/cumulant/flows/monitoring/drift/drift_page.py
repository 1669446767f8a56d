"""A look as one page: what moved, how it was distributed then and now, and every column over the windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cumulant.core.errors import StorageError, UsageError
from cumulant.core.version import __version__
from cumulant.flows.monitoring.drift import drift_charts
from cumulant.flows.reports.blocks import Column as Head
from cumulant.flows.reports.blocks import Section, definitions, figure, section, table, tag, tile, tiles
from cumulant.flows.reports.markup import Child, Markup, element, join
from cumulant.flows.reports.page import document, made_by
from cumulant.flows.reports.wording import count, number, plural, share
from cumulant.monitoring.drift.profiles import Cells
from cumulant.monitoring.drift.words import day, sentence

if TYPE_CHECKING:
    from cumulant.flows.monitoring.drift.table_estimates import TableEstimates
    from cumulant.monitoring.drift.findings import Finding, Findings
    from cumulant.monitoring.drift.following import Course
    from cumulant.monitoring.drift.joint import Joint
    from cumulant.monitoring.drift.profiles import Profile
    from cumulant.monitoring.performance.unlabelled import EstimatedFigure
    from cumulant.monitoring.spec import DriftSpec
    from cumulant.statistics.rows import Floats

#: findings with charts, and columns in the strip: the worst come first
_FINDINGS, _COLUMNS = 30, 60
#: metrics that are estimated of classes, as the page names them
_ESTIMATED: Mapping[str, str] = {"accuracy": "accuracy", "log_loss": "log loss", "brier": "Brier score"}
_KINDS: Mapping[str, str] = {
    "data_fault": "a fault of the data", "covariate": "a feature moved", "prior": "answers or labels moved",
    "concept": "features and labels belong together in another way", "volume": "the number of rows changed",
}  # fmt: skip
_CHANGES: Mapping[str, str] = {
    "shift": "distance", "missing": "growth of the missing", "unseen": "growth of unseen values",
    "unreadable": "growth of the unreadable", "impossible": "growth of values far outside", "absent": "absence",
    "tails": "growth of the tails",
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What a page is made of. `notes`: what a reader should know to trust it. `volume`: alarms of numbers of rows."""

    predictions: str
    against: str
    found: Findings
    joint: Joint | None
    reference: Profile
    current: Profile
    notes: tuple[str, ...]
    volume: tuple[Finding, ...] = ()
    estimates: TableEstimates | None = None


def write_page(out: Path, look: Look, spec: DriftSpec, *, now: datetime) -> None:
    """Write the page.

    Raises:
        UsageError: the file's name does not end in .html.
        StorageError: it cannot be written.
    """
    check_page(out)
    text = page(look, spec, now=now)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the page could not be written: {error.strerror or error}", subject=str(out)) from None


def check_page(out: Path) -> None:
    """Raises UsageError where a file's name is not that of a page."""
    if out.suffix.lower() != ".html":
        raise UsageError(f'"{out.name}" names no page', subject=str(out), hint="end it in .html")


def page(look: Look, spec: DriftSpec, *, now: datetime) -> str:
    """The document, without a script and without anything that is loaded."""
    from cumulant.monitoring.drift.following import courses as drift_courses

    courses = {one.feature: one for one in drift_courses(look.reference, look.current, spec)}
    parts = [_glance(look), _overview(look, courses)]
    if look.found.findings:
        parts.append(_moved(look, courses))
    if look.volume:
        lines = (
            element("li", f"{one.windows} windows, the newest {day(one.until)}: {sentence(one)}") for one in look.volume
        )
        parts.append(section("volume", "Numbers and times of rows", "", element("ul", *lines)))
    if look.estimates is not None:
        parts.append(_estimates(look.estimates))
    parts.append(_how(look, spec))
    header = element(
        "header",
        element("p", "Drift", class_="kicker"),
        element("h1", _headline(look)),
        element("p", f"{look.predictions} against {look.against}", class_="purpose"),
    )
    return document("Drift", header, parts, made_by(now, f"{__version__}"))


def _headline(look: Look) -> str:
    found = look.found
    names = list(dict.fromkeys(one.feature for one in found.active))
    if not found.findings:
        counted = any(one.kind == "volume" for one in look.volume)
        other = "Rows are dated after they were answered" if look.volume else "Nothing is alarming"
        return "The number of rows changed" if counted else other
    if not names:
        over = all(found.is_over(one) for one in found.findings)
        return "What moved is over" if over else "What moved may go on: it is no longer surely not chance"
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} moved"


def _glance(look: Look) -> Section:
    found, blocks = look.found, look.found.windows
    parts = tiles(
        tile("Rows", count(sum(block.rows for block in blocks)), f"{count(found.reference_rows)} of the reference"),
        tile("Windows", count(len(blocks)), f"{day(blocks[0])} to {day(blocks[-1])}" if len(blocks) > 1 else ""),
        tile("Columns", count(len(found.columns)), f"{len(found.skipped)} more not watched" if found.skipped else ""),
        tile("Alarming", count(sum(found.alarming)), f"of {plural(len(blocks), 'window')}",
             "the newest too" if any(found.alarming[found.newest :]) else "the newest not"),
    )  # fmt: skip
    return section("glance", "At a glance", "", parts)


def _overview(look: Look, courses: Mapping[str, Course]) -> Section:
    blocks = look.found.windows
    alarms = _alarming(look.found)
    rows = [drift_charts.Strip(name, one.worst, alarms.get(name, frozenset())) for name, one in courses.items()]
    rows.sort(key=lambda row: (not row.alarming, -max((value for value in row.worst if value is not None), default=0)))
    lead = (
        "How far each column was from the reference in each window by itself, in terms of the least that matters. "
        "An alarm also takes evidence that it is not chance, from the newest window or several together."
    )
    left = plural(len(rows) - _COLUMNS, "column") + " moved less and are not shown." if len(rows) > _COLUMNS else None
    return section(
        "overview", "Columns and windows", lead, drift_charts.shades(), drift_charts.strips(rows[:_COLUMNS], blocks),
        element("p", left, class_="lead") if left else None,
    )  # fmt: skip


def _alarming(found: Findings) -> dict[str, frozenset[int]]:
    """The windows in which a column was alarming for something."""
    told: dict[str, frozenset[int]] = {}
    for one in found.findings:
        told[one.feature] = told.get(one.feature, frozenset()) | frozenset(one.alarmed)
    return told


def _moved(look: Look, courses: Mapping[str, Course]) -> Section:
    found = look.found.findings
    lead = f"{plural(len(found), 'finding')}, what matters most first."
    shown = [_finding(one, look, courses[one.feature]) for one in found[:_FINDINGS]]
    left = f"{len(found) - _FINDINGS} more are not shown." if len(found) > _FINDINGS else None
    return section("moved", "What moved", lead, *shown, element("p", left, class_="lead") if left else None)


def _finding(one: Finding, look: Look, course: Course) -> Markup:
    title = element(
        "h3", one.feature, " ", tag(one.kind, "bad" if one.kind == "data_fault" else "unsure"),
        tag("active", "bad") if one.active else tag("over"),
    )  # fmt: skip
    effect = (
        number(one.effect) if one.low is None else f"{number(one.effect)} ({number(one.low)} to {number(one.high)})"
    )
    facts = definitions(
        [
            ("what", f"{sentence(one)} ({_KINDS[one.kind]})"),
            ("effect", f"{effect}, at least {number(one.least)} matters"),
            ("windows", f"{one.windows} alarming, from {day(one.since)} to {day(one.until)}"),
            ("weight", number(one.weight) if one.weight != 1 else None),
        ]
    )
    return element("div", title, facts, _charts(one, look, course), _carriers(one))


def _charts(one: Finding, look: Look, course: Course) -> Markup:
    blocks = look.found.windows
    what = "shift" if one.what == "constant" else one.what
    values = course.effects.get(what, tuple([None] * len(blocks)))
    drawn = drift_charts.course(values, blocks, frozenset(one.alarmed), one.least, _CHANGES[what])
    parts = [_then_and_now(one, look)]
    parts += [figure("Over the windows", drawn)] if any(value is not None for value in values) else []
    return element("div", *parts, class_="pair")


def _then_and_now(one: Finding, look: Look) -> Markup:
    before = next(column for column in look.reference.columns if column.name == one.feature)
    now = next(column for column in look.current.columns if column.name == one.feature)
    last = look.found.windows.index(one.until)
    windows = slice(last + 1 - one.span, last + 1)
    counts = [np.array(side, dtype=np.float64).sum(axis=0) for side in (before.counts, now.counts[windows])]
    drawn: Markup | None = None
    if before.cells.kind == "number":
        drawn = drift_charts.histogram(before.cells, *counts)
    if drawn is None:
        drawn = drift_charts.bars(_shares(before.cells, *counts))
    missing = [
        sum(side) / max(sum(side) + int(total.sum()), 1)
        for side, total in zip((before.missing, now.missing[windows]), counts, strict=True)
    ]
    said: Child = None
    if max(missing) > 0:
        said = element("p", f"Missing: {share(missing[0])} then, {share(missing[1])} now.", class_="quiet")
    return figure("Then and now", drift_charts.key(), drawn, said)


def _shares(cells: Cells, before: Floats, now: Floats) -> drift_charts.Bars:
    """Of a number without a range, how much lies below, in and above it."""
    if cells.kind == "category":
        return drift_charts.shares(cells, before, now)
    parts = [(float(side[:2].sum()), float(side[2:-2].sum()), float(side[-2:].sum())) for side in (before, now)]
    then, after = (tuple(value / max(sum(side), 1.0) for value in side) for side in parts)
    low, high = number(cells.edges[1]), number(cells.edges[-2])
    return drift_charts.Bars((f"below {low}", f"{low} to {high}" if low != high else low, f"above {high}"), then, after)


def _carriers(one: Finding) -> Markup | None:
    if not one.segments:
        return None
    heads = [Head("where"), Head("is"), Head("rows", "n"), Head("part of the change", "n")]
    rows = [([part.column, part.value, share(part.rows), share(part.carries)], None) for part in one.segments]
    return table("Where it happens", heads, rows)


def _estimates(found: TableEstimates) -> Section:
    lead = "What the probabilities of the classes say of the metrics before labels come, with 95% intervals."
    names = [name for name in _ESTIMATED if any(name in one.figures for one in found.windows)]
    heads = [Head("window"), Head("rows", "n"), *(Head(_ESTIMATED[name], "n") for name in names), Head("not estimated")]
    rows = [
        ([one.start, count(one.rows), *(_between(one.figures.get(name)) for name in names), one.refused or ""], None)
        for one in found.windows[-_COLUMNS:]
    ]
    before = ", ".join(f"{_ESTIMATED[name]} {number(found.reference[name])}" for name in names)
    newest = ", ".join(f"{_ESTIMATED[name]} {_between(one)}" for name, one in found.figures.items())
    said = f"not estimated: {found.refused}" if found.refused is not None else newest
    told = definitions([("newest windows", said), ("reference", before or None)])
    return section("estimates", "Without labels", lead, told, table("Windows", heads, rows) if rows else None)


def _between(one: EstimatedFigure | None) -> str:
    return "" if one is None else f"{number(one.value)} ({number(one.low)} to {number(one.high)})"


def _how(look: Look, spec: DriftSpec) -> Section:
    found = look.found
    alarms = f"{spec.false_alarms} of {plural(found.looks, 'look')} without any change, over all columns"
    least = f"{spec.effect:g} of features, {spec.answers:g} of answers; {spec.missing} missing, {spec.faults} of faults"
    facts = {
        "rows": look.predictions, "reference": look.against, "false alarms": alarms, "effects that matter": least,
        "windows together": ", ".join(map(str, spec.spans)),
    }  # fmt: skip
    told = definitions(facts.items())
    notes = [element("li", note) for note in look.notes]
    return section("how", "How it was compared", "", told, element("ul", *notes) if notes else None, _joint(look.joint))


def _joint(found: Joint | None) -> Markup | None:
    if found is None:
        return None
    heads = [Head("column"), Head("part of the area", "n")]
    rows = [([one.feature, number(one.part)], None) for one in found.by]
    between = "" if found.low is None else f" ({number(found.low)} to {number(found.high)})"
    area = f"{number(found.area)}{between}"
    text = f"All features together tell the newest windows from the reference with an area of {area}."
    return join([element("p", text, class_="lead"), table("What tells them apart", heads, rows) if rows else None])
