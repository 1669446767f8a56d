"""Batches: the new rows of a run by file and by period, and all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from cumulant.data.parts.packs import OWNER, blocks_of, refused_rows
from cumulant.data.parts.part import PartContext, PartFacts
from cumulant.data.row_columns import RULE
from cumulant.data.rules.verdict_spec import Period
from cumulant.data.spec import SourceSpec
from cumulant.data.text.casts import column_casts, stored_columns
from cumulant.data.text.zones import to_local

Kind = Literal["file", "added", "files", "period"]
#: how a period is written, which distinguishes it from all others
_FORMS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}


@dataclass(frozen=True)
class BatchCounts:
    """Accepted rows, refused ones by the rule that refused each, and nulls among the accepted by column."""

    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    nulls: Counter[str] = field(default_factory=Counter)

    @property
    def checked(self) -> int:
        return self.passed + self.refused.total()

    def __add__(self, other: BatchCounts) -> BatchCounts:
        return BatchCounts(self.passed + other.passed, self.refused + other.refused, self.nulls + other.nulls)

    def __sub__(self, other: BatchCounts) -> BatchCounts:
        """What is more than in `other`; at least none of each."""
        return BatchCounts(max(self.passed - other.passed, 0), self.refused - other.refused, self.nulls - other.nulls)


@dataclass(frozen=True)
class Batch:
    """New rows that are evaluated together; `name` as messages show it."""

    name: str
    kind: Kind
    counts: BatchCounts


@dataclass(frozen=True)
class NewFile:
    """A new or changed file: its part as read and as accepted, and the last accepted part of the same name.

    `grown`: the earlier rows are still its first ones, so only those that follow are new.
    """

    url: str
    read: PartFacts
    accepted: PartFacts
    earlier: PartFacts | None = None
    grown: bool = False

    @property
    def name(self) -> str:
        """Its new rows as messages show them."""
        return f"the rows added to {self.url}" if self.grown else self.url


def name_combined(files: int) -> str:
    """The name of all new files together in messages."""
    return f"the {files:,} new files together"


def batches_by_file(new: Sequence[NewFile], context: PartContext) -> tuple[Batch, ...]:
    columns = _columns_with_limits(context)
    return tuple(
        Batch(file.name, "added" if file.grown else "file", _count_new_rows(file, columns, context)) for file in new
    )


def batches_to_check(
    new: Sequence[NewFile], delivered: Sequence[Batch], context: PartContext, *, checked: int
) -> tuple[Batch, ...]:
    """The batches whose shares are evaluated: each file, all files together, and periods.

    `checked`: rows of the source that are evaluated as a whole; a batch of as many is not evaluated again.
    """
    result = [batch for batch in delivered if batch.counts.checked]
    if len(result) > 1:
        total = sum((batch.counts for batch in result), BatchCounts())
        result.append(Batch(name_combined(len(result)), "files", total))
    result = [batch for batch in result if batch.counts.checked < checked]
    if context.spec.batch.period is not None and context.spec.time is not None:
        result += _periods(new, _columns_with_limits(context), context)
    return tuple(result)


def _columns_with_limits(context: PartContext) -> list[str]:
    return [column for column, rule in context.spec.rules.items() if rule.nulls is not None]


def scan_new_rows(file: NewFile, context: PartContext) -> pl.LazyFrame:
    """The accepted rows of a file that are new."""
    rows = context.rows(file.accepted)
    return rows.slice(file.earlier.rows.rows) if file.grown and file.earlier is not None else rows


def period_of(spec: SourceSpec, *, default: Period) -> pl.Expr | None:
    """The name of the period of a row's event time, in the zone of the source; None where it has no event time."""
    if spec.time is None:
        return None
    form = _FORMS[spec.batch.period or default]
    return to_local(pl.col(spec.time.column), spec.time.zone or "UTC").dt.strftime(form)


def _count_new_rows(file: NewFile, columns: Iterable[str], context: PartContext) -> BatchCounts:
    counts = _count_rows(file.accepted, columns, context)
    if file.grown and file.earlier is not None:
        counts -= _count_rows(file.earlier, columns, context)
    return counts


def _count_rows(part: PartFacts, columns: Iterable[str], context: PartContext) -> BatchCounts:
    rows, refused = part.rows.rows, Counter(part.refused_rules or {})
    for ref in part.refused:
        rules = context.tables.scan(ref).group_by(RULE).len().collect()
        refused.update(dict(rules.iter_rows()))
    nulls = {column: part.profile[column].nulls if column in part.profile else rows for column in columns}
    return BatchCounts(rows, refused, Counter(nulls))


def _periods(new: Sequence[NewFile], columns: Sequence[str], context: PartContext) -> list[Batch]:
    """New rows by period, of all files together; what has no readable time is in no period."""
    result: dict[str, BatchCounts] = {}
    accepted = _count_by_period([file.accepted for file in new], columns, context)
    for file, periods in zip(new, accepted, strict=True):
        before = _count_by_period([file.earlier], columns, context)[0] if file.earlier is not None else {}
        for period, counts in periods.items():
            added = counts - before.get(period, BatchCounts())
            if added != BatchCounts():  # else nothing of this period is new
                result[period] = result.get(period, BatchCounts()) + (added if file.grown else counts)
    return [Batch(f"{context.spec.batch.period} {name}", "period", result[name]) for name in sorted(result)]


def _count_by_period(
    parts: Sequence[PartFacts], columns: Sequence[str], context: PartContext
) -> list[dict[str, BatchCounts]]:
    """Of each part and period what `_count_rows` counts of all rows."""
    assert context.spec.time is not None
    column, period = context.spec.time.column, period_of(context.spec, default="day")
    assert period is not None
    label = period.alias("__period")
    result: list[dict[str, BatchCounts]] = [{} for _ in parts]
    for block in blocks_of(parts):
        rows = block.scan(context)
        schema = rows.collect_schema()
        if not block.range.rows or column not in schema:
            continue
        stored = stored_columns(schema)
        nulls = [_nulls(name, stored.get(name, [])) for name in columns]
        read = dict.fromkeys([column, *(own for name in columns for own in stored.get(name, []))])
        counted = rows.select(*read).collect().with_columns(block.owners()).group_by(OWNER, label)
        for row in counted.agg(pl.len().alias("rows"), *nulls).iter_rows(named=True):
            if row["__period"] is not None:
                null_counts = Counter({name: int(row[f"nulls:{name}"]) for name in columns})
                result[row[OWNER]][row["__period"]] = BatchCounts(int(row["rows"]), nulls=null_counts)
    for refused in refused_rows(parts, context):
        if column not in refused.columns:
            continue
        # A refused row may hold its time as it came.
        time = column_casts({column: refused.schema[column]}, context.spec, context.source)[0].expr
        counts = refused.select(time, RULE, OWNER).group_by(OWNER, label, RULE).len()
        for place, name, rule, count in counts.iter_rows():
            if name is not None:
                counts_by_period = result[place]
                counts_by_period[name] = counts_by_period.get(name, BatchCounts()) + BatchCounts(
                    refused=Counter({rule: count})
                )
    return result


def _nulls(name: str, stored: Sequence[str]) -> pl.Expr:
    """How many rows have no value of a column, which is in the columns `stored`."""
    missing = pl.all_horizontal(pl.col(own).is_null() for own in stored).sum() if stored else pl.len()
    return missing.alias(f"nulls:{name}")
