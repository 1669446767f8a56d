"""Text for terminals: cleaned values, tables, pairs of label and value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cumulant.flows.reports import wording

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: characters of the longest id or name in a first column that is never folded
_ID = 32
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(value: object) -> str:
    """`value` as text without characters that steer a terminal (names and data come from outside)."""
    return _CONTROL.sub("\ufffd", "" if value is None else str(value))


def cell(value: object) -> str:
    """A value in a table: short numbers, times in UTC, a dash for nothing."""
    return clean(wording.value(value))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, right: Sequence[str] = ()
) -> Table:
    """A light table: no box but a rule under the heads, numbers to the right, long cells wrapped."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    built = RichTable(
        box=box.SIMPLE_HEAD, title=title and Text(clean(title), style="bold"), title_justify="left", pad_edge=False
    )
    body = [list(row) for row in rows]
    for index, name in enumerate(columns):
        numeric = name in right or _all_numbers(row[index] for row in body)
        # What a row is about, an id or a name, is copied from here: narrow terminals fold the other columns.
        named = index == 0 and all(len(cell(row[0])) <= _ID for row in body)
        built.add_column(Text(name), justify="right" if numeric else "left", overflow="fold", no_wrap=named)
    for row in body:
        built.add_row(*[value if isinstance(value, Text) else Text(cell(value)) for value in row])
    return built


def pairs(console: Console, rows: Iterable[tuple[str, object]]) -> None:
    """Label and value, one pair a line."""
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(Text(label), value if isinstance(value, Text) else Text(cell(value)))
    console.print(grid)


def heading(console: Console, text: str, note: str = "") -> None:
    """A bold line, and what it is about."""
    from rich.text import Text

    console.print(Text.assemble((clean(text), "bold"), ("  " + clean(note) if note else "", "dim")))


def warn(console: Console, texts: Iterable[str]) -> None:
    """One line each for what a person should not overlook."""
    from rich.text import Text

    for text in texts:
        console.print(Text.assemble(("warning: ", "bold yellow"), clean(text)), soft_wrap=True)


def _all_numbers(values: Iterable[object]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)
