"""Charts of a report: its curves, the search, and intervals in the cells of tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from markupsafe import Markup

from cumulant.flows.reports.content import CurveReport, Interval, Point, TrialReport
from cumulant.flows.reports.svg_elements import Child, Drawing, Frame, draw, element
from cumulant.flows.reports.wording import count, number

#: shares from which a chart of shares ends at 1
_HALF = 0.5


class TitledDrawing(NamedTuple):
    """A drawing below its title."""

    title: str
    drawing: Drawing


def curve(report: CurveReport, base_rate: float | None = None) -> TitledDrawing | None:
    """The chart of a curve; None where its kind has none, or no point of it can be drawn.

    `base_rate`: the precision that guessing would give.
    """
    points = [point for point in report.points if math.isfinite(point.x) and math.isfinite(point.y)]
    if not points:
        return None
    if report.kind == "calibration":
        return TitledDrawing("Calibration", calibration(points))
    if report.kind == "precision_recall":
        return TitledDrawing("Precision and recall", precision_recall(points, base_rate))
    if report.kind == "roc":
        return TitledDrawing("ROC", roc(points))
    if report.kind == "predicted_observed":
        return TitledDrawing("Predicted and observed", predicted_observed(points))
    return None


def calibration(points: Sequence[Point]) -> Drawing:
    """What was predicted against what happened; the size of a dot is the number of rows behind it."""
    end = _axis_end(max((max(point.x, point.y) for point in points), default=1.0))
    frame = Frame((0, end), (0, end))
    most = max((point.weight for point in points), default=1.0) or 1.0
    dots = [
        frame.dot(
            point.x,
            point.y,
            2.5 + 4 * math.sqrt(point.weight / most),
            "dot",
            f"predicted {number(point.x)}, happened {number(point.y)}, {count(round(point.weight))} rows",
        )
        for point in points
    ]
    worst = max((abs(point.x - point.y) for point in points), default=0.0)
    return draw(
        f"Calibration: predicted probability against observed share; the largest gap is {number(worst)}",
        frame.axes("predicted probability", "share that happened"),
        frame.line([(0, 0), (end, end)], "ideal"),
        frame.line([(point.x, point.y) for point in points], "model"),
        *dots,
    )


def _axis_end(largest: float) -> float:
    """The first round value beyond shares up to `largest`; 1 where they fill half of the axis."""
    if not 0 < largest < _HALF:
        return 1.0
    step = 10.0 ** math.floor(math.log10(largest))
    return next(factor * step for factor in (1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if factor * step > largest)


def precision_recall(points: Sequence[Point], base_rate: float | None) -> Drawing:
    """Precision at each recall, with the base rate that guessing would give."""
    frame = Frame((0, 1), (0, 1))
    base = frame.line([(0, base_rate), (1, base_rate)], "ideal") if base_rate is not None else None
    guess_note = f"; guessing gives {number(base_rate)}" if base_rate is not None else ""
    ordered = [(point.x, point.y) for point in points]
    area = ""
    if ordered:
        outline = [*ordered, (ordered[-1][0], 0.0), (ordered[0][0], 0.0)]
        area = " ".join(f"{frame.x(x):g},{frame.y(y):g}" for x, y in outline)
    return draw(
        f"Precision against recall{guess_note}",
        element("polygon", points=area, class_="area"),
        frame.axes("recall", "precision"),
        base,
        frame.line(ordered, "model"),
    )


def thresholds(columns: Mapping[str, Sequence[float]], chosen: float | None) -> Drawing:
    """Precision and recall at each threshold, and the chosen one."""
    frame = Frame((0, 1), (0, 1))
    at = columns["threshold"]
    lines = [
        frame.line(list(zip(at, columns[name], strict=True)), style)
        for name, style in (("precision", "model"), ("recall", "second"))
    ]
    mark = frame.line([(chosen, 0), (chosen, 1)], "ideal") if chosen is not None and 0 <= chosen <= 1 else None
    note = f"; the model decides at {number(chosen)}" if chosen is not None else ""
    return draw(
        f"Precision and recall at each threshold{note}", frame.axes("threshold", "precision, recall"), mark, *lines
    )


def roc(points: Sequence[Point]) -> Drawing:
    """True positive rate against false positive rate."""
    frame = Frame((0, 1), (0, 1))
    return draw(
        "ROC curve: true positive rate against false positive rate",
        frame.axes("false positive rate", "true positive rate"),
        frame.line([(0, 0), (1, 1)], "ideal"),
        frame.line([(point.x, point.y) for point in points], "model"),
    )


def predicted_observed(points: Sequence[Point]) -> Drawing:
    """Observed against predicted values of a regression, with the diagonal."""
    low = min(min(point.x, point.y) for point in points)
    high = max(max(point.x, point.y) for point in points)
    frame = Frame((low, high), (low, high))
    return draw(
        "Observed against predicted values",
        frame.axes("predicted", "observed"),
        frame.line([(low, low), (high, high)], "ideal"),
        *[frame.dot(point.x, point.y, 3, "dot", f"{number(point.x)}, {number(point.y)}") for point in points],
    )


def search(trials: Sequence[TrialReport], best: int | None, name: str, *, higher: bool | None) -> Drawing | None:
    """Each trial's score in order, and the best one so far as a line; None where less than two have a score.

    `higher`: whether a higher score is better; None: not known, so that there is no line.
    """
    scored = [(trial, trial.score) for trial in trials if trial.score is not None and math.isfinite(trial.score)]
    if len(scored) < 2:
        return None
    values = [score for _, score in scored]
    values = values if higher is None else _without_outliers(values, higher=higher)
    margin = (max(values) - min(values)) * 0.08 or 0.01
    frame = Frame((-0.5, max(trial.number for trial, _ in scored) + 0.5), (min(values) - margin, max(values) + margin))
    trainers = list(dict.fromkeys(trial.trainer for trial, _ in scored))
    dots, so_far, top = [], [], None
    for trial, score in scored:
        top = score if top is None else max(top, score) if higher else min(top, score)
        so_far.append((float(trial.number), top))
        shown = min(max(score, frame.y0), frame.y1)
        style = "best" if trial.number == best else f"kind{trainers.index(trial.trainer) % 4}"
        note = f"trial {trial.number}, {trial.trainer}: {number(score)}"
        dots.append(frame.dot(trial.number, shown, 5.5 if trial.number == best else 4, f"dot {style}", note))
    inside = [] if higher is None else [(x, min(max(y, frame.y0), frame.y1)) for x, y in so_far]
    text = "the search goes on" if best is None else f"the best is number {best}"
    return draw(
        f"Score of each trial, and of each trainer without a search; {text}",
        frame.axes("trial", name, whole_x=True),
        frame.line(_stairs(inside), "sofar") if inside else None,
        *dots,
    )


def _position(value: float, *, low: float, high: float, width: float) -> float:
    """Where a value from `low` to `high` is in a cell of that width; others are at its nearer end."""
    return round(6 + (min(max(value, low), high) - low) / ((high - low) or 1.0) * (width - 12), 1)


def strip(model: Interval, other: Interval | None, low: float, high: float) -> Markup:
    """An interval as a line with a dot, drawn into a table cell; a second one stands below it, muted."""
    width, height = 200.0, 26.0
    x = partial(_position, low=low, high=high, width=width)
    parts: list[Child] = [element("line", x1=6, x2=width - 6, y1=13, y2=13, class_="grid")]
    for interval, y, style in ((other, 18.0, "naive"), (model, 8.0, "model")):
        if interval is None:
            continue
        if interval.low is not None and interval.high is not None:
            parts.append(element("line", x1=x(interval.low), x2=x(interval.high), y1=y, y2=y, class_=f"span {style}"))
        parts.append(element("circle", cx=x(interval.value), cy=y, r=3.5, class_=f"point {style}"))
    return element("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", aria_hidden="true", class_="strip")


def forest(interval: Interval, overall: float | None, low: float, high: float) -> Markup:
    """One slice's interval against the figure over all rows."""
    width, height = 220.0, 18.0
    x = partial(_position, low=low, high=high, width=width)
    parts: list[Child] = []
    if overall is not None:
        parts.append(element("line", x1=x(overall), x2=x(overall), y1=0, y2=height, class_="overall"))
    if interval.low is not None and interval.high is not None:
        parts.append(element("line", x1=x(interval.low), x2=x(interval.high), y1=9, y2=9, class_="span model"))
    parts.append(element("circle", cx=x(interval.value), cy=9, r=3.5, class_="point model"))
    return element("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", aria_hidden="true", class_="strip")


def bounds(intervals: Iterable[Interval | None]) -> tuple[float, float]:
    """The least and greatest value or end among intervals, with a little air."""
    values = [
        value
        for interval in intervals
        if interval is not None
        for value in (interval.value, interval.low, interval.high)
        if value is not None and math.isfinite(value)
    ]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    air = (high - low) * 0.06 or abs(high) * 0.06 or 0.05
    return low - air, high + air


def _without_outliers(values: list[float], *, higher: bool) -> list[float]:
    """The values that set the axis: far failures would squeeze the rest, so they are drawn at its edge."""
    ordered = sorted(values, reverse=higher)
    near = ordered[: max(2, math.ceil(0.75 * len(ordered)))]
    reach = abs(near[0] - near[-1]) or abs(near[0]) * 0.1 or 0.1
    edge = near[-1] - reach if higher else near[-1] + reach
    return [max(value, edge) if higher else min(value, edge) for value in ordered]


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    steps: list[tuple[float, float]] = []
    for x, y in points:
        if steps:
            steps.append((x, steps[-1][1]))
        steps.append((x, y))
    return steps
