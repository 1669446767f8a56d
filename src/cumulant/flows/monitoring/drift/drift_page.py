"""The drift report as one page: findings, distributions then and now, and every column over the windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from cumulant.core.errors import StorageError, UsageError, join_names
from cumulant.core.version import __version__
from cumulant.flows.monitoring.drift import drift_charts
from cumulant.flows.reports.page import PageLayout, Section
from cumulant.flows.reports.rendering import render
from cumulant.flows.reports.report_charts import TitledDrawing
from cumulant.flows.reports.svg_elements import Drawing
from cumulant.flows.reports.wording import count, number, plural
from cumulant.monitoring.drift.profiles import ColumnCells, DriftProfile
from cumulant.monitoring.drift.words import day, sentence

if TYPE_CHECKING:
    from cumulant.flows.monitoring.drift.table_estimates import TableEstimates
    from cumulant.monitoring.drift.comparing import WindowEffects
    from cumulant.monitoring.drift.findings import DriftFinding, Findings
    from cumulant.monitoring.drift.joint import Joint
    from cumulant.monitoring.performance.unlabelled import EstimatedFigure
    from cumulant.monitoring.policy import DriftPolicy
    from cumulant.statistics.rows import Floats

#: findings with charts, and columns in the strip: the worst come first
_FINDINGS, _COLUMNS = 30, 60
#: metrics that are estimated of classes, as the page names them
_ESTIMATED: Mapping[str, str] = {"accuracy": "accuracy", "log_loss": "log loss", "brier": "Brier score"}
_KINDS: Mapping[str, str] = {
    "data_fault": "a fault of the data",
    "covariate": "a feature moved",
    "prior": "answers or labels moved",
    "concept": "features and labels belong together in another way",
    "volume": "the number of rows changed",
}
_CHANGES: Mapping[str, str] = {
    "shift": "distance",
    "missing": "growth of the missing",
    "unseen": "growth of unseen values",
    "unreadable": "growth of the unreadable",
    "impossible": "growth of values far outside",
    "absent": "absence",
    "tails": "growth of the tails",
}


@dataclass(frozen=True)
class DriftPageSource:
    """What a page is made of. `notes`: what a reader should know to trust it. `volume`: alarms of numbers of rows."""

    predictions: str
    against: str
    drift: Findings
    joint: Joint | None
    reference: DriftProfile
    current: DriftProfile
    notes: tuple[str, ...]
    volume: tuple[DriftFinding, ...] = ()
    estimates: TableEstimates | None = None


def write_page(out: Path, look: DriftPageSource, policy: DriftPolicy, *, now: datetime) -> None:
    """Write the page.

    Raises:
        UsageError: the file's name does not end in .html.
        StorageError: it cannot be written.
    """
    check_page(out)
    text = page(look, policy, now=now)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the page could not be written: {error.strerror or error}", subject=str(out)) from None


def check_page(out: Path) -> None:
    """Raises UsageError where a file's name is not that of a page."""
    if out.suffix.lower() != ".html":
        raise UsageError(f'"{out.name}" names no page', subject=str(out), hint="end it in .html")


class FindingView(msgspec.Struct, frozen=True, kw_only=True):
    """A finding: labels and texts, how its values are distributed, and its distance over the windows."""

    finding: DriftFinding
    facts: tuple[tuple[str, str], ...]
    histogram: Drawing | None
    bars: tuple[drift_charts.Bar, ...]
    missing: tuple[float, float]
    course: TitledDrawing | None


class EstimateTable(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics that are estimated without labels; rows: start, rows, an interval of each metric, why there is none."""

    newest: str
    reference: str
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[str, ...], str], ...]


class DriftPage(PageLayout, frozen=True, kw_only=True):
    """All values of the page of a comparison."""

    look: DriftPageSource
    headline: str
    tiles: tuple[tuple[str, str, tuple[str, ...]], ...]
    strips: drift_charts.Strips
    hidden_columns: int
    findings: tuple[FindingView, ...]
    hidden_findings: int
    volume: tuple[str, ...]
    estimates: EstimateTable | None
    facts: tuple[tuple[str, str], ...]
    area: str


def page(look: DriftPageSource, policy: DriftPolicy, *, now: datetime) -> str:
    """The document, without a script and without anything that is loaded."""
    from cumulant.monitoring.drift.comparing import measure_window_effects

    courses = {record.feature: record for record in measure_window_effects(look.reference, look.current, policy)}
    findings, strips = look.drift.findings, _strips(look, courses)
    values = DriftPage(
        folder="drift",
        sections=tuple(_sections(look)),
        generated=now,
        cumulant=__version__,
        look=look,
        headline=_headline(look),
        tiles=tuple(_tiles(look)),
        strips=drift_charts.strips(strips[:_COLUMNS], look.drift.windows),
        hidden_columns=max(len(strips) - _COLUMNS, 0),
        findings=tuple(_finding(record, look, courses[record.feature]) for record in findings[:_FINDINGS]),
        hidden_findings=max(len(findings) - _FINDINGS, 0),
        volume=tuple(
            f"{record.windows} windows, the newest {day(record.until)}: {sentence(record)}" for record in look.volume
        ),
        estimates=None if look.estimates is None else _estimates(look.estimates),
        facts=tuple(_comparison(look, policy)),
        area=_area(look.joint),
    )
    return render("drift/page.html.jinja", values)


def _sections(look: DriftPageSource) -> Iterator[Section]:
    yield Section("glance", "At a glance")
    yield Section(
        "overview",
        "Columns and windows",
        "How far each column was from the reference in each window by itself, in terms of the least that matters. "
        "An alarm also takes evidence that it is not chance, from the newest window or several together.",
    )
    if look.drift.findings:
        yield Section("moved", "What moved", f"{plural(len(look.drift.findings), 'finding')}, what matters most first.")
    if look.volume:
        yield Section("volume", "Numbers and times of rows")
    if look.estimates is not None:
        yield Section(
            "estimates",
            "Without labels",
            "Metrics estimated from the probabilities of the classes before labels come, with 95% intervals.",
        )
    yield Section("how", "How it was compared")


def _headline(look: DriftPageSource) -> str:
    drift = look.drift
    names = list(dict.fromkeys(finding.feature for finding in drift.active))
    if not drift.findings:
        counted = any(finding.kind == "volume" for finding in look.volume)
        other = "Rows are dated after they were answered" if look.volume else "Nothing is alarming"
        return "The number of rows changed" if counted else other
    if not names:
        over = all(drift.is_over(finding) for finding in drift.findings)
        return "What moved is over" if over else "What moved may go on: it is no longer surely not chance"
    return f"{join_names(names)} moved"


def _tiles(look: DriftPageSource) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Label, figure and notes of each."""
    drift, blocks = look.drift, look.drift.windows
    span = f"{day(blocks[0])} to {day(blocks[-1])}" if len(blocks) > 1 else ""
    skipped = f"{len(drift.skipped)} more not watched" if drift.skipped else ""
    newest = "the newest too" if any(drift.alarming[drift.newest :]) else "the newest not"
    yield "Rows", count(sum(block.rows for block in blocks)), (f"{count(drift.reference_rows)} of the reference",)
    yield "Windows", count(len(blocks)), (span,)
    yield "Columns", count(len(drift.columns)), (skipped,)
    yield "Alarming", count(sum(drift.alarming)), (f"of {plural(len(blocks), 'window')}", newest)


def _strips(look: DriftPageSource, courses: Mapping[str, WindowEffects]) -> list[drift_charts.Strip]:
    """A strip for each column: those that alarmed first, then those that moved most."""
    alarms = _alarming(look.drift)
    rows = [drift_charts.Strip(name, course.worst, alarms.get(name, frozenset())) for name, course in courses.items()]
    rows.sort(key=lambda row: (not row.alarming, -max((value for value in row.worst if value is not None), default=0)))
    return rows


def _alarming(findings: Findings) -> dict[str, frozenset[int]]:
    """The windows in which a column was alarming for something."""
    windows: dict[str, frozenset[int]] = {}
    for finding in findings.findings:
        windows[finding.feature] = windows.get(finding.feature, frozenset()) | frozenset(finding.alarmed)
    return windows


def _finding(finding: DriftFinding, look: DriftPageSource, course: WindowEffects) -> FindingView:
    before = next(column for column in look.reference.columns if column.name == finding.feature)
    now = next(column for column in look.current.columns if column.name == finding.feature)
    last = look.drift.windows.index(finding.until)
    windows = slice(last + 1 - finding.span, last + 1)
    counts = [np.array(side, dtype=np.float64).sum(axis=0) for side in (before.counts, now.counts[windows])]
    histogram = drift_charts.histogram(before.cells, *counts) if before.cells.kind == "number" else None
    then, after = (
        sum(side) / max(sum(side) + int(total.sum()), 1)
        for side, total in zip((before.missing, now.missing[windows]), counts, strict=True)
    )
    return FindingView(
        finding=finding,
        facts=tuple(_facts(finding)),
        histogram=histogram,
        bars=_bars(before.cells, *counts) if histogram is None else (),
        missing=(then, after),
        course=_course(finding, look, course),
    )


def _facts(finding: DriftFinding) -> Iterator[tuple[str, str]]:
    effect = (
        number(finding.effect)
        if finding.low is None
        else f"{number(finding.effect)} ({number(finding.low)} to {number(finding.high)})"
    )
    yield "what", f"{sentence(finding)} ({_KINDS[finding.kind]})"
    yield "effect", f"{effect}, at least {number(finding.least)} matters"
    yield "windows", f"{finding.windows} alarming, from {day(finding.since)} to {day(finding.until)}"
    if finding.weight != 1:
        yield "weight", number(finding.weight)


def _course(finding: DriftFinding, look: DriftPageSource, course: WindowEffects) -> TitledDrawing | None:
    what = "shift" if finding.what == "constant" else finding.what
    values = course.effects.get(what, ())
    if all(value is None for value in values):
        return None
    drawing = drift_charts.draw_window_effects(
        values, look.drift.windows, frozenset(finding.alarmed), finding.least, _CHANGES[what]
    )
    return TitledDrawing("Over the windows", drawing)


def _bars(cells: ColumnCells, before: Floats, now: Floats) -> tuple[drift_charts.Bar, ...]:
    """Shares of categories; of a number without a range, how much lies below, in and above it."""
    if cells.kind == "category":
        return drift_charts.shares(cells, before, now)
    parts = [(float(side[:2].sum()), float(side[2:-2].sum()), float(side[-2:].sum())) for side in (before, now)]
    then, after = ([value / max(sum(side), 1.0) for value in side] for side in parts)
    low, high = number(cells.edges[1]), number(cells.edges[-2])
    names = f"below {low}", f"{low} to {high}" if low != high else low, f"above {high}"
    return tuple(map(drift_charts.Bar, names, then, after))


def _estimates(estimates: TableEstimates) -> EstimateTable:
    names = [name for name in _ESTIMATED if any(name in window.figures for window in estimates.windows)]
    newest = ", ".join(f"{_ESTIMATED[name]} {_between(figure)}" for name, figure in estimates.figures.items())
    return EstimateTable(
        newest=f"not estimated: {estimates.refused}" if estimates.refused is not None else newest,
        reference=", ".join(f"{_ESTIMATED[name]} {number(estimates.reference[name])}" for name in names),
        metrics=tuple(_ESTIMATED[name] for name in names),
        rows=tuple(
            (
                window.start,
                window.rows,
                tuple(_between(window.figures.get(name)) for name in names),
                window.refused or "",
            )
            for window in estimates.windows[-_COLUMNS:]
        ),
    )


def _between(figure: EstimatedFigure | None) -> str:
    return "" if figure is None else f"{number(figure.value)} ({number(figure.low)} to {number(figure.high)})"


def _comparison(look: DriftPageSource, policy: DriftPolicy) -> Iterator[tuple[str, str]]:
    """What was compared with what, and from where on a change matters."""
    shares = f"{100 * policy.missing:g}% missing, {100 * policy.faults:g}% of faults"
    least = f"{policy.effect:g} of features, {policy.answers:g} of answers; {shares}"
    yield "rows", look.predictions
    yield "reference", look.against
    yield (
        "false alarms",
        f"{100 * policy.false_alarms:g}% of {plural(look.drift.looks, 'look')} without any change, over all columns",
    )
    yield "effects that matter", least
    yield "windows together", ", ".join(map(str, policy.spans))


def _area(joint: Joint | None) -> str:
    """How well all features together separate the newest windows from the reference; empty where not measured."""
    if joint is None:
        return ""
    ends = "" if joint.low is None else f" ({number(joint.low)} to {number(joint.high)})"
    return f"{number(joint.area)}{ends}"
