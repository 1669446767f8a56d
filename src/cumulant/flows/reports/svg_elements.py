"""SVG from escaped elements: plot area, axes, drawings; colours come from `charts.css` by class."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import NamedTuple

import markupsafe
from markupsafe import Markup

WIDTH, HEIGHT = 420.0, 300.0
RIGHT, TOP, BOTTOM = 12.0, 12.0, 40.0
#: width of a drawing from which it takes a whole line of a page
_WIDE = 800.0
#: height of the two lines above the drawing of a file
_HEADING = 44.0
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_EMPTY = frozenset({"line", "circle", "rect", "path", "polyline", "polygon"})

Child = Markup | str | None


def printable(text: str) -> str:
    """`text` with a replacement for each character that no page may hold."""
    return _CONTROL.sub("\ufffd", text)


def escape(text: object) -> Markup:
    """`text` as the text or the value of an attribute of a page."""
    return markupsafe.escape(printable(str(text)))


def element(tag: str, *children: Child, **attributes: object) -> Markup:
    """`<tag ...>children</tag>`; strings are escaped, `Markup` is not, None is left out.

    A trailing underscore in an attribute's name is dropped (`class_`), other underscores become hyphens; an attribute
    that is None is left out.
    """
    names = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in _EMPTY and not children:
        return Markup(f"<{tag}{names}/>")  # noqa: S704 - of escaped parts
    return Markup(f"<{tag}{names}>{join(children)}</{tag}>")  # noqa: S704 - of escaped parts


def join(children: Iterable[Child]) -> Markup:
    parts = (child if isinstance(child, Markup) else escape(child) for child in children if child is not None)
    return Markup("".join(parts))  # noqa: S704 - of escaped parts


class Drawing(NamedTuple):
    """A drawing of `width` by `height` units; `text` describes it. In a template it is an inline element."""

    text: str
    content: Markup
    width: float = WIDTH
    height: float = HEIGHT

    def __html__(self) -> str:
        box = f"0 0 {self.width:g} {self.height:g}"
        style = "chart wide" if self.width >= _WIDE else "chart"
        return element("svg", self.content, viewBox=box, role="img", aria_label=self.text, class_=style)

    def __str__(self) -> str:
        return self.__html__()

    def document(self, title: str, note: str) -> str:
        """The drawing as a file: on white, with its title and a note above it, and the style sheet in it."""
        height = self.height + _HEADING
        return element(
            "svg",
            element("style", Markup(style_sheet("charts.css"))),  # noqa: S704 - our own file
            element("rect", width="100%", height="100%", class_="paper"),
            element("text", title, x=12, y=18, class_="heading"),
            element("text", note, x=12, y=34, class_="note"),
            element("g", self.content, transform=f"translate(0 {_HEADING:g})"),
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {self.width:g} {height:g}",
            width=f"{self.width * 1.5:g}",
            height=f"{height * 1.5:g}",
            role="img",
            aria_label=self.text,
            class_="chart",
        )


def draw(text: str, *children: Child, width: float = WIDTH, height: float = HEIGHT) -> Drawing:
    """A drawing of its parts, with a text for screen readers."""
    return Drawing(text, join(children), width, height)


def style_sheet(name: str) -> str:
    """The text of a style sheet of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


class Frame:
    """A plot area with linear axes over [x0, x1] and [y0, y1]; `log_y`: upright by the logarithm of 1 + y, y0 >= 0."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        width: float = WIDTH,
        height: float = HEIGHT,
        log_y: bool = False,
    ) -> None:
        self.x0, self.x1 = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
        self.y0, self.y1 = y if y[1] > y[0] else (y[0] - 0.5, y[0] + 0.5)
        self.width, self.height = width, height
        self._log_y = log_y
        self._y_ticks = _powers(self.y1) if log_y else ticks(self.y0, self.y1)
        # Room for the widest tick label and the axis' name beside it.
        self.left = 28 + 8.4 * max(len(_tick(value)) for value in self._y_ticks)

    def x(self, value: float) -> float:
        return round(self.left + (value - self.x0) / (self.x1 - self.x0) * (self.width - self.left - RIGHT), 2)

    def y(self, value: float) -> float:
        low, high = self._upright(self.y0), self._upright(self.y1)
        share = (self._upright(value) - low) / (high - low)
        return round(self.height - BOTTOM - share * (self.height - TOP - BOTTOM), 2)

    def axes(self, x_name: str, y_name: str, *, whole_x: bool = False) -> Markup:
        """Grid lines, tick labels and the names of both axes."""
        labels = [
            element("text", _tick(value), x=self.x(value), y=self.height - BOTTOM + 16, class_="tick middle")
            for value in ticks(self.x0, self.x1, whole=whole_x)
        ]
        return join([self.rows(y_name), *labels, self.baseline(x_name)])

    def rows(self, name: str) -> Markup:
        """Grid lines with their labels, and the name of the upright axis."""
        parts: list[Child] = []
        for value in self._y_ticks:
            y = self.y(value)
            parts.append(element("line", x1=self.left, x2=self.width - RIGHT, y1=y, y2=y, class_="grid"))
            parts.append(element("text", _tick(value), x=self.left - 6, y=y + 4, class_="tick end"))
        turned = f"translate(11 {(TOP + self.height - BOTTOM) / 2}) rotate(-90)"
        parts.append(element("text", name, x=0, y=0, transform=turned, class_="name middle"))
        return join(parts)

    def baseline(self, name: str) -> Markup:
        """The line below the plot area, and the name of the axis along it."""
        bottom, middle = self.height - BOTTOM, (self.left + self.width - RIGHT) / 2
        line = element("line", x1=self.left, x2=self.width - RIGHT, y1=bottom, y2=bottom, class_="axis")
        return join([line, element("text", name, x=middle, y=self.height - 6, class_="name middle")])

    def line(self, points: Iterable[tuple[float, float]], class_: str) -> Markup:
        path = " ".join(f"{self.x(x):g},{self.y(y):g}" for x, y in points)
        return element("polyline", points=path, class_=class_)

    def dot(self, x: float, y: float, radius: float, class_: str, note: str) -> Markup:
        return element("circle", element("title", note), cx=self.x(x), cy=self.y(y), r=round(radius, 1), class_=class_)

    def bar(self, x: tuple[float, float], y: float, class_: str, note: str) -> Markup:
        """A bar from the baseline up to `y`, with a little air between it and the next one."""
        begin, top = self.x(x[0]), self.y(y)
        width, height = max(self.x(x[1]) - begin - 1, 0.5), self.y(self.y0) - top
        place = {"x": begin, "y": top, "width": round(width, 2), "height": round(height, 2)}
        return element("rect", element("title", note), class_=class_, **place)

    def _upright(self, value: float) -> float:
        return math.log10(1 + value) if self._log_y else value


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


def _powers(high: float) -> list[float]:
    """0 and the powers of ten up to `high`."""
    return [0.0, *(10.0**power for power in range(math.floor(math.log10(max(high, 1.0))) + 1))]


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
