"""Charts of drift: shares then and now, a distance over the windows, and all columns over all windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cumulant.core.units import from_micros
from cumulant.flows.reports.charts import BOTTOM, RIGHT, WIDTH, Frame, svg
from cumulant.flows.reports.markup import Child, Markup, element, join
from cumulant.flows.reports.wording import count, number, share
from cumulant.monitoring.drift.profiles import Block, Cells
from cumulant.monitoring.drift.words import day
from cumulant.statistics.rows import Floats

_HEIGHT = 250.0
#: bars of a number's values, categories that have a bar of their own, and windows that a strip shows one by one
_BARS, _KINDS, _STEPS = 24, 8, 120
#: parts of the rows beyond which values have no bar of their own
_TAIL = 0.005
#: from how many times the least effect a cell of the strip has its colour
_SHADES = (0.5, 1.0, 2.0, 4.0)


class Bars(NamedTuple):
    """Shares [k] of the rows then and now, by name."""

    names: tuple[str, ...]
    then: tuple[float, ...]
    now: tuple[float, ...]


def histogram(cells: Cells, before: Floats, now: Floats) -> Markup | None:
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
    then, after = (_spread(one, edges, bounds) for one in (before, now))
    frame = Frame((low, high), (0.0, 1.08 * float(max(then.max(), after.max()))), height=_HEIGHT)
    bars: list[Child] = []
    for place in range(_BARS):
        left, width = frame.x(bounds[place]), frame.x(bounds[place + 1]) - frame.x(bounds[place])
        between = f"{number(bounds[place])} to {number(bounds[place + 1])}"
        tip = element("title", f"{between}: {share(then[place])} then, {share(after[place])} now")
        for values, style in ((then, "then"), (after, "now")):
            top = frame.y(float(values[place]))
            bars.append(
                element(
                    "rect", tip, x=left, y=top, width=round(max(width - 1, 0.5), 2),
                    height=round(frame.y(0) - top, 2), class_=style,
                )
            )  # fmt: skip
    return svg("Shares of the values then and now", frame.axes("value", "share of rows"), *bars, height=_HEIGHT)


def _spread(counts: Floats, edges: Floats, bounds: Floats) -> Floats:
    """Counts of cells as shares of bars, each spread evenly over its cell; outer bars hold what lies beyond."""
    total = max(float(counts.sum()), 1.0)
    reached = np.concatenate(([0.0], np.cumsum(counts[1:-1]))) / total
    at = np.interp(bounds, edges, reached)
    at[0], at[-1] = 0.0, reached[-1]
    found: Floats = np.diff(at)
    return found


def shares(cells: Cells, before: Floats, now: Floats) -> Bars:
    """Counts [cells] of categories as shares: those whose share changed most, then all others and the unseen."""
    then, after = (one / max(float(one.sum()), 1.0) for one in (before, now))
    order = np.argsort(-np.abs(after - then)[: len(cells.values)], kind="stable")
    shown = sorted(order[:_KINDS].tolist())
    names = [cells.values[place] for place in shown]
    firsts, seconds = [float(then[place]) for place in shown], [float(after[place]) for place in shown]
    rest = [float(one[:-1].sum()) - sum(told) for one, told in ((then, firsts), (after, seconds))]
    if len(cells.values) > len(shown) or max(rest) > 1e-9:
        names, firsts, seconds = [*names, "all others"], [*firsts, max(rest[0], 0.0)], [*seconds, max(rest[1], 0.0)]
    if after[-1] > 0:
        names, firsts, seconds = [*names, "unseen before"], [*firsts, float(then[-1])], [*seconds, float(after[-1])]
    return Bars(tuple(names), tuple(firsts), tuple(seconds))


def bars(found: Bars) -> Markup:
    """A pair of bars a name."""
    most = max([*found.then, *found.now, 1e-9])

    def bar(value: float, style: str) -> Markup:
        fill = element("span", class_=style, style=f"width:{100 * value / most:.2f}%")
        return element("span", fill, element("span", share(value), class_="much"), class_="line")

    rows = [
        element("div", element("span", name, class_="what", title=name), bar(then, "then"), bar(now, "now"))
        for name, then, now in zip(found.names, found.then, found.now, strict=True)
    ]
    return element("div", *rows, class_="sides", role="img", aria_label="Shares of the values then and now")


def key() -> Markup:
    """Which colour is which side."""
    items = [
        element("li", element("span", class_=f"key {style}", aria_hidden="true"), text)
        for style, text in (("then", "reference"), ("now", "newest alarming windows"))
    ]
    return element("ul", *items, class_="legend")


def course(values: Sequence[float | None], blocks: Sequence[Block], alarming: frozenset[int], limit: float,
           name: str) -> Markup:  # fmt: skip
    """A distance of each window by itself, with the least that matters; alarming windows are filled."""
    known = [value for value in values if value is not None]
    top = 1.12 * max([limit, *known])
    frame = Frame((-0.5, len(values) - 0.5), (min([0.0, *known]), top), height=_HEIGHT)
    points = [(place, value) for place, value in enumerate(values) if value is not None]
    dots = [
        frame.dot(place, value, 3.5, "dot alarm" if place in alarming else "dot calm",
                  f"{day(blocks[place])}: {number(value)}, {count(blocks[place].rows)} rows")
        for place, value in points
    ]  # fmt: skip
    return svg(
        f"{name} by window; {len(alarming)} of {len(values)} are alarming",
        _axes(frame, blocks, name),
        frame.line([(-0.5, limit), (len(values) - 0.5, limit)], "ideal"),
        element("text", f"least that matters {number(limit)}", x=frame.left + 6, y=frame.y(limit) - 6, class_="tick"),
        frame.line(points, "model"),
        *dots,
        height=_HEIGHT,
    )


def _axes(frame: Frame, blocks: Sequence[Block], name: str) -> Markup:
    """Those of the frame, with windows named by their beginning."""
    parts: list[Child] = [frame.rows(name)]
    bottom = frame.height - BOTTOM
    for place in _places(len(blocks)):
        style = "start" if place == 0 else "end" if place == len(blocks) - 1 else "middle"
        x = frame.left if place == 0 else WIDTH - RIGHT if place == len(blocks) - 1 else frame.x(place)
        parts.append(element("text", _short(blocks[place], blocks), x=x, y=bottom + 16, class_=f"tick {style}"))
    parts.append(element("line", x1=frame.left, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"))
    middle = (frame.left + WIDTH - RIGHT) / 2
    parts.append(element("text", "window", x=middle, y=frame.height - 6, class_="name middle"))
    return join(parts)


def _places(windows: int) -> list[int]:
    return sorted({round(part * (windows - 1) / 2) for part in range(3)})


def _short(block: Block, blocks: Sequence[Block]) -> str:
    """A window's beginning; without the time of day where all windows are days apart."""
    if not block.timed:
        return day(block)
    whole = all(not one.timed or one.start % 86_400_000_000 == 0 for one in blocks)
    return f"{from_micros(block.start):{'%Y-%m-%d' if whole else '%m-%d %H:%M'}}"


class Strip(NamedTuple):
    """A column over the windows: the largest effect over the least that matters, and where it alarmed."""

    name: str
    worst: tuple[float | None, ...]
    alarming: frozenset[int]


def strips(rows: Sequence[Strip], blocks: Sequence[Block]) -> Markup:
    """All columns over all windows, one shaded cell a window; of very many windows several share a cell."""
    step = -(-len(blocks) // _STEPS)
    lines = [
        element(
            "div", element("span", row.name, class_="what", title=row.name), _cells(row, blocks, step), class_="heat"
        )
        for row in rows
    ]
    named = [element("span", _short(blocks[place], blocks)) for place in _places(len(blocks))]
    ruler = element("div", element("span"), element("span", *named, class_="ruler"), class_="heat")
    return element("div", *lines, ruler, class_="heats", role="img", aria_label=f"{len(rows)} columns over the windows")


def _cells(row: Strip, blocks: Sequence[Block], step: int) -> Markup:
    cells: list[Child] = []
    for place, first in enumerate(range(0, len(blocks), step)):
        group = range(first, min(first + step, len(blocks)))
        known = [value for at in group if (value := row.worst[at]) is not None]
        worst = max(known, default=None)
        alarm = any(at in row.alarming for at in group)
        told = "too few rows" if worst is None else f"{number(worst)} of the least that matters"
        note = f"{row.name}, {day(blocks[first])}: {told}{', alarming' if alarm else ''}"
        style = "none" if worst is None else f"heat{sum(worst >= limit for limit in _SHADES)}"
        cells.append(element("rect", element("title", note), x=place, y=0, width=0.92, height=1, class_=style))
        if alarm:
            cells.append(element("rect", x=place, y=0.78, width=0.92, height=0.22, class_="alarm"))
    width = -(-len(blocks) // step)
    box = f"0 0 {width} 1"
    return element("svg", *cells, viewBox=box, preserveAspectRatio="none", aria_hidden="true", class_="cells")


def shades() -> Markup:
    """What the colours of the strip say."""
    words = ("less than half of the least that matters", "half", "the least", "twice", "four times or more")
    items = [
        element("li", element("span", class_=f"key heat{place}", aria_hidden="true"), text)
        for place, text in enumerate(words)
    ]
    items.append(element("li", element("span", class_="key alarm", aria_hidden="true"), "alarming"))
    return element("ul", *items, class_="legend")
