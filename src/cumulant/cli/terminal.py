"""Text for people: cleaned values, tables, figures in the form that reads best."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(value: object) -> str:
    """`value` as text without characters that steer a terminal (names and data come from outside)."""
    return _CONTROL.sub("\ufffd", "" if value is None else str(value))


def cell(value: object) -> str:
    """A value in a table: short numbers, local words for truth, a dash for nothing."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, timedelta):
        return seconds(value.total_seconds())
    if isinstance(value, list | tuple | frozenset | set):
        return ", ".join(cell(part) for part in value) or "–"
    return clean(value)


def figure(value: float, digits: int = 4) -> str:
    """A measured number: four significant digits, no exponent between a thousandth and a billion."""
    if value != value:  # noqa: PLR0124 - NaN
        return "–"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-3 else f"{value:.2e}"


def percent(share: float) -> str:
    """A share of one as a percentage that never rounds something to nothing."""
    value = 100 * share
    if 0 < value < 0.01:
        return "< 0.01%"
    return f"{value:.2f}%" if value < 10 else f"{value:.1f}%"


def size(count: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def seconds(value: float) -> str:
    """A duration as a person says it."""
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def moment(when: datetime) -> str:
    """A time in UTC, to the second."""
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.strftime("%Y-%m-%d %H:%M:%SZ")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, right: Sequence[str] = ()
) -> Table:
    """A light table: no box but a rule under the heads, numbers to the right, long cells wrapped."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    found = RichTable(
        box=box.SIMPLE_HEAD, title=title and Text(clean(title), style="bold"), title_justify="left", pad_edge=False
    )
    body = [list(row) for row in rows]
    for index, name in enumerate(columns):
        numeric = name in right or _all_numbers(row[index] for row in body)
        found.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in body:
        found.add_row(*[value if isinstance(value, Text) else Text(cell(value)) for value in row])
    return found


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


def _all_numbers(values: Iterable[object]) -> bool:
    found = [value for value in values if value is not None]
    return bool(found) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)
