"""Digits that may be identifiers: text with leading zeros, and quoted values beside unquoted fields."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import polars as pl

#: a number with a leading zero; 0 and 0.5 have none
PADDED = r"^[+-]?0[0-9]"
_HEAD = 1 << 16


def may_be_padded(content: bytes, separator: str) -> bool:
    """Whether a field of a CSV text begins with a leading zero; also where one within quotes only looks so."""
    return re.search(rb'(?:^|[\n\r"' + re.escape(separator).encode() + rb"])[+-]?0[0-9]", content) is not None


def padded_columns(texts: pl.DataFrame) -> list[pl.Series]:
    """The columns with a leading zero, of columns of numbers as they were written."""
    return [text for text in texts if text.str.contains(PADDED).any()]


def quoted_columns(content: bytes, names: Sequence[str], numbers: Collection[str], separator: str) -> frozenset[str]:
    """The columns of a CSV text whose digits are all in quotes, beside numbers without quotes; by the first 64 KiB.

    `names`: its columns; `numbers`: those that the engine reads as numbers. Quoted fractions are numbers, unless two
    texts are one number, as the versions 1.1 and 1.10.
    """
    if b'"' not in content:
        return frozenset()
    records = _raw_records(content[:_HEAD].decode("utf-8-sig", errors="replace"), separator)
    records = records[1 : None if len(content) <= _HEAD else -1]
    whole = [record for record in records if len(record) == len(names)]
    columns = dict(zip(names, zip(*whole, strict=True), strict=False))
    digits = {
        name: {field.startswith('"') for field in fields if any(sign.isdigit() for sign in field)}
        for name, fields in columns.items()
    }
    if not any(False in quoted and name in numbers for name, quoted in digits.items()):
        return frozenset()
    within = [name for name, quoted in digits.items() if quoted == {True}]
    return frozenset(name for name in within if not _are_fractions(columns[name]))


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


def mark_merging(text: pl.Expr, number: pl.Expr) -> pl.Expr:
    """Marks texts with a leading zero that are read as the number of another text of the column."""
    return (text.str.contains(PADDED) & number.is_not_null() & (text.n_unique().over(number) > 1)).fill_null(
        value=False
    )


def padded_width(text: pl.Series) -> int | None:
    """The digits of the longest text with leading zeros; None where there is none."""
    width = text.filter(text.str.contains(PADDED)).str.count_matches("[0-9]").max()
    return width if isinstance(width, int) else None
