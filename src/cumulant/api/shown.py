"""Results that show themselves: in a notebook as HTML, in a console as text, in code as the runtime's own value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from cumulant.flows.reports import terminal, wording
from cumulant.flows.reports.markup import Child, Markup, element

if TYPE_CHECKING:
    from rich.console import Console

Value = TypeVar("Value")
Item = TypeVar("Item")
WIDTH = 100
_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.4em 0"
_CELL = "padding:.2em 1em .2em 0;text-align:left;vertical-align:top"
_NUMBER = "padding:.2em 1em .2em 0;text-align:right;vertical-align:top"


class Shown(Generic[Value]):
    """A result of the runtime with its texts. Attributes are those of `.value`."""

    def __init__(self, value: Value, *, text: Callable[[Console], None], markup: Callable[[], Markup]) -> None:
        self.value = value
        self._text = text
        self._markup = markup

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "value":
            raise AttributeError(name)
        return getattr(self.value, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in dir(self.value) if not name.startswith("_"))})

    def __repr__(self) -> str:
        return as_text(self._text)

    def _repr_html_(self) -> str:
        return self._markup()


class Listing(Sequence[Item]):
    """A list that shows itself as a table."""

    def __init__(self, items: Sequence[Item], columns: Sequence[str], row: Callable[[Item], Sequence[object]]) -> None:
        self._items = tuple(items)
        self._columns = columns
        self._row = row

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Listing[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | Listing[Item]:
        if isinstance(index, slice):
            return Listing(self._items[index], self._columns, self._row)
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __repr__(self) -> str:
        return as_text(lambda console: console.print(terminal.table(self._columns, self._cells())))

    def _repr_html_(self) -> str:
        return table(self._columns, self._cells())

    def _cells(self) -> list[Sequence[object]]:
        return [self._row(item) for item in self._items]


def as_text(draw: Callable[[Console], None]) -> str:
    """What `draw` prints, as plain text."""
    from io import StringIO

    from rich.console import Console

    stream = StringIO()
    draw(
        Console(
            file=stream, width=WIDTH, highlight=False, markup=False, emoji=False, no_color=True, force_terminal=False
        )
    )
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).strip("\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """A plain HTML table, escaped, that follows the notebook's own colours."""
    head = element("tr", *[element("th", name, style=_CELL + ";font-weight:600") for name in columns])
    body = [element("tr", *[_cell(value) for value in row]) for row in rows]
    return element("table", element("thead", head), element("tbody", *body), style=_STYLE)


def block(title: str, *children: Child) -> Markup:
    """A titled part of a result."""
    return element("div", element("div", title, style="font-weight:600;font-size:1.1em"), *children)


def facts(rows: Sequence[tuple[str, object]]) -> Markup:
    """Label and value, one pair a line."""
    lines = [
        element(
            "tr", element("td", label, style=_CELL + ";opacity:.7"), element("td", wording.value(value), style=_CELL)
        )
        for label, value in rows
        if value not in (None, "", (), [])
    ]
    return element("table", element("tbody", *lines), style=_STYLE)


def _cell(value: object) -> Markup:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    text = value if isinstance(value, Markup) else wording.value(value)
    return element("td", text, style=_NUMBER if numeric else _CELL)
