"""Types of the columns of a CSV text, from the texts of all rows.

They are those that Polars infers from a whole file, which takes it ten times as long as to read the file as text.
"""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from cumulant.data.text.identifier_text import PADDED

_TRUTH = r"^(?i:true|false)$"
_WHOLE = r"^-?\d+$"
_FRACTION = r"^[-+]?(?:\d*\.\d+(?:[eE][-+]?\d+)?|inf|NaN|\d+[eE][-+]?\d+|\d+\.)$"
#: rows in which most columns of text are recognized
_SAMPLE = 64


def assign_types(rows: pl.DataFrame, texts: Collection[str]) -> frozenset[str] | None:
    """Assign types in place to the columns of `rows`, which are texts; those of `texts`, and numbers with leading
    zeros, stay text. Returns the columns of numbers with these; None where only the engine can infer a type.
    """
    numbers = set()
    for index, name in enumerate(rows.columns):
        if name in texts:
            continue
        text = rows.to_series(index)  # by its place: each replacement makes the engine forget the places of names
        values = _values(text)
        if values is None:
            return None
        if values.dtype.is_numeric():
            numbers.add(name)
            if text.str.contains(PADDED).any():
                continue
        rows.replace_column(index, values)  # one after the other, for the texts take more memory than the numbers
    return frozenset(numbers)


def _values(text: pl.Series) -> pl.Series | None:
    """A column under its type. A column of nulls is one of text."""
    if _is_text(text.head(_SAMPLE)) or text.null_count() == text.len():
        return text
    if text.str.contains(_TRUTH).all():
        return text.str.to_lowercase() == "true"
    whole = text.str.contains(_WHOLE)
    if whole.all():
        values = _cast(text, pl.Int64())
        return _cast(text, pl.Int128()) if values is None else values
    if not (whole | text.str.contains(_FRACTION)).all():
        return text
    short = text.filter(whole).cast(pl.Int64, strict=False).is_not_null()
    # Numbers of three types are text to the engine.
    return text if short.any() and not short.all() else _cast(text, pl.Float64())


def _is_text(text: pl.Series) -> bool:
    return not text.str.contains(f"{_TRUTH}|{_WHOLE}|{_FRACTION}").all()


def _cast(text: pl.Series, dtype: pl.DataType) -> pl.Series | None:
    """None where there are digits that are no number for the engine: of other scripts, or too many."""
    values = text.cast(dtype, strict=False)
    return values if values.null_count() == text.null_count() else None
