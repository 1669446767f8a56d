"""Charts of the recorded looks of a release: the confidence sequence of a metric, and its evidence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from markupsafe import Markup

from cumulant.console.charts import Cell, Chart, numbered
from cumulant.flows.reports.svg_elements import BOTTOM, RIGHT, TOP, Child, Frame, draw, element, join
from cumulant.flows.reports.wording import number, share
from cumulant.release.look_history import LookHistory, MetricHistory, MetricLook
from cumulant.release.wording import format_value

Axis = Literal["time", "samples"]
_WIDTH, _HEIGHT = 960.0, 330.0
#: the upright axis spans at most so many widths of the newest interval
_CLIP = 10.0
#: shares of the needed evidence beyond this are drawn at the edge
_MOST_EVIDENCE = 1.5
HEADS = (
    "time",
    "active time, s",
    "step",
    "champion samples",
    "candidate samples",
    "champion",
    "candidate",
    "difference",
    "difference, low",
    "difference, high",
    "evidence of harm, share of what is needed",
    "evidence of no harm, share of what is needed",
    "verdict",
)


class LookAxis(NamedTuple):
    """What the looks are drawn over: its name, and the place of a look."""

    name: str
    place: Callable[[MetricLook], float]


def look_axis(kind: Axis, looks: Sequence[MetricLook]) -> LookAxis:
    """Active time in seconds, minutes or hours, or the candidate's samples."""
    if kind == "samples":
        return LookAxis("samples of the candidate", lambda look: float(look.candidate_samples))
    longest = looks[-1].seconds
    unit, size = next(
        ((unit, size) for unit, size in (("h", 3600.0), ("min", 60.0)) if longest >= 3 * size), ("s", 1.0)
    )
    return LookAxis(f"active time of the release, {unit}", lambda look: look.seconds / size)


class _Series(NamedTuple):
    """The looks of one metric, and what they are drawn over."""

    history: LookHistory
    metric: MetricHistory
    axis: LookAxis

    @property
    def across(self) -> tuple[float, float]:
        places = [self.axis.place(look) for look in self.metric.looks]
        return min(places), max(places) + 0.04 * (max(places) - min(places))


def look_rows(history: LookHistory, metric: MetricHistory) -> list[tuple[Cell, ...]]:
    """The recorded looks as rows of `HEADS`; differences and values as they were stored, shares as parts of 1."""
    return [
        (
            f"{look.at:%Y-%m-%d %H:%M:%S}",
            round(look.seconds, 1),
            _step_name(history, look.step),
            look.champion_samples,
            look.candidate_samples,
            _rounded(look.champion),
            _rounded(look.candidate),
            _rounded(metric.difference(look)),
            _rounded(look.low),
            _rounded(look.high),
            _rounded(_harm_share(metric, look)),
            _rounded(_fine_share(metric, look)),
            _verdict(look),
        )
        for look in metric.looks
    ]


def look_charts(history: LookHistory, metric: MetricHistory, kind: Axis, link: str) -> list[Chart]:
    """The charts of a metric with looks; the confidence sequence only of one that has an interval."""
    series = _Series(history, metric, look_axis(kind, metric.looks))
    charts = []
    if any(look.low is not None or look.high is not None for look in metric.looks):
        charts.append(_confidence_sequence(series))
    rows = look_rows(history, metric)
    return [chart._replace(rows=rows, csv=link) for chart in (*charts, _evidence(series))]


def difference_range(metric: MetricHistory) -> tuple[float, float]:
    """The ends of the upright axis: what is drawn, within ten times the newest interval about its middle."""
    drawn = [value for look in metric.looks for value in (look.low, look.high) if value is not None]
    low, high = min([*drawn, 0.0, metric.boundary]), max([*drawn, 0.0, metric.boundary])
    if metric.two_sided:
        low = min(low, -metric.margin)
    newest = next(
        (interval for look in reversed(metric.looks) if (interval := _known_interval(metric, look)) is not None), None
    )
    if newest is not None:
        middle, reach = (newest[0] + newest[1]) / 2, _CLIP / 2 * (newest[1] - newest[0])
        low, high = max(low, middle - reach), min(high, middle + reach)
    air = (high - low) * 0.05 or 0.001
    return low - air, high + air


def _known_interval(metric: MetricHistory, look: MetricLook) -> tuple[float, float] | None:
    """The interval of a look; where one end is not known, as far beyond the measured difference as the other end."""
    measured, low, high = metric.difference(look), look.low, look.high
    if measured is not None and low is None and high is not None:
        low = 2 * measured - high
    elif measured is not None and high is None and low is not None:
        high = 2 * measured - low
    return None if low is None or high is None or high <= low else (low, high)


def _confidence_sequence(series: _Series) -> Chart:
    history, metric, axis = series
    scale = 100.0 if _unit(metric) == "%" else 1.0
    low, high = (end * scale for end in difference_range(metric))
    frame = Frame(series.across, (low, high), width=_WIDTH, height=_HEIGHT)
    boundary = metric.boundary * scale
    fine_from = -boundary if metric.two_sided else low
    what = "slow requests" if metric.slow_share else "difference"
    parts: list[Child] = [
        _zone(frame, boundary, high, "zone harm"),
        _zone(frame, fine_from, boundary, "zone fine"),
        _zone(frame, low, fine_from, "zone harm"),
        frame.axes(axis.name, f"{what}, percentage points" if scale > 1 else what),
        _level(frame, 0.0, "zero"),
        _level(frame, boundary, "limit"),
        _level(frame, fine_from, "limit") if metric.two_sided else None,
        *_step_marks(frame, series),
    ]
    for looks in _steps(metric.looks):
        parts += [_band(frame, looks, axis, scale), _differences(frame, series, looks, scale)]
    parts += [*_zone_names(frame, boundary), *_step_names(frame, series)]  # above the lines that would cross them
    last = metric.looks[-1]
    text = (
        f"Confidence sequence of {metric.metric}, candidate less champion, over {len(metric.looks)} looks: "
        f"now {_interval_text(metric, last)}, margin {_margin_text(metric)}, {_verdict(last)}"
    )
    legend = [
        ("model", "measured difference"),
        ("span-band", "confidence sequence"),
        ("zone-harm", "slower than accepted: rollback" if metric.slow_share else "beyond the margin: rollback"),
        ("zone-fine", "as fast as accepted: promotion" if metric.slow_share else "within the margin: promotion"),
    ]
    return Chart(
        f"Confidence sequence of {metric.metric}" + (": share of slow requests" if metric.slow_share else ""),
        draw(text, *parts, width=_WIDTH, height=_HEIGHT),
        numbered(*HEADS),
        [],
        note=_interval_note(history, metric),
        legend=legend,
    )


def _evidence(series: _Series) -> Chart:
    metric, axis = series.metric, series.axis
    most = max([1.1, *(value for look in metric.looks for value in _shares(metric, look))])
    frame = Frame(series.across, (0.0, min(most, _MOST_EVIDENCE)), width=_WIDTH, height=_HEIGHT * 0.8)
    parts: list[Child] = [
        _zone(frame, 1.0, frame.y1, "zone decided"),
        frame.axes(axis.name, "share of the needed evidence"),
        _level(frame, 1.0, "limit"),
        *_step_marks(frame, series),
    ]
    for looks in _steps(metric.looks):
        fine = [(axis.place(look), _clipped(frame, _fine_share(metric, look))) for look in looks]
        harm = [(axis.place(look), part) for look in looks if (part := _harm_share(metric, look)) is not None]
        parts += [
            _evidence_line(frame, looks, fine, "model", "no harm"),
            _evidence_line(frame, looks, [(x, _clipped(frame, part)) for x, part in harm], "alarm-line", "harm"),
        ]
    parts += _step_names(frame, series)
    last = metric.looks[-1]
    of_harm = _harm_share(metric, last)
    text = (
        f"Evidence on {metric.metric} over {len(metric.looks)} looks, as a share of what is needed: "
        f"no harm {share(_fine_share(metric, last))}"
        + ("" if of_harm is None else f", harm {share(of_harm)}")
        + f"; {_verdict(last)}"
    )
    return Chart(
        f"Evidence on {metric.metric}",
        draw(text, *parts, width=_WIDTH, height=_HEIGHT * 0.8),
        numbered(*HEADS),
        [],
        note=f"Logarithms of e-values over their bars. Shaded: proven. {decision_rule(metric)}",
        legend=[("alarm-line", "harm: rolls back"), ("model", "no harm: promotes"), ("zone-decided", "proven")],
    )


def _evidence_line(
    frame: Frame, looks: Sequence[MetricLook], points: Sequence[tuple[float, float]], style: str, name: str
) -> Child:
    """The evidence of one step, with a dot at its last look."""
    if not points:
        return None
    note = f"{looks[-1].at:%Y-%m-%d %H:%M:%S} UTC, {name}: {share(points[-1][1])} of what is needed"
    dot = frame.dot(*points[-1], 3, "dot" if style == "model" else "dot alarm", note)
    return join([frame.line(points, style), dot])


def _steps(looks: Sequence[MetricLook]) -> list[list[MetricLook]]:
    return [list(part) for _, part in itertools.groupby(looks, key=lambda look: look.step)]


def _zone(frame: Frame, low: float, high: float, style: str) -> Child:
    bottom, top = max(low, frame.y0), min(high, frame.y1)
    if top <= bottom:
        return None
    y = frame.y(top)
    width = round(frame.width - RIGHT - frame.left, 2)
    return element("rect", x=frame.left, y=y, width=width, height=round(frame.y(bottom) - y, 2), class_=style)


def _zone_names(frame: Frame, margin: float) -> list[Child]:
    """The names of both zones on either side of the margin, where it is on the axis."""
    if not frame.y0 <= margin <= frame.y1:
        return []
    x, y = frame.left + 6, frame.y(margin)
    return [
        element("text", name, x=x, y=round(y + offset, 2), class_="zone-name over")
        for name, offset, room in (("rollback", -6, y - TOP), ("promotion", 15, frame.height - BOTTOM - y))
        if room > 18
    ]


def _level(frame: Frame, value: float, style: str) -> Child:
    """A line across at a value that is on the axis."""
    if not frame.y0 <= value <= frame.y1:
        return None
    y = frame.y(value)
    return element("line", x1=frame.left, x2=frame.width - RIGHT, y1=y, y2=y, class_=style)


def _step_marks(frame: Frame, series: _Series) -> list[Child]:
    """An upright line where a step begins."""
    begins = [frame.x(series.axis.place(looks[0])) for looks in _steps(series.metric.looks)]
    return [element("line", x1=x, x2=x, y1=TOP, y2=frame.height - BOTTOM, class_="step-mark") for x in begins]


def _step_names(frame: Frame, series: _Series) -> list[Child]:
    """The names of steps, each beside the line where it begins, where there is room."""
    parts: list[Child] = []
    free = 0.0
    for looks in _steps(series.metric.looks):
        x, name = frame.x(series.axis.place(looks[0])), _step_name(series.history, looks[0].step)
        wide = 10 + 7.0 * len(name)
        if x < free:
            continue
        if x + wide < frame.width:
            parts.append(element("text", name, x=x + 4, y=TOP + 12, class_="tick over"))
            free = x + wide
        elif x - wide > free:
            parts.append(element("text", name, x=x - 4, y=TOP + 12, class_="tick end over"))
    return parts


def _band(frame: Frame, looks: Sequence[MetricLook], axis: LookAxis, scale: float) -> Child:
    """The intervals of one step; an end that is not known is at the edge of the axis."""
    lows = [(axis.place(look), frame.y0 if look.low is None else _clipped(frame, look.low * scale)) for look in looks]
    highs = [
        (axis.place(look), frame.y1 if look.high is None else _clipped(frame, look.high * scale)) for look in looks
    ]
    if len(looks) == 1:
        (x, low), (_, high) = lows[0], highs[0]
        return element("line", x1=frame.x(x), x2=frame.x(x), y1=frame.y(low), y2=frame.y(high), class_="span model")
    outline = " ".join(f"{frame.x(x):g},{frame.y(y):g}" for x, y in [*lows, *reversed(highs)])
    return element("polygon", points=outline, class_="band")


def _differences(frame: Frame, series: _Series, looks: Sequence[MetricLook], scale: float) -> Markup:
    axis, measured = series.axis, [(look, series.metric.difference(look)) for look in looks]
    points = [(look, _clipped(frame, value * scale)) for look, value in measured if value is not None]
    line = frame.line([(axis.place(look), y) for look, y in points], "model")
    ends = [
        frame.dot(axis.place(look), y, 3.5, "dot", f"{look.at:%Y-%m-%d %H:%M:%S} UTC: {number(y)}, {_verdict(look)}")
        for look, y in points[-1:]
    ]
    return join([line, *ends])


def _clipped(frame: Frame, value: float) -> float:
    return min(max(value, frame.y0), frame.y1)


def _shares(metric: MetricHistory, look: MetricLook) -> list[float]:
    harm = _harm_share(metric, look)
    return [_fine_share(metric, look), *([] if harm is None else [harm])]


def _harm_share(metric: MetricHistory, look: MetricLook) -> float | None:
    return None if not metric.harm_bar else max(0.0, look.harm / metric.harm_bar)


def _fine_share(metric: MetricHistory, look: MetricLook) -> float:
    return max(0.0, look.fine / metric.fine_bar) if metric.fine_bar else 0.0


def _verdict(look: MetricLook) -> str:
    return "worse" if look.harmful else "within its margin" if look.acceptable else "not yet shown"


def _interval_text(metric: MetricHistory, look: MetricLook) -> str:
    low, high = (
        "below the axis"
        if end is None and place == 0
        else "above the axis"
        if end is None
        else format_value(end, _unit(metric))
        for place, end in enumerate((look.low, look.high))
    )
    return f"{low} to {high}"


def _unit(metric: MetricHistory) -> str:
    """The unit of differences."""
    return "%" if metric.slow_share else metric.unit


def _margin_text(metric: MetricHistory) -> str:
    """The margin of latency is a part of the champion's."""
    return f"{100 * metric.margin:g}%" if _unit(metric) == "%" else format_value(metric.margin, metric.unit)


def _interval_note(history: LookHistory, metric: MetricHistory) -> str:
    span = "of the whole release" if metric.pooled else "each step begins afresh"
    text = f"{100 * (1 - history.alpha):g}% intervals, valid at every look; {span}. "
    if metric.slow_share:
        text += (
            "A request is slow beyond the champion's quantile, one of the candidate beyond that and its margin of"
            f" {_margin_text(metric)}: the boundary is an equal share of slow requests. "
        )
    return f"{text}An interval shows the size; the evidence below decides{_APART.get(metric.kind, '')}."


#: where the interval of a kind of test is not that of the evidence which decides
_COUNTS = ", which includes earlier tests: after enough bad events a test, and its interval, begin afresh"
_HALF = ": each end has half of alpha, so that no harm may be proven while the interval still crosses the margin"
_APART: dict[str | None, str] = {"failures": _COUNTS, "latency": _COUNTS, "pairs": _HALF, "own": _HALF}


#: when proven harm rolls back, by kind of test
_ROLLBACK = {
    "failures": (
        "the evidence of harm reaches 100%, and the harm is larger than what is accepted: the margin, or twice the"
        " champion's rate where that is less"
    ),
    "latency": "the evidence that more requests are slow reaches 100%",
    "pairs": "the evidence of a difference beyond the margin reaches 100%",
    "own": "the evidence of harm reaches 100% and the measured difference is beyond the margin",
}


def decision_rule(metric: MetricHistory) -> str:
    """What the release does about this metric, in sentences."""
    if metric.kind is None:
        return ""
    text = f"Rollback: {_ROLLBACK[metric.kind]}; harm once proven is not withdrawn. "
    text += "No step advances while the measured difference is beyond the margin"
    if not metric.required:
        return f"{text}. Promotion does not wait for this metric's evidence of no harm."
    steps = "the shadow step (until its longest time) and the last step" if metric.kind == "pairs" else "the last step"
    return f"{text}, and {steps} {'need' if metric.kind == 'pairs' else 'needs'} 100% of the evidence of no harm."


def _step_name(history: LookHistory, step: int) -> str:
    return history.steps[step] if step < len(history.steps) else f"step {step + 1}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
