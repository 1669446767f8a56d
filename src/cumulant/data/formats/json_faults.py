"""JSON lines that are set aside, each with the rule that refuses it: which they are, and the text without them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
import polars as pl

from cumulant.data.row_columns import ROW, RULE
from cumulant.data.text.csv_records import LINE, TEXT

#: the rule that a line breaks which is not one JSON object
NOT_JSON = "row:json"
_SHOWN = 1000
#: what a line may consist of that is no row
BLANK = b" \t\r\n"
_NO_OBJECT = re.compile(rb"^[ \t\r]*+[^{ \t\r\n]", re.MULTILINE)


class RemainingLines(NamedTuple):
    """The lines with blank ones in place of those refused, and these: `__rule`, `__row`, `__line`, `__text`.

    `rows`: the positions of the remaining lines, where some are refused.
    """

    content: bytes
    refused: pl.DataFrame | None = None
    rows: pl.Series | None = None


def set_aside(content: bytes, faults: Mapping[int, str], *, first_row: int = 0, first_line: int = 0) -> RemainingLines:
    """A text without the lines `faults` (number from 0 to rule); it begins in that row and line of its file."""
    if not faults:
        return RemainingLines(content)
    refused, rows = [], []
    row = first_row
    lines = content.split(b"\n")
    for number, line in enumerate(lines):
        if number in faults:
            text = line[:_SHOWN].decode("utf-8", errors="replace")
            refused.append((faults[number], row, first_line + number + 1, text))
            lines[number] = b""
        elif line.strip(BLANK):
            rows.append(row)
        else:
            continue
        row += 1
    schema = {RULE: pl.String, ROW: pl.Int64, LINE: pl.Int64, TEXT: pl.String}
    frame = pl.DataFrame(refused, schema=schema, orient="row")
    return RemainingLines(b"\n".join(lines), frame, pl.Series(rows, dtype=pl.Int64))


def types_of(lines: bytes) -> pl.Schema:
    """The types that the engine infers for the fields of lines.

    Raises:
        polars.SchemaError: a field holds values that have no common type, or a line is a list or true.
        polars.ComputeError: a line is no JSON object, or there is none.
    """
    return pl.scan_ndjson(io.BytesIO(lines), infer_schema_length=None).collect_schema()


def has_other_values(lines: bytes) -> bool:
    """Whether a line begins with something else than an object: the engine infers types from some, and fails later."""
    begun = lines.count(b"\n{") + lines.startswith(b"{")
    ended = lines.count(b"\n") + (not lines.endswith(b"\n"))
    return begun < ended and _NO_OBJECT.search(lines) is not None


def find_non_objects(content: bytes) -> list[int]:
    """The numbers (from 0) of the lines that the engine does not read as JSON objects."""
    decoder = msgspec.json.Decoder(dict)
    refused, parsed = [], []
    for number, line in enumerate(content.split(b"\n")):
        if not line.strip(BLANK):
            continue
        try:
            decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            if b"\\u" not in line or not _can_be_read([line]):
                refused.append(number)
                continue
        parsed.append((number, line))
    refused += _unreadable_lines(parsed)
    return sorted(refused)


def _unreadable_lines(lines: list[tuple[int, bytes]]) -> Iterator[int]:
    """The numbers of the lines at which the engine stops."""
    if not lines or _can_be_read([line for _, line in lines]):
        return
    if len(lines) == 1:
        yield lines[0][0]
        return
    middle = len(lines) // 2
    yield from _unreadable_lines(lines[:middle])
    yield from _unreadable_lines(lines[middle:])


def _can_be_read(lines: list[bytes]) -> bool:
    """Whether each line is an object to the engine. Types that differ are no fault of a line."""
    try:
        types_of(b"\n".join(lines))
    except pl.exceptions.SchemaError:
        return True
    except pl.exceptions.PolarsError:
        return False
    return True
