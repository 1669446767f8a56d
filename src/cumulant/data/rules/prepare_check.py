"""Check that a user's `prepare` is row-wise.

It runs on a sample as a whole, in halves, row by row, shuffled and doubled; every run must give the same rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import polars as pl

from cumulant.core.errors import DefinitionError

SAMPLE = 1000
_SINGLES = 8
_TOLERANCE = 1e-9
_DIGITS = 9


def check_row_wise(
    prepare: Callable[[pl.DataFrame], pl.DataFrame], raw: pl.DataFrame, prepared: pl.DataFrame, *, name: str
) -> None:
    """Raise unless `prepare` treats each row of `raw` by itself; `prepared` is its result for all of `raw`.

    Raises:
        DefinitionError: it does not, or it makes rows.
    """
    if prepared.height > raw.height:
        raise _refusal(name, f"makes rows: {raw.height} in, {prepared.height} out")
    positions = _positions(raw.height)
    if len(positions) < 2:
        return
    sample = raw[positions]
    base = prepare(sample)
    if base.height > sample.height:
        raise _refusal(name, f"makes rows: {sample.height} in, {base.height} out")
    half = len(positions) // 2
    halves = pl.concat([prepare(sample[:half]), prepare(sample[half:])], how="vertical_relaxed")
    if not _is_equal(halves, base):
        raise _refusal(name, "gives other values when the rows come in two halves")
    if not _is_same_alone(prepare, sample, base):
        raise _refusal(name, "gives other values when a row comes alone")
    order = list(range(len(positions)))
    random.Random(0).shuffle(order)  # noqa: S311 - a fixed permutation, not a secret
    shuffled, doubled = prepare(sample[order]), prepare(pl.concat([sample, sample]))
    if not _has_equal_rows(shuffled, base):
        raise _refusal(name, "gives other values when the rows come in another order")
    if not _has_equal_rows(doubled, pl.concat([base, base])):
        raise _refusal(name, "gives other values when each row comes twice")
    if prepared.height == raw.height and base.height == sample.height:
        fits = _is_equal(prepared[positions], base)
    else:
        fits = _is_contained(base, prepared)
    if not fits:
        raise _refusal(name, "gives other values for a sample than for all rows")


def _is_same_alone(prepare: Callable[[pl.DataFrame], pl.DataFrame], sample: pl.DataFrame, base: pl.DataFrame) -> bool:
    """Whether single rows give the same result as among others; a largest value may be in both halves."""
    picks = sorted({index * (sample.height - 1) // (_SINGLES - 1) for index in range(_SINGLES)})
    alone = pl.concat([prepare(sample[index : index + 1]) for index in picks], how="vertical_relaxed")
    return _is_equal(alone, base[picks]) if base.height == sample.height else _is_contained(alone, base)


def _refusal(name: str, what: str) -> DefinitionError:
    return DefinitionError(
        f"prepare {name} is not row-wise: it {what}",
        subject=name,
        hint="use the values of the row only; what needs other rows is a feature (windows, lookups)",
    )


def _positions(height: int) -> list[int]:
    """Evenly spaced rows, at most SAMPLE."""
    if height <= SAMPLE:
        return list(range(height))
    return [index * (height - 1) // (SAMPLE - 1) for index in range(SAMPLE)]


def _is_equal(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    """Equal row by row; floats within rounding (vectorised code may differ in the last digit)."""
    if first.columns != second.columns or first.height != second.height:
        return False
    return all(_is_equal_column(first[name], second[name]) for name in first.columns)


def _is_equal_column(first: pl.Series, second: pl.Series) -> bool:
    if first.dtype.is_float() and second.dtype.is_numeric():
        first, second = first.fill_nan(None), second.cast(pl.Float64).fill_nan(None)
        if not (first.is_null() == second.is_null()).all():
            return False
        near = ((first - second).abs() <= _TOLERANCE * (second.abs() + 1)) | (first == second)
        return bool(near.fill_null(True).all())  # noqa: FBT003
    return bool(first.cast(second.dtype, strict=False).eq_missing(second).all())


def _hashes(frame: pl.DataFrame) -> pl.Series:
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    texts = [name for name, dtype in frame.schema.items() if isinstance(dtype, (pl.Categorical, pl.Enum))]
    rounded = [pl.col(name).cast(pl.Float64).fill_nan(None).round_sig_figs(_DIGITS) for name in floats]
    return frame.with_columns(*rounded, *(pl.col(name).cast(pl.String) for name in texts)).hash_rows()


def _has_equal_rows(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    """Equal as collections of rows, in any order."""
    if first.columns != second.columns or first.height != second.height:
        return False
    return _hashes(first).sort().equals(_hashes(second).sort())


def _is_contained(part: pl.DataFrame, whole: pl.DataFrame) -> bool:
    if part.columns != whole.columns:
        return False
    return bool(_hashes(part).is_in(_hashes(whole).implode()).all())
