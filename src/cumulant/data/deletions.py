"""Rows that say that the row of their key is deleted. Besides the key they need not hold anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from cumulant.core.errors import DataError
from cumulant.core.plan import DType
from cumulant.data.casts import POLARS
from cumulant.data.rules import RowCheck
from cumulant.data.spec import SourceSpec


def is_deletion(spec: SourceSpec, types: Mapping[str, DType], source: str) -> pl.Expr:
    """Whether a row with columns of these types is a deletion.

    Raises:
        DataError: the marking column does not hold values of the declared kind.
    """
    if spec.deleted is None or spec.deleted.column not in types:
        return pl.lit(value=False)
    dtype = types[spec.deleted.column]
    try:
        values = pl.Series(spec.deleted.values, strict=False).cast(POLARS[dtype])
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f'source {source}: "{spec.deleted.column}" is {dtype}, and {spec.deleted.values} under `deleted` are not',
            subject=spec.deleted.column,
            hint="write values of the column's type, or declare its `type` under `rules`",
        ) from error
    return pl.col(spec.deleted.column).cast(values.dtype).is_in(values.implode()).fill_null(value=False)


def without_deletions(
    checks: Sequence[RowCheck], spec: SourceSpec, types: Mapping[str, DType], source: str
) -> list[RowCheck]:
    """The checks, where deletions break none but those of their key, marker and known times."""
    if spec.deleted is None:
        return list(checks)
    needed, other = {*spec.keys, *spec.known_times, spec.deleted.column}, ~is_deletion(spec, types, source)
    return [check if check.column in needed else replace(check, failing=check.failing & other) for check in checks]
