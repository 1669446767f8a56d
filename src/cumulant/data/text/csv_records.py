"""The records of CSV text, counted apart from the engine, which pads records with too few fields by nulls.

A record ends at a line end outside quotes. A blank line is no record of a table of several columns.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from cumulant.data.row_columns import ROW

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: of a malformed record: the line in which it begins (from 1), and the text of a line that has no columns
LINE, TEXT = "__line", "__text"
_QUOTE, _LINE_END, _RETURN = ord('"'), ord("\n"), ord("\r")


@dataclass(frozen=True)
class MalformedRecords:
    """The text without blank lines and records of another number of fields, and these as text.

    `rows`: `__row` and `__line` (Int64) and the header's columns, null where there is no field.
    """

    content: bytes
    rows: pl.DataFrame


def count_records(text: bytes) -> int:
    """The lines of a CSV text that end outside quotes."""
    return len(record_ends(text, quoted=True))


def record_ends(text: bytes, *, quoted: bool) -> NDArray[np.int64]:
    """Where records end: line feeds after an even number of quotes."""
    import numpy as np

    signs = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(signs == _LINE_END)
    if not quoted:
        return ends
    quotes = np.flatnonzero(signs == _QUOTE)
    return ends[np.searchsorted(quotes, ends) % 2 == 0] if len(quotes) else ends


def open_quote(content: bytes, separator: str) -> int | None:
    """The line in which the record begins whose last quoted field does not end; None where each ends."""
    if content.count(b'"') % 2 == 0:
        return None
    # A quote inside a field that does not begin with one is a plain sign, so each field is checked.
    lines = csv.reader(
        io.StringIO(content.decode("utf-8-sig", errors="replace"), newline=""), delimiter=separator, strict=True
    )
    begun = 1
    try:
        for _ in lines:
            begun = lines.line_num + 1
    except csv.Error as error:
        open_ended = ("unexpected end of data", "field larger than")  # a whole file of one field is too large for it
        return begun if str(error).startswith(open_ended) else None
    return None


def malformed_records(content: bytes, separator: str, names: list[str], *, records: int) -> MalformedRecords | None:
    """The records with fewer or more fields than `names`, apart from the text.

    None where there is none, or the engine counted other than `records` records.
    """
    import numpy as np

    if not separator.isascii():
        return None
    data = np.frombuffer(content, np.uint8)
    quotes = np.flatnonzero(data == _QUOTE)  # a doubled quote ends a quoted span and begins the next
    starts, ends = _bounds(data, quotes)
    fields = 1 + _separators(np.flatnonzero(data == ord(separator)), ends, quotes)
    length = ends - starts
    blank = (length == 0) | ((length == 1) & (data[np.minimum(starts, data.size - 1)] == _RETURN))
    first = int(np.argmin(blank))  # the header; blank lines before it are skipped
    if starts.size - first - 1 != records:
        return None
    wrong = (fields != len(names)) | blank
    wrong[: first + 1] = False
    if not wrong.any():
        return None
    malformed = np.flatnonzero(wrong & ~blank)
    position = np.cumsum(~blank)[malformed] - 2  # without the header, from 0
    begin = np.searchsorted(np.flatnonzero(data == _LINE_END), starts[malformed]) + 1
    lines = [_line(content, starts, index) for index in malformed.tolist()]
    rows = _texts(lines, separator, names, position, begin)
    return MalformedRecords(_lines(content, starts, np.flatnonzero(~wrong)), rows)


def _bounds(data: NDArray[np.uint8], quotes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First byte of each record, and its line end: one with an even number of quotes before it."""
    import numpy as np

    ends = np.flatnonzero(data == _LINE_END)
    if quotes.size:
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
    if not ends.size or ends[-1] != data.size - 1:
        ends = np.append(ends, data.size)
    return np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1]), ends


def _separators(signs: NDArray[np.int64], ends: NDArray[np.int64], quotes: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many separators each record has outside quotes."""
    import numpy as np

    if quotes.size:
        signs = signs[np.searchsorted(quotes, signs) % 2 == 0]
    return np.diff(np.searchsorted(signs, ends), prepend=0)


def _line(content: bytes, starts: NDArray[np.int64], index: int) -> bytes:
    end = int(starts[index + 1]) if index + 1 < starts.size else len(content)
    return content[int(starts[index]) : end]


def _lines(content: bytes, starts: NDArray[np.int64], chosen: NDArray[np.int64]) -> bytes:
    """The chosen records, joined; neighbours are copied together."""
    import numpy as np

    breaks = np.flatnonzero(np.diff(chosen) > 1) + 1
    bounds = np.append(starts, len(content))
    runs = np.split(chosen, breaks)
    return b"".join(content[int(bounds[run[0]]) : int(bounds[run[-1] + 1])] for run in runs)


def _texts(
    lines: list[bytes], separator: str, names: list[str], position: NDArray[np.int64], begin: NDArray[np.int64]
) -> pl.DataFrame:
    rows = []
    for line, place, first in zip(lines, position.tolist(), begin.tolist(), strict=True):
        text = io.StringIO(line.decode("utf-8", errors="replace"), newline="")
        fields = [field or None for field in next(csv.reader(text, delimiter=separator), [])][: len(names)]
        rows.append([place, first, *fields, *[None] * (len(names) - len(fields))])
    schema = {ROW: pl.Int64(), LINE: pl.Int64(), **dict.fromkeys(names, pl.String())}
    return pl.DataFrame(rows, schema=schema, orient="row")
