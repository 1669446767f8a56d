"""Rows from CSV text: a header line, then one line per row; an empty cell is null."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

from cumulant.core.errors import RequestError
from cumulant.serving.models.graph_model import GraphModel
from cumulant.serving.models.model import Model
from cumulant.serving.models.request_work import check_count
from cumulant.serving.models.row_model import RowModel

Read = Callable[[str], object]

_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def read_csv_rows(text: str, model: Model) -> list[object]:
    """The rows in `text`, with cells in the types that the model's fields have.

    A cell that cannot be read as its field's type stays text, which the model's own check then refuses by name.

    Raises:
        HttpError: 413 for more rows than one request may bring, before they are all read.
        RequestError: no line of names, a name twice, a row of another length, or quotes that do not end.
    """
    lines = _lines(text)
    if not lines:
        raise RequestError("the CSV has no line of names", hint="the first line must name the columns")
    names = lines[0]
    if (twice := first_repeated(names)) is not None:
        raise RequestError(f'the CSV names the column "{twice[:100]}" twice', subject=twice[:100])
    readers = [_reader(name, model) for name in names]
    return [_row(number, line, names, readers) for number, line in enumerate(lines[1:], 1)]


def first_repeated(names: Sequence[str]) -> str | None:
    """First name that occurs twice in `names`; None where there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _lines(text: str) -> list[list[str]]:
    lines: list[list[str]] = []
    try:
        for line in csv.reader(io.StringIO(text, newline=""), strict=True):
            if line:
                check_count(len(lines))  # the line of names is no row
                lines.append(line)
    except csv.Error as error:
        raise RequestError(f"the body is no valid CSV: {error}") from None
    return lines


def _row(number: int, line: Sequence[str], names: Sequence[str], readers: Sequence[Read]) -> dict[str, object]:
    if len(line) != len(names):
        raise RequestError(f"row {number} of the CSV has {len(line)} cells, the line of names {len(names)}")
    cells = zip(names, line, readers, strict=True)
    return {name: None if cell == "" else read(cell) for name, cell, read in cells}


def _reader(name: str, model: Model) -> Read:
    kind = "number"
    if isinstance(model, RowModel):
        field = model.schema.fields.get(name)
        kind = field.dtype if field else "str"
    elif isinstance(model, GraphModel) and not model.servable.columns:
        datatype = str(model.inputs[name]["datatype"]) if name in model.inputs else ""
        kind = {"BYTES": "str", "BOOL": "bool"}.get(datatype, "number")
    return _READERS.get(kind, _same)


def _number(cell: str) -> object:
    if "_" in cell:  # Python reads 1_000 as a number, nobody else does
        return cell
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        return float(cell)
    except ValueError:
        return cell


def _same(cell: str) -> object:
    return cell


_READERS: Mapping[str, Read] = {
    "int": _number,
    "float": _number,
    "number": _number,
    "bool": lambda cell: _TRUTH.get(cell, cell),
}
