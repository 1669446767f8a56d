"""Charts of drift: shares then and now, a distance over the windows, and all columns over all windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from cumulant.core.units import from_micros
from cumulant.flows.reports.svg_elements import BOTTOM, RIGHT, WIDTH, Child, Drawing, Frame, draw, element, join
from cumulant.flows.reports.wording import count, number, share
from cumulant.monitoring.drift.profiles import ColumnCells, ProfileBlock
from cumulant.monitoring.drift.words import day
from cumulant.statistics.rows import Floats

_HEIGHT = 250.0
#: bars of a number's values, categories that have a bar of their own, and windows that a strip shows one by one
_BARS, _KINDS, _STEPS = 24, 8, 120
#: parts of the rows beyond which values have no bar of their own
_TAIL = 0.005
#: from how many times the least effect a cell of the strip has its colour
_SHADES = (0.5, 1.0, 2.0, 4.0)


class Bar(NamedTuple):
    """A category with its shares of the rows then and now."""

    name: str
    then: float
    now: float


def histogram(cells: ColumnCells, before: Floats, now: Floats) -> Drawing | None:
    """Counts [cells] of a number's values then and now, as shares of bars of one width; None where there are none."""
    edges = np.array(cells.edges)
    pooled = before[1:-1] / max(before.sum(), 1.0) + now[1:-1] / max(now.sum(), 1.0)
    if pooled.sum() <= 0:
        return None
    reached = np.cumsum(pooled) / pooled.sum()
    first, last = int(np.argmax(reached > _TAIL)), int(np.argmax(reached >= 1 - _TAIL))
    low, high = float(edges[first]), float(edges[last + 1])
    if not high > low:
        return None
    bounds = np.linspace(low, high, _BARS + 1)
    then, after = (_spread(counts, edges, bounds) for counts in (before, now))
    frame = Frame((low, high), (0.0, 1.08 * float(max(then.max(), after.max()))), height=_HEIGHT)
    bars: list[Child] = []
    for place in range(_BARS):
        ends = float(bounds[place]), float(bounds[place + 1])
        note = f"{number(ends[0])} to {number(ends[1])}: {share(then[place])} then, {share(after[place])} now"
        bars += [
            frame.bar(ends, float(values[place]), style, note) for values, style in ((then, "then"), (after, "now"))
        ]
    return draw("Shares of the values then and now", frame.axes("value", "share of rows"), *bars, height=_HEIGHT)


def _spread(counts: Floats, edges: Floats, bounds: Floats) -> Floats:
    """Counts of cells as shares of bars, each spread evenly over its cell; outer bars hold what lies beyond."""
    total = max(float(counts.sum()), 1.0)
    reached = np.concatenate(([0.0], np.cumsum(counts[1:-1]))) / total
    at = np.interp(bounds, edges, reached)
    at[0], at[-1] = 0.0, reached[-1]
    shares: Floats = np.diff(at)
    return shares


def shares(cells: ColumnCells, before: Floats, now: Floats) -> tuple[Bar, ...]:
    """Counts [cells] of categories as shares: those whose share changed most, then all others and the unseen."""
    then, after = (counts / max(float(counts.sum()), 1.0) for counts in (before, now))
    order = np.argsort(-np.abs(after - then)[: len(cells.values)], kind="stable")
    shown = sorted(order[:_KINDS].tolist())
    bars = [Bar(cells.values[place], float(then[place]), float(after[place])) for place in shown]
    others = [float(side[:-1].sum() - side[shown].sum()) for side in (then, after)]
    if len(cells.values) > len(shown) or max(others) > 1e-9:
        bars.append(Bar("all others", max(others[0], 0.0), max(others[1], 0.0)))
    if after[-1] > 0:
        bars.append(Bar("unseen before", float(then[-1]), float(after[-1])))
    return tuple(bars)


def draw_window_effects(
    values: Sequence[float | None], blocks: Sequence[ProfileBlock], alarming: frozenset[int], limit: float, name: str
) -> Drawing:
    """A distance of each window by itself, with the least that matters; alarming windows are filled."""
    known = [value for value in values if value is not None]
    top = 1.12 * max([limit, *known])
    frame = Frame((-0.5, len(values) - 0.5), (min([0.0, *known]), top), height=_HEIGHT)
    points = [(place, value) for place, value in enumerate(values) if value is not None]
    dots = [
        frame.dot(
            place,
            value,
            3.5,
            "dot alarm" if place in alarming else "dot calm",
            f"{day(blocks[place])}: {number(value)}, {count(blocks[place].rows)} rows",
        )
        for place, value in points
    ]
    return draw(
        f"{name} by window; {len(alarming)} of {len(values)} are alarming",
        _axes(frame, blocks, name),
        frame.line([(-0.5, limit), (len(values) - 0.5, limit)], "ideal"),
        element("text", f"least that matters {number(limit)}", x=frame.left + 6, y=frame.y(limit) - 6, class_="tick"),
        frame.line(points, "model"),
        *dots,
        height=_HEIGHT,
    )


def _axes(frame: Frame, blocks: Sequence[ProfileBlock], name: str) -> Markup:
    """Those of the frame, with windows named by their beginning."""
    labels: list[Child] = []
    for place in _places(len(blocks)):
        style = "start" if place == 0 else "end" if place == len(blocks) - 1 else "middle"
        x = frame.left if place == 0 else WIDTH - RIGHT if place == len(blocks) - 1 else frame.x(place)
        text = _short(blocks[place], blocks)
        labels.append(element("text", text, x=x, y=frame.height - BOTTOM + 16, class_=f"tick {style}"))
    return join([frame.rows(name), *labels, frame.baseline("window")])


def _places(windows: int) -> list[int]:
    return sorted({round(part * (windows - 1) / 2) for part in range(3)})


def _short(block: ProfileBlock, blocks: Sequence[ProfileBlock]) -> str:
    """A window's beginning; without the time of day where all windows are days apart."""
    if not block.timed:
        return day(block)
    whole = all(not window.timed or window.start % 86_400_000_000 == 0 for window in blocks)
    return f"{from_micros(block.start):{'%Y-%m-%d' if whole else '%m-%d %H:%M'}}"


class Strip(NamedTuple):
    """A column over the windows: the largest effect over the least that matters, and where it alarmed."""

    name: str
    worst: tuple[float | None, ...]
    alarming: frozenset[int]


class Strips(NamedTuple):
    """All columns over all windows: the name and the shaded cells of each column, and the names of some windows."""

    rows: tuple[tuple[str, Markup], ...]
    windows: tuple[str, ...]


def strips(rows: Sequence[Strip], blocks: Sequence[ProfileBlock]) -> Strips:
    """One shaded cell a window; of very many windows several share a cell."""
    step = -(-len(blocks) // _STEPS)
    return Strips(
        tuple((row.name, _cells(row, blocks, step)) for row in rows),
        tuple(_short(blocks[place], blocks) for place in _places(len(blocks))),
    )


def _cells(row: Strip, blocks: Sequence[ProfileBlock], step: int) -> Markup:
    cells: list[Child] = []
    for place, first in enumerate(range(0, len(blocks), step)):
        group = range(first, min(first + step, len(blocks)))
        known = [value for at in group if (value := row.worst[at]) is not None]
        worst = max(known, default=None)
        alarm = any(at in row.alarming for at in group)
        distance = "too few rows" if worst is None else f"{number(worst)} of the least that matters"
        note = f"{row.name}, {day(blocks[first])}: {distance}{', alarming' if alarm else ''}"
        style = "none" if worst is None else f"heat{sum(worst >= limit for limit in _SHADES)}"
        cells.append(element("rect", element("title", note), x=place, y=0, width=0.92, height=1, class_=style))
        if alarm:
            cells.append(element("rect", x=place, y=0.78, width=0.92, height=0.22, class_="alarm"))
    width = -(-len(blocks) // step)
    box = f"0 0 {width} 1"
    return element("svg", *cells, viewBox=box, preserveAspectRatio="none", aria_hidden="true", class_="cells")
