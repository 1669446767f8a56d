"""The calibration of a model: the isotonic fit with its consistency band above a histogram of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cumulant.flows.reports.svg_elements import HEIGHT, RIGHT, WIDTH, Child, Drawing, Frame, draw, element
from cumulant.flows.reports.wording import count, number

_HISTOGRAM = 74.0
#: shares from which the axes end at 1
_HALF = 0.5
_ENDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)

Columns = Mapping[str, Sequence[float]]


def reliability(fit: Columns, scores: Columns) -> Drawing:
    """The drawing of the curves `reliability` and `scores` of an evaluation; the latter's bins are stacked by class."""
    end = axis_end(fit)
    frame = Frame((0.0, end), (0.0, end))
    points = list(zip(fit["predicted"], fit["observed"], strict=True))
    lows = list(zip(fit["predicted"], fit["low"], strict=True))
    highs = list(zip(fit["predicted"], fit["high"], strict=True))
    outline = " ".join(f"{frame.x(x):g},{frame.y(min(y, end)):g}" for x, y in [*lows, *reversed(highs)])
    return draw(
        describe(fit),
        element("polygon", points=outline, class_="consistency"),
        frame.axes("predicted probability", "share that happened"),
        frame.line([(0, 0), (end, end)], "ideal"),
        frame.line([(x, min(y, end)) for x, y in points], "model"),
        *_histogram(frame, scores, end),
        width=WIDTH,
        height=HEIGHT + _HISTOGRAM,
    )


def histogram(scores: Columns) -> Drawing:
    """Rows by prediction, those where it happened and those where it did not, on a logarithmic scale."""
    most = max([*scores["negative"], *scores["positive"], 1.0])
    frame = Frame((0.0, 1.0), (0.0, most), log_y=True)
    bars = []
    for begin, end, negative, positive in _bins(scores):
        middle = (begin + end) / 2
        for low, high, rows, style, name in (
            (begin, middle, negative, "then", "did not happen"),
            (middle, end, positive, "now", "happened"),
        ):
            note = f"predicted {number(begin)} to {number(end)}: {count(round(rows))} {name}"
            bars.append(frame.bar((low, high), rows, style, note))
    total = sum(scores["negative"]) + sum(scores["positive"])
    text = f"Histogram of the predictions of {count(round(total))} rows by what happened"
    return draw(text, frame.axes("predicted probability", "rows"), *bars)


def describe(fit: Columns) -> str:
    """Where the fit leaves the band, in a sentence."""
    outside = [
        (predicted, observed)
        for predicted, observed, low, high in zip(*(fit[name] for name in _NAMES), strict=True)
        if not low <= observed <= high
    ]
    if not outside:
        return "Calibration: the isotonic fit is inside the band of a calibrated model at every point"
    predicted, observed = max(outside, key=lambda point: abs(point[0] - point[1]))
    return (
        f"Calibration: the isotonic fit is outside the band of a calibrated model at {len(outside)} of"
        f" {len(fit['predicted'])} points, most where {number(predicted)} is predicted: {number(observed)} happened."
        " The band holds at each point by itself: a calibrated model is outside at about 5% of the points"
    )


_NAMES = ("predicted", "observed", "low", "high")


def axis_end(fit: Columns) -> float:
    """The end of both axes: 1, or the first round share beyond all that is drawn."""
    largest = max([*fit["predicted"], *fit["observed"]], default=1.0)
    return next((end for end in _ENDS if largest <= end), 1.0) if largest < _HALF else 1.0


def _histogram(frame: Frame, scores: Columns, end: float) -> list[Child]:
    """Bars of all rows below the plot area, on the same axis."""
    base, tall = HEIGHT + _HISTOGRAM - 8, _HISTOGRAM - 26
    shown = [each for each in _bins(scores) if each[0] < end]
    most = max([negative + positive for _, _, negative, positive in shown], default=0.0) or 1.0
    parts: list[Child] = [
        element("text", "rows", x=frame.left - 6, y=base - tall + 8, class_="tick end"),
        element("line", x1=frame.left, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis"),
    ]
    for begin, stop, negative, positive in shown:
        x, rows = frame.x(begin), negative + positive
        high = round(rows / most * tall, 2)
        note = element("title", f"predicted {number(begin)} to {number(stop)}: {count(round(rows))} rows")
        width = round(max(frame.x(min(stop, end)) - x - 1, 0.5), 2)
        parts.append(element("rect", note, x=x, y=round(base - high, 2), width=width, height=high, class_="now"))
    return parts


def _bins(scores: Columns) -> list[tuple[float, float, float, float]]:
    names = ("from", "to", "negative", "positive")
    return list(zip(*(scores[name] for name in names), strict=True))
