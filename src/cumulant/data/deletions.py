"""Rows that delete the row of their key; besides the key they may be null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl
from msgspec import UNSET

from cumulant.core.errors import DataError
from cumulant.core.plan import Corrections, DType, Field
from cumulant.data.corrections.repeat_spec import DeletedRows
from cumulant.data.rules.row_checks import RowCheck
from cumulant.data.spec import SourceSpec
from cumulant.data.text.casts import POLARS


def is_deletion(spec: SourceSpec, types: Mapping[str, DType], source: str) -> pl.Expr:
    """Whether a row with columns of these types is a deletion.

    Raises:
        DataError: the marking column does not hold values of the declared kind.
    """
    if spec.deleted is None or spec.deleted.column not in types:
        return pl.lit(value=False)
    values = _as_column(spec.deleted, types[spec.deleted.column], source)
    return pl.col(spec.deleted.column).cast(values.dtype).is_in(values.implode()).fill_null(value=False)


def corrections_of(columns: Sequence[Field], spec: SourceSpec, source: str) -> Corrections:
    """How later rows of a source correct earlier ones, as a feature plan carries it.

    Raises:
        DataError: the marking column does not hold values of the declared kind.
    """
    fields = {field.name: field for field in columns}
    known = tuple(fields[name] for name in spec.known_times if name in fields)
    sequence = UNSET if spec.sequence_by is None else fields.get(spec.sequence_by, UNSET)
    if spec.deleted is None or spec.deleted.column not in fields:
        return Corrections(known, sequence=sequence)
    marker = fields[spec.deleted.column]
    values = _as_column(spec.deleted, marker.dtype, source).drop_nulls()
    if marker.dtype in ("time", "date"):
        values = values.to_physical().cast(pl.Int64)
    return Corrections(known, marker, tuple(values.to_list()), sequence)


def _as_column(deleted: DeletedRows, dtype: DType, source: str) -> pl.Series:
    try:
        return pl.Series(deleted.values, strict=False).cast(POLARS[dtype])
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f'source {source}: "{deleted.column}" is {dtype}, and {deleted.values} under `deleted` are not',
            subject=deleted.column,
            hint="write values of the column's type, or declare its `type` under `rules`",
        ) from error


def without_deletions(
    checks: Sequence[RowCheck], spec: SourceSpec, types: Mapping[str, DType], source: str
) -> list[RowCheck]:
    """The checks, where deletions break none but those of their key, their marker and what orders them."""
    if spec.deleted is None:
        return list(checks)
    sequence = () if spec.sequence_by is None else (spec.sequence_by,)
    needed = {*spec.keys, *spec.known_times, *sequence, spec.deleted.column}
    other = ~is_deletion(spec, types, source)
    return [check if check.column in needed else replace(check, failing=check.failing & other) for check in checks]
