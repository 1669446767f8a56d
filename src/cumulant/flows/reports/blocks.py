"""Building blocks of the page: sections, tables, figures, tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cumulant.flows.reports.markup import Child, Markup, element


class Column(NamedTuple):
    """A table's column: its head, and how its cells stand (`n` numbers, `w` unbroken, `prose` wide text)."""

    head: str
    style: str | None = None


class Section(NamedTuple):
    """One part of the page; `anchor` and `title` make its line in the contents."""

    anchor: str
    title: str
    body: Markup


def section(anchor: str, title: str, lead: str, *children: Child) -> Section:
    """A section with its heading and one sentence that says what it shows."""
    heading = element("h2", title, id=anchor)
    said = element("p", lead, class_="lead") if lead else None
    return Section(anchor, title, element("section", heading, said, *children, aria_labelledby=anchor))


def table(caption: str, columns: Sequence[Column], rows: Iterable[tuple[Sequence[Child], str | None]]) -> Markup:
    """A table whose first cell of a row is its head; it scrolls sideways in a narrow window."""
    head = element("tr", *[element("th", column.head, scope="col", class_=column.style) for column in columns])
    body = []
    for cells, style in rows:
        parts = [
            element("th" if index == 0 else "td", value, scope="row" if index == 0 else None, class_=column.style)
            for index, (column, value) in enumerate(zip(columns, cells, strict=True))
        ]
        body.append(element("tr", *parts, class_=style))
    inner = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def figure(title: str, *drawing: Child) -> Markup:
    return element("figure", element("figcaption", title), *drawing)


def tile(label: str, big: str, *notes: str) -> Markup:
    """A figure that deserves to be large, with what it is and notes below, one a line."""
    return element(
        "div",
        element("dt", label),
        element("dd", big, class_="big"),
        *[element("dd", note, class_="note") for note in notes if note],
        class_="tile",
    )


def tiles(*parts: Markup) -> Markup:
    return element("dl", *parts, class_="tiles")


def definitions(rows: Iterable[tuple[str, Child]]) -> Markup:
    """Labels and their values, without those that are empty."""
    parts = [part for label, value in rows if value for part in (element("dt", label), element("dd", value))]
    return element("dl", *parts, class_="rows")


def tag(text: str, style: str = "") -> Markup:
    return element("span", text, class_=f"tag {style}".strip())


def details(summary: str, *children: Child, open_: bool = False) -> Markup:
    """Content that is folded away until it is asked for (and printed in full)."""
    return element("details", element("summary", summary), *children, open="open" if open_ else None)
