"""HTML that is escaped by construction: text becomes markup only through `element`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_EMPTY = frozenset({"meta", "br", "hr", "line", "circle", "rect", "path", "polyline", "polygon"})


class Markup(str):
    """Text that is markup already; only this module makes it."""

    __slots__ = ()


Child = Markup | str | None


def escape(text: object) -> Markup:
    """`text` as HTML text or attribute value, without characters that no page may hold."""
    return Markup(html.escape(_CONTROL.sub("\ufffd", str(text)), quote=True))


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
        return Markup(f"<{tag}{names}/>")
    return Markup(f"<{tag}{names}>{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """The children one after another."""
    parts = (child if isinstance(child, Markup) else escape(child) for child in children if child is not None)
    return Markup("".join(parts))


def style_sheet(css: str) -> Markup:
    """A style element around our own style sheet (never around text from outside)."""
    return Markup(f"<style>{css}</style>")
