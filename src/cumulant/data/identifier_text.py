"""Digits that may be identifiers: text with leading zeros, and values in quotes where other fields have none.

As numbers `00123`, `0123` and `123` are one value, so such text is not taken for numbers by itself. Where a number is
declared, a row whose text is another one's number is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: a number with a leading zero; 0 and 0.5 have none
PADDED = r"^[+-]?0[0-9]"
_HEAD = 1 << 16
_ZERO = ord("0")
_SIGNS, _BOUNDS = (ord("+"), ord("-")), (ord("\n"), ord("\r"), ord('"'))


def padded_columns(
    content: bytes, frame: pl.DataFrame, separator: str, texts_of: Callable[[Sequence[str]], pl.DataFrame]
) -> pl.DataFrame:
    """The columns of numbers of a CSV text with a leading zero, as text, which `texts_of` reads.

    Where each record of `content` has as many fields as `frame` has columns, only columns that may have one are read.
    """
    numbers = [name for name, dtype in frame.schema.items() if dtype.is_numeric()]
    if not numbers or not separator.isascii():
        return pl.DataFrame()
    begins = _padded_fields(content, separator)
    possible = _columns_at(begins, content, frame, separator) if begins.size else set()
    numbers = [name for name in numbers if name in possible]
    texts = texts_of(numbers) if numbers else pl.DataFrame()
    return texts.select(text for text in texts if text.str.contains(PADDED).any())


def _padded_fields(content: bytes, separator: str) -> NDArray[np.int64]:
    """Where fields begin that have a leading zero, and perhaps a sign."""
    import numpy as np

    data = np.frombuffer(content, np.uint8)
    if data.size < 3:
        return np.empty(0, np.int64)
    begins = np.flatnonzero((data[1:-1] == _ZERO) & (data[2:] - np.uint8(_ZERO) < 10)) + 1
    begins = begins - np.isin(data[begins - 1], _SIGNS)
    before = data[np.maximum(begins - 1, 0)]
    return begins[np.isin(before, [ord(separator), *_BOUNDS]) & (begins > 0)]


def _columns_at(begins: NDArray[np.int64], content: bytes, frame: pl.DataFrame, separator: str) -> set[str]:
    """The columns whose fields begin there, or hold what looks like a begin in quotes."""
    import numpy as np

    data, between = np.frombuffer(content, np.uint8), frame.width - 1
    separators, quotes = (np.flatnonzero(data == ord(sign)) for sign in (separator, '"'))
    if quotes.size:
        separators = separators[np.searchsorted(quotes, separators) % 2 == 0]
    if not between or separators.size != (frame.height + 1) * between:  # records of other numbers of fields
        return set(frame.columns)
    place = np.searchsorted(separators, begins) % between
    before = begins - 1 - (data[begins - 1] == _BOUNDS[-1])
    last = (place == 0) & (data[np.maximum(before, 0)] == ord(separator))
    return {frame.columns[index] for index in np.unique(np.where(last, between, place)).tolist()}


def quoted_columns(content: bytes, frame: pl.DataFrame, separator: str) -> frozenset[str]:
    """The columns whose digits are all in quotes, in a CSV text with numbers without quotes in other columns.

    The first 64 KiB are looked at. Of a text with quotes around all values nothing is known: empty. Fractions are
    numbers, unless two texts are one number, as 1.1 and 1.10 of versions.
    """
    if b'"' not in content:
        return frozenset()
    records = _raw_records(content[:_HEAD].decode("utf-8-sig", errors="replace"), separator)
    records = records[1 : None if len(content) <= _HEAD else -1]
    whole = [record for record in records if len(record) == frame.width]
    columns = dict(zip(frame.columns, zip(*whole, strict=True), strict=False))
    digits = {
        name: {field.startswith('"') for field in fields if any(sign.isdigit() for sign in field)}
        for name, fields in columns.items()
    }
    if not any(False in quoted and frame.schema[name].is_numeric() for name, quoted in digits.items()):
        return frozenset()
    names = [name for name, quoted in digits.items() if quoted == {True}]
    return frozenset(name for name in names if not _are_fractions(columns[name]))


def _are_fractions(fields: Sequence[str]) -> bool:
    """Whether quoted texts are numbers with decimals, each number written in one way."""
    texts = {text for field in fields if (text := field.strip('"').strip())}
    try:
        return any("." in text for text in texts) and len({float(text) for text in texts}) == len(texts)
    except ValueError:
        return False


def _raw_records(text: str, separator: str) -> list[list[str]]:
    """The records with the quotes of their fields; blank lines are none."""
    sign = re.escape(separator)
    field = re.compile(rf'("(?:[^"]|"")*"|[^{sign}\r\n]*)[^{sign}\r\n]*({sign}|\r?\n|\Z)')
    records: list[list[str]] = []
    record: list[str] = []
    for match in field.finditer(text):
        record.append(match[1])
        if match[2] != separator:
            if record != [""]:
                records.append(record)
            record = []
    return records


def merging(text: pl.Expr, number: pl.Expr) -> pl.Expr:
    """Marks texts with a leading zero that are read as the number of another text of the column."""
    return (text.str.contains(PADDED) & number.is_not_null() & (text.n_unique().over(number) > 1)).fill_null(
        value=False
    )


def padded_width(text: pl.Series) -> int | None:
    """The digits of the longest text with leading zeros; None where there is none."""
    width = text.filter(text.str.contains(PADDED)).str.count_matches("[0-9]").max()
    return width if isinstance(width, int) else None
