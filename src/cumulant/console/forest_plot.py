"""A forest plot of a release: the effect on each metric as a part of its margin, with what is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cumulant.flows.reports import wording
from cumulant.flows.reports.svg_elements import Child, Drawing, draw, element, join

if TYPE_CHECKING:
    from markupsafe import Markup

    from cumulant.flows.release.views import MetricView

#: effects beyond so many margins are drawn at the edge
_MOST = 2.0
_WIDTH, _ROW, _TOP, _BOTTOM = 900.0, 40.0, 30.0, 30.0
_LEFT, _RIGHT = 150.0, 660.0
_WORDS = {"within its margin": "within", "worse": "worse"}
#: between two lines of a text
_LINE = 16


class MarginEffect(NamedTuple):
    """The effect on one metric in units of its margin: 1 is as much worse as is accepted. None: not known.

    An end that is None while the other is known is beyond what is drawn.
    """

    metric: str
    verdict: str
    value: float | None
    low: float | None
    high: float | None

    @property
    def tone(self) -> str:
        return _WORDS.get(self.verdict.partition(";")[0], "undecided")


def effect_of(metric: MetricView) -> MarginEffect | None:
    """The effect of a metric; None where it decides nothing, since it has no margin.

    The margin of a latency is a part of the champion's, that of others a difference.
    """
    if not metric.margin:
        return None
    champion, candidate = metric.champion, metric.candidate
    value = low = high = None
    if champion is not None and candidate is not None:
        unit = champion if metric.unit == "ms" else 1.0
        value = None if not unit else (candidate - champion) / unit / metric.margin
    if metric.unit != "ms":
        low = None if metric.low is None else metric.low / metric.margin
        high = None if metric.high is None else metric.high / metric.margin
    return MarginEffect(metric.metric, metric.verdict, value, low, high)


def forest_plot(metrics: Sequence[MetricView]) -> Drawing | None:
    """The plot of the metrics that decide; None where there are none."""
    effects = [effect for effect in map(effect_of, metrics) if effect is not None]
    if not effects:
        return None
    height = _TOP + _ROW * len(effects) + _BOTTOM
    rows = [_row(effect, _TOP + _ROW * (place + 0.5)) for place, effect in enumerate(effects)]
    text = "; ".join(map(describe, effects))
    return draw(
        f"Effect on each metric in units of its margin: {text}", _ground(height), *rows, width=_WIDTH, height=height
    )


def describe(effect: MarginEffect) -> str:
    """`errors 0.35 of the margin, within its margin`."""
    value = "not measured" if effect.value is None else f"{wording.number(effect.value)} of the margin"
    return f"{effect.metric} {value}, {effect.verdict}"


def _x(value: float) -> float:
    shown = min(_MOST, max(-_MOST, value))
    return round(_LEFT + (shown + _MOST) / (2 * _MOST) * (_RIGHT - _LEFT), 1)


def _ground(height: float) -> Markup:
    """The zone beyond the margin, the lines of no effect and of the margin, and their names."""
    bottom = height - _BOTTOM
    hatch = element(
        "pattern",
        element("path", d="M0 6L6 0", class_="hatch"),
        id="hatch",
        width=6,
        height=6,
        patternUnits="userSpaceOnUse",
    )
    parts: list[Child] = [
        element("defs", hatch),
        element("rect", x=_x(1), y=_TOP, width=_RIGHT - _x(1), height=bottom - _TOP, class_="zone"),
        element("line", x1=_x(0), x2=_x(0), y1=_TOP, y2=bottom, class_="zero"),
        element("line", x1=_x(1), x2=_x(1), y1=_TOP, y2=bottom, class_="limit"),
        element("text", "better", x=_x(-1), y=_TOP - 10, class_="middle"),
        element("text", "no effect", x=_x(0), y=_TOP - 10, class_="middle"),
        element("text", "margin", x=_x(1), y=_TOP - 10, class_="middle"),
    ]
    parts.extend(
        element("text", f"{tick:+d}" if tick else "0", x=_x(tick), y=bottom + 18, class_="middle")
        for tick in (-2, -1, 0, 1, 2)
    )
    return join(parts)


def _row(effect: MarginEffect, y: float) -> Markup:
    parts: list[Child] = [element("text", effect.metric, x=12, y=y + 4, class_="label")]
    if effect.low is not None or effect.high is not None:
        parts.append(_interval(effect, y))
    elif effect.value is not None and effect.tone == "undecided":
        parts.append(_undecided(_x(0), _x(effect.value), y))
    if effect.value is not None:
        note = element("title", describe(effect))
        parts.append(element("circle", note, cx=_x(effect.value), cy=y, r=5.5, class_=f"at {effect.tone}"))
        if abs(effect.value) > _MOST:
            arrow, x = ("▶", _RIGHT + 9) if effect.value > 0 else ("◀", _LEFT - 9)
            parts.append(element("text", arrow, x=x, y=y + 4, class_="middle"))
    return element("g", *parts, *_words(effect, y))


def _words(effect: MarginEffect, y: float) -> Iterator[Markup]:
    """The verdict, and its clause on what that does to the release on a line of its own."""
    lines = effect.verdict.split("; ")
    top = y + 4 - _LINE * (len(lines) - 1) / 2
    for place, line in enumerate(lines):
        style = "clause" if place else f"word {effect.tone}"
        yield element("text", line, x=_RIGHT + 18, y=top + _LINE * place, class_=style)


def _interval(effect: MarginEffect, y: float) -> Markup:
    low, high = _x(-_MOST if effect.low is None else effect.low), _x(_MOST if effect.high is None else effect.high)
    if effect.tone == "undecided":
        return _undecided(low, high, y)
    return element("line", x1=low, x2=high, y1=y, y2=y, class_=f"reach {effect.tone}")


def _undecided(begin: float, end: float, y: float) -> Markup:
    low, high = sorted((begin, end))
    return element("rect", x=low, y=y - 5, width=max(high - low, 1), height=10, fill="url(#hatch)", class_="undecided")
