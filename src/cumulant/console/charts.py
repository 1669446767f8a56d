"""Charts of pages: a drawing with its numbers, as a table on the page and as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from starlette.responses import Response

from cumulant.flows.reports.svg_elements import Drawing

#: signs with which a spreadsheet begins a formula
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Cell = str | float | int | None


class Chart(NamedTuple):
    """A drawing and the numbers that it shows. `heads`: name and style of each column; `csv`: the path of the file."""

    title: str
    drawing: Drawing
    heads: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    csv: str = ""
    note: str = ""
    legend: Sequence[tuple[str, str]] = ()

    @property
    def wide(self) -> bool:
        """Whether it takes a whole line of the page."""
        return self.drawing.width > 2 * self.drawing.height


def numbered(*names: str) -> list[tuple[str, str]]:
    """Heads of columns: the first names the row, the others are numbers."""
    return [(name, "num" if place else "") for place, name in enumerate(names)]


def csv_response(name: str, heads: Iterable[str], rows: Iterable[Sequence[Cell]], headers: dict[str, str]) -> Response:
    """A CSV file to save. A text that a spreadsheet would take as a formula has an apostrophe before it."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([_cell(head) for head in heads])
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    safe = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_.") else "-" for sign in name)[:100]
    disposition = {"content-disposition": f'attachment; filename="{safe}.csv"'}
    return Response(buffer.getvalue(), headers=headers | disposition, media_type="text/csv; charset=utf-8")


def _cell(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
