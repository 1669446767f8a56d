"""Charts as inline SVG and plain boxes, drawn here: no script, no font, no network.

Colours come from the page's style sheet by class, so that one drawing serves light, dark and print. Each chart has a
text that says what it shows, for those who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime

from cumulant.flows.reports.content import FoldReport, Interval, Point, TrialReport
from cumulant.flows.reports.markup import Child, Markup, element, join
from cumulant.flows.reports.wording import count, day, number

WIDTH, HEIGHT = 420.0, 300.0
RIGHT, TOP, BOTTOM = 12.0, 12.0, 40.0
#: shares from which a chart of shares ends at 1
_HALF = 0.5


class Frame:
    """A plot area with linear axes over [x0, x1] and [y0, y1]."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], *, height: float = HEIGHT) -> None:
        self.x0, self.x1 = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
        self.y0, self.y1 = y if y[1] > y[0] else (y[0] - 0.5, y[0] + 0.5)
        self.height = height
        # Room for the widest tick label and the axis' name beside it.
        self.left = 26 + 6.8 * max(len(_tick(value)) for value in ticks(self.y0, self.y1))

    def x(self, value: float) -> float:
        return round(self.left + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - self.left - RIGHT), 2)

    def y(self, value: float) -> float:
        return round(self.height - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (self.height - TOP - BOTTOM), 2)

    def axes(self, x_name: str, y_name: str, *, whole_x: bool = False) -> Markup:
        """Grid lines, tick labels and the names of both axes."""
        parts: list[Child] = [self.rows(y_name)]
        bottom = self.height - BOTTOM
        parts += [
            element("text", _tick(value), x=self.x(value), y=bottom + 16, class_="tick middle")
            for value in ticks(self.x0, self.x1, whole=whole_x)
        ]
        parts.append(element("line", x1=self.left, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"))
        middle = (self.left + WIDTH - RIGHT) / 2
        parts.append(element("text", x_name, x=middle, y=self.height - 6, class_="name middle"))
        return join(parts)

    def rows(self, name: str) -> Markup:
        """Grid lines with their labels, and the name of the upright axis."""
        parts: list[Child] = []
        for value in ticks(self.y0, self.y1):
            y = self.y(value)
            parts.append(element("line", x1=self.left, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
            parts.append(element("text", _tick(value), x=self.left - 6, y=y + 4, class_="tick end"))
        turned = f"translate(11 {(TOP + self.height - BOTTOM) / 2}) rotate(-90)"
        parts.append(element("text", name, x=0, y=0, transform=turned, class_="name middle"))
        return join(parts)

    def line(self, points: Iterable[tuple[float, float]], class_: str) -> Markup:
        path = " ".join(f"{self.x(x):g},{self.y(y):g}" for x, y in points)
        return element("polyline", points=path, class_=class_)

    def dot(self, x: float, y: float, radius: float, class_: str, note: str) -> Markup:
        return element("circle", element("title", note), cx=self.x(x), cy=self.y(y), r=round(radius, 1), class_=class_)


def svg(what: str, *children: Child, width: float = WIDTH, height: float = HEIGHT, class_: str = "chart") -> Markup:
    """A drawing with a text for screen readers."""
    return element("svg", *children, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=what, class_=class_)


def ticks(low: float, high: float, *, wanted: int = 5, whole: bool = False) -> list[float]:
    """Round values between `low` and `high`, about `wanted` of them."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / wanted
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
    step = max(1.0, round(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def calibration(points: Sequence[Point]) -> Markup:
    """What was predicted against what happened; the size of a dot is the number of rows behind it.

    Where both are small, as with rare positives, the axes end beyond the largest of them and not at 1.
    """
    end = _axis_end(max((max(point.x, point.y) for point in points), default=1.0))
    frame = Frame((0, end), (0, end))
    most = max((point.weight for point in points), default=1.0) or 1.0
    dots = [
        frame.dot(
            point.x, point.y, 2.5 + 4 * math.sqrt(point.weight / most), "dot",
            f"predicted {number(point.x)}, happened {number(point.y)}, {count(round(point.weight))} rows",
        )
        for point in points
    ]  # fmt: skip
    worst = max((abs(point.x - point.y) for point in points), default=0.0)
    return svg(
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


def precision_recall(points: Sequence[Point], base_rate: float | None) -> Markup:
    """Precision at each recall, with the base rate that guessing would give."""
    frame = Frame((0, 1), (0, 1))
    base = frame.line([(0, base_rate), (1, base_rate)], "ideal") if base_rate is not None else None
    said = f"; guessing gives {number(base_rate)}" if base_rate is not None else ""
    ordered = [(point.x, point.y) for point in points]
    area = ""
    if ordered:
        outline = [*ordered, (ordered[-1][0], 0.0), (ordered[0][0], 0.0)]
        area = " ".join(f"{frame.x(x):g},{frame.y(y):g}" for x, y in outline)
    return svg(
        f"Precision against recall{said}",
        element("polygon", points=area, class_="area"),
        frame.axes("recall", "precision"),
        base,
        frame.line(ordered, "model"),
    )


def roc(points: Sequence[Point]) -> Markup:
    """True positive rate against false positive rate."""
    frame = Frame((0, 1), (0, 1))
    return svg(
        "ROC curve: true positive rate against false positive rate",
        frame.axes("false positive rate", "true positive rate"),
        frame.line([(0, 0), (1, 1)], "ideal"),
        frame.line([(point.x, point.y) for point in points], "model"),
    )


def scatter(points: Sequence[Point], x_name: str, y_name: str, what: str) -> Markup:
    """Predicted against observed values of a regression, with the diagonal."""
    low = min(min(point.x, point.y) for point in points)
    high = max(max(point.x, point.y) for point in points)
    frame = Frame((low, high), (low, high))
    return svg(
        what,
        frame.axes(x_name, y_name),
        frame.line([(low, low), (high, high)], "ideal"),
        *[frame.dot(point.x, point.y, 3, "dot", f"{number(point.x)}, {number(point.y)}") for point in points],
    )


def search(trials: Sequence[TrialReport], best: int | None, name: str, *, higher: bool) -> Markup:
    """Each trial's score in order, and the best one so far as a line."""
    scored = [(trial, trial.score) for trial in trials if trial.score is not None]
    values = _without_outliers([score for _, score in scored], higher=higher)
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
    inside = [(x, min(max(y, frame.y0), frame.y1)) for x, y in so_far]
    return svg(
        f"Score of each trial, and of each trainer without a search; the best is number {best}",
        frame.axes("trial", name, whole_x=True),
        frame.line(_stairs(inside), "sofar"),
        *dots,
    )


def legend(trials: Sequence[TrialReport]) -> Markup:
    """The colour of each trainer."""
    trainers = dict.fromkeys(trial.trainer for trial in trials if trial.score is not None)
    items = [
        element("li", element("span", class_=f"key kind{index % 4}", aria_hidden="true"), trainer)
        for index, trainer in enumerate(trainers)
    ]
    items.append(element("li", element("span", class_="key best", aria_hidden="true"), "best"))
    return element("ul", *items, class_="legend")


def folds(rows: Sequence[FoldReport]) -> Markup | None:
    """Training and held-out spans of each fold on one time axis; None where the split is not by time."""
    timed = [row for row in rows if row.train_from and row.train_to and row.held_from and row.held_to]
    if not timed:
        return None
    begin = min(_stamp(row.train_from) for row in timed)
    end = max(_stamp(row.held_to) for row in timed)

    def bar(row: FoldReport, kind: str, start: datetime | None, stop: datetime | None, rows_of: int) -> Markup:
        whole = (end - begin) or 1.0
        left, width = 100 * (_stamp(start) - begin) / whole, 100 * (_stamp(stop) - _stamp(start)) / whole
        note = f"{row.name}, {kind.split(maxsplit=1)[0]}: {day(start)} to {day(stop)}, {count(rows_of)} rows"
        return element("span", class_=kind, title=note, style=f"left:{left:.2f}%;width:{max(width, 0.5):.2f}%")

    lines = [
        element(
            "div",
            element("span", row.name, class_="tick"),
            element(
                "span",
                bar(row, "train", row.train_from, row.train_to, row.train_rows),
                bar(row, "held test" if row.name == "test" else "held", row.held_from, row.held_to, row.held_rows),
                class_="track",
            ),
            class_="fold",
        )
        for row in timed
    ]
    days = [element("span", _day_of(begin + (end - begin) * part / 2)) for part in range(3)]
    ruler = element("div", element("span"), element("span", *days, class_="ruler"), class_="fold")
    what = f"{len(timed)} splits in time order: each trains on the past and is held out on what follows"
    return element("div", *lines, ruler, class_="folds", role="img", aria_label=what)


def strip(model: Interval, other: Interval | None, low: float, high: float) -> Markup:
    """An interval as a line with a dot, drawn into a table cell; a second one stands below it, muted."""
    width, height = 200.0, 26.0
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return round(6 + (min(max(value, low), high) - low) / span * (width - 12), 1)

    parts: list[Child] = [element("line", x1=6, x2=width - 6, y1=13, y2=13, class_="grid")]
    for found, y, style in ((other, 18.0, "naive"), (model, 8.0, "model")):
        if found is None:
            continue
        if found.low is not None and found.high is not None:
            parts.append(element("line", x1=x(found.low), x2=x(found.high), y1=y, y2=y, class_=f"span {style}"))
        parts.append(element("circle", cx=x(found.value), cy=y, r=3.5, class_=f"point {style}"))
    return element("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", aria_hidden="true", class_="strip")


def forest(found: Interval, overall: float | None, low: float, high: float) -> Markup:
    """One slice's interval against the figure over all rows."""
    width, height = 220.0, 18.0
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return round(6 + (min(max(value, low), high) - low) / span * (width - 12), 1)

    parts: list[Child] = []
    if overall is not None:
        parts.append(element("line", x1=x(overall), x2=x(overall), y1=0, y2=height, class_="overall"))
    if found.low is not None and found.high is not None:
        parts.append(element("line", x1=x(found.low), x2=x(found.high), y1=9, y2=9, class_="span model"))
    parts.append(element("circle", cx=x(found.value), cy=9, r=3.5, class_="point model"))
    return element("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", aria_hidden="true", class_="strip")


def bounds(intervals: Iterable[Interval | None]) -> tuple[float, float]:
    """The least and greatest value or end among intervals, with a little air."""
    values = [
        value
        for found in intervals
        if found is not None
        for value in (found.value, found.low, found.high)
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
    found: list[tuple[float, float]] = []
    for x, y in points:
        if found:
            found.append((x, found[-1][1]))
        found.append((x, y))
    return found


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _stamp(when: datetime | None) -> float:
    assert when is not None
    return when.timestamp()


def _day_of(stamp: float) -> str:
    from datetime import UTC

    return day(datetime.fromtimestamp(stamp, UTC))
