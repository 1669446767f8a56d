"""Parallel coordinates: one line a trial across its parameters and its score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from cumulant.flows.reports.svg_elements import Child, Drawing, draw, element, join
from cumulant.flows.reports.wording import number

_WIDTH, _TOP, _TALL, _BOTTOM = 960.0, 46.0, 230.0, 22.0
_LEFT, _RIGHT = 70.0, 90.0
#: axes of parameters, those that change most often first
_MOST = 9
#: from this ratio of the largest to the least an axis is logarithmic
_DECADES = 50.0
_SHADES = 4

Value = float | int | str | bool


class TrialLine(NamedTuple):
    """A trial: its number, its parameters and its score."""

    number: int
    params: Mapping[str, Value]
    score: float


class _Scale(NamedTuple):
    """An axis: where values are, 0 at the bottom to 1, and the labels at its ends or at each of its texts."""

    name: str
    places: Mapping[Value, float]
    labels: Sequence[tuple[float, str]]


def parallel_coordinates(
    trials: Sequence[TrialLine], *, score: str, higher: bool | None, best: int | None
) -> Drawing | None:
    """The lines of trials of one trainer; None where less than two have a score, or no parameter changes.

    A line is the darker the better its score is; `higher`: whether a higher score is better, None: not known.
    """
    shown = [trial for trial in trials if math.isfinite(trial.score)]
    names = changing_parameters(shown)
    if len(shown) < 2 or not names:
        return None
    scales = [_scale(name, [trial.params[name] for trial in shown if name in trial.params]) for name in names]
    scales.append(_scale(score, [trial.score for trial in shown]))
    gap = (_WIDTH - _LEFT - _RIGHT) / (len(scales) - 1)
    across = [round(_LEFT + gap * place, 1) for place in range(len(scales))]
    ranked = sorted(shown, key=lambda trial: trial.score, reverse=higher is False)  # the best last, above the others
    lines = [
        _line(trial, scales, across, _style(trial, rank, len(ranked), higher=higher, best=best))
        for rank, trial in enumerate(ranked)
    ]
    text = f"Parameters and {score} of {len(shown)} trials" + (
        f"; the best is number {best}" if best is not None else ""
    )
    axes = [_axis(scale, x) for scale, x in zip(scales, across, strict=True)]
    return draw(text, *lines, *axes, width=_WIDTH, height=_TOP + _TALL + _BOTTOM)


def changing_parameters(trials: Sequence[TrialLine]) -> list[str]:
    """The parameters with more than one value, those with most values first; at most as many as are drawn."""
    values: dict[str, set[Value]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(value)
    names = [name for name, distinct in values.items() if len(distinct) > 1]
    return sorted(names, key=lambda name: -len(values[name]))[:_MOST]


def _scale(name: str, values: Sequence[Value]) -> _Scale:
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        texts = sorted({str(value) for value in values})
        heights = {text: place / max(len(texts) - 1, 1) for place, text in enumerate(texts)}
        return _Scale(name, {value: heights[str(value)] for value in values}, [(y, t) for t, y in heights.items()])
    low, high = min(numbers), max(numbers)
    logarithmic = low > 0 and high / low >= _DECADES
    begin, end = (math.log(low), math.log(high)) if logarithmic else (low, high)

    def place(value: float) -> float:
        return ((math.log(value) if logarithmic else value) - begin) / ((end - begin) or 1.0)

    ends = [(0.0, _label(low)), (1.0, _label(high))] if high > low else [(0.0, _label(low))]
    return _Scale(name, {value: place(value) for value in numbers}, ends)


def _label(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else number(value)


def _style(trial: TrialLine, rank: int, count: int, *, higher: bool | None, best: int | None) -> str:
    if trial.number == best:
        return "trial-line chosen-line"
    return f"trial-line shade{1 if higher is None else min(rank * _SHADES // count, _SHADES - 1)}"


def _line(trial: TrialLine, scales: Sequence[_Scale], across: Sequence[float], style: str) -> Markup:
    points = []
    for scale, x in zip(scales[:-1], across, strict=False):
        if scale.name in trial.params:
            points.append((x, scale.places[trial.params[scale.name]]))
    points.append((across[-1], scales[-1].places[trial.score]))
    path = " ".join(f"{x:g},{_y(height):g}" for x, height in points)
    return element(
        "polyline", element("title", f"trial {trial.number}: {number(trial.score)}"), points=path, class_=style
    )


def _axis(scale: _Scale, x: float) -> Markup:
    name = scale.name if len(scale.name) <= 16 else f"{scale.name[:15]}…"
    parts: list[Child] = [
        element("line", x1=x, x2=x, y1=_TOP, y2=_TOP + _TALL, class_="axis"),
        element("text", element("title", scale.name), name, x=x, y=16, class_="name middle"),
    ]
    parts += [
        element("text", label[:14], x=x + 5, y=_y(height) + (12 if height == 0 and len(scale.labels) == 2 else -3))
        for height, label in scale.labels
    ]
    return join(parts)


def _y(height: float) -> float:
    return round(_TOP + _TALL * (1 - height), 2)
