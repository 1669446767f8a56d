"""Results that show themselves: in a notebook as HTML, in a console as text, in code as the flow's own value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import msgspec

from cumulant.flows.reports import rendering, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.reports.content import GateReport

Value = TypeVar("Value")
Item = TypeVar("Item")
WIDTH = 100


class ResultPage(msgspec.Struct, frozen=True, kw_only=True):
    """A result in a notebook, as its parts from top to bottom; those that it lacks are not shown."""

    title: str | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    gate: GateReport | None = None
    #: label and value, one pair a line
    facts: Sequence[tuple[str, object]] | None = None
    code: str | None = None

    def render(self) -> str:
        """The result as escaped HTML."""
        return rendering.render("notebook/result.html.jinja", self)


class ResultView(Generic[Value]):
    """A result of a flow with its texts. Attributes are those of `.value`."""

    def __init__(self, value: Value, *, text: Callable[[Console], None], html: Callable[[], str]) -> None:
        self.value = value
        self._text = text
        self._html = html

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "value":
            raise AttributeError(name)
        return getattr(self.value, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in dir(self.value) if not name.startswith("_"))})

    def __repr__(self) -> str:
        return as_text(self._text)

    def _repr_html_(self) -> str:
        return self._html()


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
        return ResultPage(columns=self._columns, rows=self._cells()).render()

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


def drop_empty(rows: Sequence[tuple[str, object]]) -> list[tuple[str, object]]:
    """The rows whose value is not empty."""
    return [(label, value) for label, value in rows if value not in (None, "", (), [])]
