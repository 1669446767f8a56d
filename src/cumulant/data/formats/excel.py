"""A sheet of an Excel workbook (.xlsx) as a table: the first row with a value is the header, blank rows are skipped.

Hidden rows and columns are read, with a note. Numbers in a format of zeros alone (`00000`) are text. Rows with an error
(`#N/A`), or a formula without a stored value, are refused under the rule `COLUMN:cell`.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, time, timedelta
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import polars as pl

from cumulant.core.errors import DataError, did_you_mean, join_names, missing_part
from cumulant.core.system.memory import memory_limit
from cumulant.data.formats.nested_paths import refused_rows, series_of
from cumulant.data.formats.parquet_memory import refuse_above
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_text import FileTable

#: bytes that a workbook may have unpacked, and bytes of memory that a cell of the table takes
_MOST_XML, _CELL = 512 << 20, 8
_OLE = b"\xd0\xcf\x11\xe0"
_ZEROS = re.compile(r"0{2,}")
_NOT_STORED = "formula without a stored value"
_TRUE = ("1", "true")


class _Cell(NamedTuple):
    value: Any
    #: why there is no value: an error of Excel, or that none is stored
    fault: str | None = None


class _Cells(NamedTuple):
    """Cells with a value by row and column, from 1; ranges of merged cells; and the columns that are hidden."""

    rows: dict[int, dict[int, _Cell]]
    merged: list[Any]
    hidden_rows: list[int]
    hidden_columns: list[int]


def read_excel(path: Path, url: str, spec: SourceSpec) -> FileTable:
    """The rows of the declared sheet, or of the only visible one.

    Raises:
        DataError: it is damaged, takes too much memory, has several sheets and none is declared, or its header or
            merged cells are ambiguous.
        MissingPartError: openpyxl is not installed.
    """
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "openpyxl", "excel") from None
    with _workbook_errors(url):
        _refuse_packed(path, url)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        try:
            sheet = _sheet(book, url, spec.sheet)
            cells = _cells(book, sheet, url, memory_limit(spec.memory_bytes))
        finally:
            book.close()
    table = _table(cells.rows, cells.merged, url, frozenset(spec.missing))
    return table._replace(notes=_hidden_note(cells))


@contextmanager
def _workbook_errors(url: str) -> Iterator[None]:
    """What openpyxl and the standard library raise for damaged workbooks, as DataErrors."""
    try:
        yield
    except DataError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        IndexError,
        ValueError,
        TypeError,
        AttributeError,
        SyntaxError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(
            f"{url} is not a whole Excel workbook: damaged or cut off", subject=url, hint="copy or save it again"
        ) from error


def _refuse_packed(path: Path, url: str) -> None:
    with path.open("rb") as stream:
        if stream.read(len(_OLE)) == _OLE:
            raise DataError(
                f"{url} is encrypted or an old workbook (.xls)", subject=url, hint="save it as .xlsx without a password"
            )
    if unpacked_bytes(path) > _MOST_XML:
        raise DataError(
            f"{url} expands to more than {_MOST_XML >> 20} MiB", subject=url, hint="save its sheet as CSV or Parquet"
        )


def unpacked_bytes(path: Path) -> int:
    """The bytes of a workbook's XML. Raises zipfile.BadZipFile: it is no workbook."""
    with zipfile.ZipFile(path) as packed:
        return sum(info.file_size for info in packed.infolist())


def _sheet(book: Any, url: str, declared: str | None) -> Any:
    names = [sheet.title for sheet in book.worksheets]
    if declared is not None:
        if declared not in names:
            near = did_you_mean(declared, names) or f"sheets: {', '.join(names)}"
            raise DataError(f'{url} has no sheet "{declared}"', subject=declared, hint=near)
        return book[declared]
    visible = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    if len(visible) != 1:
        example = (visible[0].title if visible else names[0]) if names else "NAME"
        shown = ", ".join(sheet.title for sheet in visible) or "none that is visible"
        raise DataError(
            f"{url} has {len(visible)} sheets: {shown}",
            subject=url,
            hint=f"name one: `sheet: {example}` under the source, or `--sheet {quote(example)}` of the command",
        )
    return visible[0]


def _cells(book: Any, sheet: Any, url: str, most: int) -> _Cells:
    from openpyxl.worksheet._reader import FORMULA_TAG, VALUE_TAG, WorkSheetParser

    class Parser(WorkSheetParser):  # type: ignore[misc, unused-ignore]
        """Also marks formulas whose value is not stored."""

        def parse_cell(self, element: Any) -> Any:
            cell = super().parse_cell(element)
            if cell["value"] is None and element.find(FORMULA_TAG) is not None:
                value = element.find(VALUE_TAG)
                if value is None or value.text is None:
                    cell["data_type"] = "missing"
            return cell

    rows: dict[int, dict[int, _Cell]] = {}
    needed, read = 0, _reader(book)
    with book._archive.open(sheet._worksheet_path) as source:  # noqa: SLF001 - as its own read-only sheets do
        parser = Parser(
            source,
            sheet._shared_strings,  # noqa: SLF001
            data_only=True,
            epoch=book.epoch,
            date_formats=book._date_formats,  # noqa: SLF001
            timedelta_formats=book._timedelta_formats,  # noqa: SLF001
        )
        for number, cells in parser.parse():
            cells_of_row = {cell["column"]: value for cell in cells if (value := read(cell)) is not None}
            if cells_of_row:
                rows[number] = cells_of_row
            needed += sum(
                _CELL + (len(cell.value) if isinstance(cell.value, str) else 0) for cell in cells_of_row.values()
            )
            refuse_above(needed, most, url)
        merged = [] if parser.merged_cells is None else [cell.ref for cell in parser.merged_cells.mergeCell]
    return _Cells(rows, merged, *_hidden_places(parser, rows))


def _hidden_places(parser: Any, rows: dict[int, dict[int, _Cell]]) -> tuple[list[int], list[int]]:
    """Rows and columns with values that Excel does not show."""
    shut = [number for number in rows if parser.row_dimensions.get(str(number), {}).get("hidden") in _TRUE]
    spans = [
        range(int(column["min"]), int(column.get("max", column["min"])) + 1)
        for column in parser.column_dimensions.values()
        if column.get("hidden") in _TRUE
    ]
    columns = sorted({column for cells in rows.values() for column in cells})
    return shut, [column for column in columns if any(column in span for span in spans)]


def _hidden_note(cells: _Cells) -> tuple[str, ...]:
    """That what is hidden is read too."""
    from openpyxl.utils import get_column_letter

    counts = []
    if cells.hidden_rows:
        count = len(cells.hidden_rows)
        counts.append(f"{count:,} {'row' if count == 1 else 'rows'} (the first is {cells.hidden_rows[0]:,})")
    if cells.hidden_columns:
        letters = [get_column_letter(column) for column in cells.hidden_columns]
        counts.append(f"{'column' if len(letters) == 1 else 'columns'} {join_names(letters)}")
    if not counts:
        return ()
    return (f"{' and '.join(counts)} of its sheet are hidden, and are read as all others; delete them if not needed",)


def _reader(book: Any) -> Callable[[Mapping[str, Any]], _Cell | None]:
    """What turns a cell as openpyxl parses it into one of the table; None for an empty one."""
    from openpyxl.styles.numbers import BUILTIN_FORMATS, BUILTIN_FORMATS_MAX_SIZE

    widths: dict[int, int] = {}

    def width(style: int) -> int:
        if style not in widths:
            number = book._cell_styles[style].numFmtId  # noqa: SLF001 - read-only cells look there too
            own = number >= BUILTIN_FORMATS_MAX_SIZE
            form = book._number_formats[number - BUILTIN_FORMATS_MAX_SIZE] if own else BUILTIN_FORMATS.get(number)  # noqa: SLF001
            widths[style] = len(form) if _ZEROS.fullmatch(form or "") else 0
        return widths[style]

    def read(cell: Mapping[str, Any]) -> _Cell | None:
        value, kind = cell["value"], cell["data_type"]
        if kind == "missing":
            return _Cell(None, _NOT_STORED)
        if kind == "e":
            return _Cell(None, str(value))
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if type(value) is int and (digits := width(cell["style_id"])):
            return _Cell(f"{value:0{digits}d}")
        return _Cell(value)

    return read


def _table(rows: dict[int, dict[int, _Cell]], merged: list[Any], url: str, missing: frozenset[str]) -> FileTable:
    if not rows:
        raise DataError(
            f"{url} has no columns", subject=url, hint="its sheet is empty: name another, or remove the file"
        )
    numbers = sorted(rows)
    header = _header(rows, numbers, url)
    _refuse_merged(merged, numbers, header, url)
    columns: dict[str, list[Any]] = {name: [] for name in header.values()}
    refused: dict[int, tuple[str, Any]] = {}
    for position, number in enumerate(numbers[1:]):
        for column, name in header.items():
            cell = rows[number].get(column, _Cell(None))
            fault = None if cell.fault in missing else cell.fault
            if fault is not None:
                refused.setdefault(position, (name, fault))
            columns[name].append(None if isinstance(cell.value, str) and cell.value.strip() in missing else cell.value)
    frame = pl.DataFrame([_series(name, values) for name, values in columns.items()])
    if not refused:
        return FileTable(frame)
    fitting = [position for position in range(frame.height) if position not in refused]
    if not fitting:
        raise DataError(
            f"{url}: each of its {frame.height:,} rows has an error, or a formula without a stored value",
            subject=url,
            hint="open it in Excel, let it compute, and save it again",
        )
    return FileTable(frame[fitting], refused=refused_rows(frame, refused, "cell"))


def _header(rows: dict[int, dict[int, _Cell]], numbers: list[int], url: str) -> dict[int, str]:
    """Column number to name."""
    from openpyxl.utils import get_column_letter

    first = rows[numbers[0]]
    header = {column: str(cell.value) for column, cell in sorted(first.items()) if cell.value is not None}
    nameless = sorted({column for number in numbers for column in rows[number]} - header.keys())
    if nameless:
        place = get_column_letter(nameless[0])
        raise DataError(
            f"{url}: column {place} has values and no name in row {numbers[0]}, the header",
            subject=url,
            hint="name each column in the first row of the sheet, and delete titles above and remarks beside the table",
        )
    names = list(header.values())
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"{url} has two columns named {', '.join(repeated)}", subject=url, hint="give each column its own name"
        )
    return header


def _refuse_merged(merged: list[str], numbers: list[int], header: Mapping[int, str], url: str) -> None:
    from openpyxl.utils import range_boundaries

    for place in merged:
        first_column, first_row, last_column, last_row = range_boundaries(place)
        if (
            last_row >= numbers[0]
            and first_row <= numbers[-1]
            and last_column >= min(header)
            and first_column <= max(header)
        ):
            raise DataError(
                f"{url} has merged cells, {place}: only the first of them holds a value",
                subject=url,
                hint="unmerge them, and give each column its name and each row its values",
            )


def _series(name: str, values: list[Any]) -> pl.Series:
    """Times and days as such, and all else as values of JSON are: of several types as text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {datetime}:
        column = pl.Series(name, values, pl.Datetime("us"))
        return column.dt.date() if all(value is None or value.time() == time.min for value in values) else column
    if kinds == {timedelta}:
        return pl.Series(name, values, pl.Duration("us"))
    texts = (datetime, time, timedelta)
    return series_of(name, [str(value) if isinstance(value, texts) else value for value in values])
