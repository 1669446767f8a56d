"""Charts of monitoring: labelled quality over time, drift of each column, and its values then and now."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from markupsafe import Markup

from cumulant.console.charts import Cell, Chart, numbered
from cumulant.flows.monitoring.drift import drift_charts
from cumulant.flows.monitoring.drift.drift_history import ColumnHistory, DriftHistory
from cumulant.flows.monitoring.monitoring_views import QualityView
from cumulant.flows.monitoring.state import WindowRecord
from cumulant.flows.reports.svg_elements import BOTTOM, Child, Drawing, Frame, draw, element
from cumulant.flows.reports.wording import number, share
from cumulant.monitoring.drift.words import day

_WIDTH, _HEIGHT, _SHARES = 960.0, 300.0, 86.0
#: windows that the chart of quality shows, and labels below it
_SHOWN, _LABELS = 120, 6
#: from how many times the least effect a cell has the next colour
_SHADES = (0.5, 1.0, 2.0, 4.0)
_NAME, _ROW, _BARS = 190.0, 20.0, 12
#: styles of cells that are no links, and columns of the map without further request
_CALM, _MAIN = frozenset({"none", "heat0", "heat1"}), 20
QUALITY_HEADS = (
    "begin",
    "end",
    "rows",
    "labelled",
    "loss",
    "loss low",
    "loss high",
    "estimated",
    "estimated low",
    "estimated high",
    "mature",
)


class HeatMap(NamedTuple):
    """Columns by importance against windows; an element of its own, since its cells are links."""

    content: Markup
    first: str
    last: str


def quality_rows(view: QualityView) -> list[tuple[Cell, ...]]:
    return [
        (
            f"{window.start:%Y-%m-%d %H:%M}",
            f"{window.end:%Y-%m-%d %H:%M}",
            window.rows,
            window.labelled,
            window.loss,
            window.loss_low,
            window.loss_high,
            window.estimated,
            window.low,
            window.high,
            "yes" if place < view.mature else "no",
        )
        for place, window in enumerate(view.windows)
    ]


def quality_chart(view: QualityView, link: str) -> Chart:
    """The loss of each window with its interval, what was estimated before labels came, and the labelled share."""
    first = max(len(view.windows) - _SHOWN, 0)
    windows, mature = view.windows[first:], max(view.mature - first, 0)
    ends = [value for window in windows for value in _ends(window) if value is not None]
    top = 1.08 * max([*ends, view.reference_loss or 0.0, 1e-9])
    frame = Frame((-0.5, len(windows) - 0.5), (0.0, top), width=_WIDTH, height=_HEIGHT)
    parts: list[Child] = [_waiting(frame, len(windows), mature), frame.rows("loss of a prediction")]
    parts.append(_band(frame, windows))
    if view.reference_loss is not None:
        line = [(-0.5, view.reference_loss), (len(windows) - 0.5, view.reference_loss)]
        parts.append(frame.line(line, "ideal"))
    parts += _measured(frame, windows)
    parts += [_shares(frame, windows), *_days(frame, windows)]
    text = f"Loss of version {view.version} in {len(windows)} windows, {len(windows) - mature} of them wait for labels"
    legend = [
        ("model", "measured by labels, 95%"),
        ("estimate", "estimated without labels, 95%"),
        ("ideal", "on the test rows"),
        ("waiting", "labels are still to come"),
        ("now", "labelled share (below)"),
    ]
    drawing = draw(text, *parts, width=_WIDTH, height=_HEIGHT + _SHARES)
    return Chart("Labelled quality", drawing, numbered(*QUALITY_HEADS), quality_rows(view), link, legend=legend)


def _ends(window: WindowRecord) -> tuple[float | None, ...]:
    return window.loss, window.loss_high, window.estimated, window.high


def _waiting(frame: Frame, windows: int, mature: int) -> Child:
    """The windows whose labels are still to come, shaded."""
    if mature >= windows:
        return None
    begin = frame.x(mature - 0.5)
    width = round(frame.x(windows - 0.5) - begin, 2)
    return element("rect", x=begin, y=12, width=width, height=_HEIGHT + _SHARES - BOTTOM - 12, class_="waiting")


def _band(frame: Frame, windows: Sequence[WindowRecord]) -> Child:
    known = [(place, each.low, each.high) for place, each in enumerate(windows) if each.low is not None]
    points = [(place, low) for place, low, _ in known] + [(place, high) for place, _, high in reversed(known)]
    if len(known) < 2:
        return None
    outline = " ".join(f"{frame.x(x):g},{frame.y(max(y or 0.0, frame.y0)):g}" for x, y in points)
    return element("polygon", points=outline, class_="estimate")


def _measured(frame: Frame, windows: Sequence[WindowRecord]) -> list[Child]:
    parts: list[Child] = []
    for place, each in enumerate(windows):
        if each.loss is None:
            continue
        if each.loss_low is not None and each.loss_high is not None:
            x, low, high = frame.x(place), frame.y(max(each.loss_low, frame.y0)), frame.y(each.loss_high)
            parts.append(element("line", x1=x, x2=x, y1=low, y2=high, class_="span model"))
        interval = "" if each.loss_low is None else f" ({number(each.loss_low)} to {number(each.loss_high)})"
        note = f"{each.start:%Y-%m-%d}: {number(each.loss)}{interval}, {each.labelled:,} of {each.rows:,} labelled"
        parts.append(frame.dot(place, each.loss, 3.2, "dot alarm" if each.word == "worse" else "dot", note))
    return parts


def _shares(frame: Frame, windows: Sequence[WindowRecord]) -> Markup:
    """The labelled share of each window, as bars below the loss."""
    base, tall = _HEIGHT + _SHARES - BOTTOM - 2, _SHARES - 34
    width = max((frame.x(1) - frame.x(0)) * 0.8, 1.0)
    bars: list[Child] = [
        element("text", "share of rows with a label", x=frame.left, y=base - tall - 5, class_="tick"),
        element("line", x1=frame.left, x2=_WIDTH - 12, y1=base, y2=base, class_="axis"),
    ]
    for place, each in enumerate(windows):
        part = each.labelled / each.rows if each.rows else 0.0
        note = element("title", f"{each.start:%Y-%m-%d}: {share(part)} of {each.rows:,} rows labelled")
        height = round(part * tall, 2)
        bars.append(
            element(
                "rect",
                note,
                x=round(frame.x(place) - width / 2, 2),
                y=round(base - height, 2),
                width=round(width, 2),
                height=height,
                class_="now",
            )
        )
    return element("g", *bars)


def _days(frame: Frame, windows: Sequence[WindowRecord]) -> list[Child]:
    last = len(windows) - 1
    places = sorted({round(part * last / (_LABELS - 1)) for part in range(_LABELS)})
    y = _HEIGHT + _SHARES - BOTTOM + 16
    anchors = {0: "start", last: "end"}
    return [
        element(
            "text",
            f"{windows[place].start:%Y-%m-%d}",
            x=frame.x(place),
            y=y,
            class_=f"tick {anchors.get(place, 'middle')}",
        )
        for place in places
    ]


def heat_map(history: DriftHistory, href: Callable[[str, int | None], str], chosen: str) -> HeatMap:
    """A row a column, by importance; the colour of a cell is the effect, its outline says that it is confirmed."""
    columns = len(history.windows)
    wide = (_WIDTH - _NAME - 12) / max(columns, 1)
    rows = [
        _heat_row(column, place, history, wide, href, chosen=chosen) for place, column in enumerate(history.columns)
    ]
    box = f"0 0 {_WIDTH:g} {_ROW * len(history.columns) + 4:g}"
    label = f"Drift of {len(rows)} columns over {columns} windows; the table below has the numbers"
    content = element("svg", *rows, viewBox=box, role="group", aria_label=label, class_="chart wide heatmap")
    return HeatMap(content, day(history.windows[0]), day(history.windows[-1]))


def _heat_row(
    column: ColumnHistory,
    place: int,
    history: DriftHistory,
    wide: float,
    href: Callable[[str, int | None], str],
    *,
    chosen: str,
) -> Markup:
    y = place * _ROW
    name = column.feature if len(column.feature) <= 26 else f"{column.feature[:25]}…"
    title = element("title", f"{column.feature}, weight {number(column.weight)}")
    style = "end chosen" if column.feature == chosen else "end"
    text = element("text", title, name, x=_NAME - 8, y=y + 15, class_=style)
    parts: list[Child] = [element("a", text, href=href(column.feature, None))]
    for first, length, shade in _stretches(column):
        rect = {"x": round(_NAME + first * wide, 2), "y": y + 2, "width": round(length * wide - 0.8, 2)}
        if shade in _CALM:
            parts.append(element("rect", height=_ROW - 4, class_=shade, **rect))
            continue
        note = f"{column.feature}, {day(history.windows[first])}: {number(column.effects[first])} of the least"
        title = element("title", f"{note} that matters{', confirmed' if 'confirmed' in shade else ''}")
        cell = element("rect", title, height=_ROW - 4, class_=shade, **rect)
        parts.append(element("a", cell, href=href(column.feature, first), tabindex=-1))
    return element("g", *parts)


def _stretches(column: ColumnHistory) -> list[tuple[int, int, str]]:
    """First window, number of windows and style: calm windows of one colour side by side are one stretch."""
    confirmed = set(column.confirmed)
    stretches: list[tuple[int, int, str]] = []
    for window, effect in enumerate(column.effects):
        shade = "none" if effect is None else f"heat{sum(effect >= limit for limit in _SHADES)}"
        if window in confirmed:
            shade += " confirmed"
        if stretches and stretches[-1][2] == shade and shade in _CALM:
            first, length, _ = stretches.pop()
            stretches.append((first, length + 1, shade))
        else:
            stretches.append((window, 1, shade))
    return stretches


def main_columns(history: DriftHistory) -> DriftHistory:
    """The history with the most important columns, and those that alarmed."""
    chosen = [column for place, column in enumerate(history.columns) if place < _MAIN or column.confirmed]
    return msgspec.structs.replace(history, columns=tuple(chosen))


def drift_rows(history: DriftHistory) -> list[tuple[Cell, ...]]:
    """One row a column and window."""
    return [
        (column.feature, day(block), effect, "yes" if place in set(column.confirmed) else "no")
        for column in history.columns
        for place, (block, effect) in enumerate(zip(history.windows, column.effects, strict=True))
    ]


def course_chart(column: ColumnHistory, history: DriftHistory) -> Chart | None:
    """The effect of one column over the windows."""
    if all(effect is None for effect in column.effects):
        return None
    confirmed = frozenset(column.confirmed)
    drawing = drift_charts.draw_window_effects(
        column.effects, history.windows, confirmed, 1.0, "effect / least that matters"
    )
    rows = [
        (day(block), effect, "yes" if place in confirmed else "no")
        for place, (block, effect) in enumerate(zip(history.windows, column.effects, strict=True))
    ]
    return Chart("Over the windows", drawing, numbered("window", "effect", "confirmed"), rows)


def values_chart(column: ColumnHistory) -> Chart:
    """Shares of the values in the reference and in the newest windows."""
    before, now = np.array(column.before, dtype=np.float64), np.array(column.now, dtype=np.float64)
    legend = [("then", "reference"), ("now", "newest windows")]
    drawing = drift_charts.histogram(column.cells, before, now) if column.cells.kind == "number" else None
    if drawing is not None:
        names = _cell_names(column.cells.edges)
        rows = [
            (name, then / max(before.sum(), 1.0), after / max(now.sum(), 1.0))
            for name, then, after in zip(names, before.tolist(), now.tolist(), strict=True)
        ]
    else:
        bars = drift_charts.shares(column.cells, before, now) if column.cells.kind == "category" else ()
        drawing, rows = _bars(bars), [(bar.name, bar.then, bar.now) for bar in bars]
    return Chart("Reference against now", drawing, numbered("value", "share then", "share now"), rows, legend=legend)


def _cell_names(edges: Sequence[float]) -> list[str]:
    inner = [f"{number(low)} to {number(high)}" for low, high in itertools.pairwise(edges)]
    return [f"below {number(edges[0])}", *inner, f"above {number(edges[-1])}"]


def _bars(bars: Sequence[drift_charts.Bar]) -> Drawing:
    """Two bars a category: then and now."""
    most = max([*(bar.then for bar in bars), *(bar.now for bar in bars), 1e-9])
    parts: list[Child] = []
    for place, bar in enumerate(bars):
        y, name = place * 34.0, bar.name if len(bar.name) <= _BARS * 2 else f"{bar.name[: _BARS * 2 - 1]}…"
        parts.append(element("text", element("title", bar.name), name, x=142, y=y + 19, class_="end"))
        for offset, value, style in ((3.0, bar.then, "then"), (16.0, bar.now, "now")):
            width = round(max(value / most * 210, 0.5), 1)
            parts.append(element("rect", x=150, y=y + offset, width=width, height=11, class_=style))
            parts.append(element("text", share(value), x=156 + width, y=y + offset + 10))
    return draw(f"Shares of {len(bars)} values then and now", *parts, height=max(34.0 * len(bars) + 4, 34.0))
