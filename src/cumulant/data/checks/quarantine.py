"""The rows of a source that rules refused, as one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import polars as pl

from cumulant.core.refs import TableRef
from cumulant.data.parts.packs import OWNER, refused_rows
from cumulant.data.parts.part import PartContext, PartFacts
from cumulant.data.row_columns import FILE, ROW, RULE
from cumulant.data.snapshot import CheckResult, Snapshot
from cumulant.data.text.csv_records import LINE, TEXT


def write_quarantine(
    urls: Sequence[str], parts: Sequence[PartFacts], context: PartContext, identity: str
) -> tuple[TableRef | None, Counter[str]]:
    """All refused rows of the files at `urls` as one table, and their number by rule.

    Columns: `__rule`, `__file`, `__row`, of malformed rows `__line` and `__text`, then the original columns.
    """
    frames = refused_rows(parts, context)
    if not frames:
        return None, Counter()
    rows = pl.concat(unify_types(frames), how="diagonal_relaxed").sort(OWNER, maintain_order=True)
    rows = rows.with_columns(pl.Series(urls).gather(rows[OWNER]).alias(FILE)).drop(OWNER)
    first = [name for name in (RULE, FILE, ROW, LINE, TEXT) if name in rows.columns]
    rows = rows.select(*first, *(name for name in rows.columns if name not in first))
    return context.write("quarantine", identity, rows), Counter(rows[RULE].to_list())


def example_of(check: CheckResult, snapshot: Snapshot, context: PartContext) -> object:
    """A value that the check refused; None for a personal column."""
    if check.column is None or check.column in context.spec.personal or snapshot.quarantine is None:
        return None
    if check.rule.endswith(":path") and context.spec.personal:  # it may be a whole object
        return None
    refused = context.tables.scan(snapshot.quarantine).filter(pl.col(RULE) == check.rule)
    values = refused.select(pl.col(check.column).drop_nulls().head(1)).collect().to_series()
    return values[0] if values.len() else None


def unify_types(frames: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """Frames with common columns; as text where the types of one have none in common."""
    types: dict[str, set[pl.DataType]] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            types.setdefault(name, set()).add(dtype)
    mixed = [
        name
        for name, dtypes in types.items()
        if len(dtypes) > 1
        and pl.Binary() not in dtypes
        and not _hold_one_type([frame[name] for frame in frames if name in frame.columns])
    ]
    return [frame.with_columns(pl.col(name).cast(pl.String) for name in mixed if name in frame) for frame in frames]


def _hold_one_type(columns: Sequence[pl.Series]) -> bool:
    """Whether one type of numbers holds the values of all."""
    types = [column.dtype for column in columns]
    scales = [dtype.scale for dtype in types if isinstance(dtype, pl.Decimal)]
    if not scales or not all(dtype.is_decimal() or dtype.is_integer() for dtype in types):
        return all(dtype.is_numeric() for dtype in types)
    widest = pl.Decimal(38, max(scales))
    return all(column.cast(widest, strict=False).null_count() == column.null_count() for column in columns)
