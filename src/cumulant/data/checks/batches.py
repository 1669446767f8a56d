"""Batches: the rows that a run reads for the first time, by file and by period, and what became of them.

A new or changed file is a batch. Of a file whose earlier rows are still its first ones only the added rows are new.
Several new files together are a batch as well: each may be too small to be sure of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from cumulant.core.plan import Field
from cumulant.data.parts.packs import OWNER, blocks_of, refused_rows
from cumulant.data.parts.part import RULE, PartFacts, Workshop
from cumulant.data.snapshot import WIDER
from cumulant.data.spec import Period, SourceSpec
from cumulant.data.text.casts import casts, conform, stored_columns
from cumulant.data.text.zones import to_local

Kind = Literal["file", "added", "files", "period"]
#: how a period is written, which tells it from all others
_FORMS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}


@dataclass(frozen=True)
class Counts:
    """Accepted rows, refused ones by the rule that refused each, and nulls among the accepted by column."""

    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    nulls: Counter[str] = field(default_factory=Counter)

    @property
    def checked(self) -> int:
        return self.passed + self.refused.total()

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.refused + other.refused, self.nulls + other.nulls)

    def __sub__(self, other: Counts) -> Counts:
        """What is more than in `other`; at least none of each."""
        return Counts(max(self.passed - other.passed, 0), self.refused - other.refused, self.nulls - other.nulls)


@dataclass(frozen=True)
class Batch:
    """New rows that are evaluated together; `name` as messages show it."""

    name: str
    kind: Kind
    counts: Counts


@dataclass(frozen=True)
class NewFile:
    """A new or changed file: its part as read and as accepted, and the last accepted part of the same name.

    `grown`: the rows of that part are the first ones of this, so that only what follows is new.
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


def together(files: int) -> str:
    """So many new files as messages show them."""
    return f"the {files:,} new files together"


def deliveries(new: Sequence[NewFile], shop: Workshop) -> tuple[Batch, ...]:
    """The new rows of each new or changed file."""
    columns = _limited(shop)
    return tuple(Batch(file.name, "added" if file.grown else "file", _rows_of(file, columns, shop)) for file in new)


def gathered(new: Sequence[NewFile], delivered: Sequence[Batch], shop: Workshop, *, checked: int) -> tuple[Batch, ...]:
    """The batches whose shares are evaluated: deliveries, all of them together, and periods.

    `checked` rows of the source are evaluated as a whole, and that is not done twice.
    """
    result = [batch for batch in delivered if batch.counts.checked]
    if len(result) > 1:
        total = sum((batch.counts for batch in result), Counts())
        result.append(Batch(together(len(result)), "files", total))
    result = [batch for batch in result if batch.counts.checked < checked]
    if shop.spec.batch.period is not None and shop.spec.time is not None:
        result += _periods(new, _limited(shop), shop)
    return tuple(result)


def _limited(shop: Workshop) -> list[str]:
    """Columns whose nulls are limited."""
    return [column for column, rule in shop.spec.rules.items() if rule.nulls is not None]


def new_rows(file: NewFile, shop: Workshop) -> pl.LazyFrame:
    """The accepted rows of a file that are new."""
    rows = shop.rows(file.accepted)
    return rows.slice(file.earlier.rows.rows) if file.grown and file.earlier is not None else rows


def period_of(spec: SourceSpec, *, default: Period) -> pl.Expr | None:
    """The name of the period of a row's event time, in the zone of the source; None where it has no event time."""
    if spec.time is None:
        return None
    form = _FORMS[spec.batch.period or default]
    return to_local(pl.col(spec.time.column), spec.time.zone or "UTC").dt.strftime(form)


def is_grown(read: PartFacts, earlier: PartFacts, fields: Sequence[Field], shop: Workshop) -> bool:
    """Whether the accepted rows of `earlier` are the first of `read`, column by column."""
    rows = earlier.rows.rows
    if not rows or read.rows.rows < rows or read.rows_in <= earlier.rows_in or not is_as_wide(read, earlier):
        return False
    return all(
        conform(shop.rows(read), [column]).head(rows).collect()
        .equals(conform(shop.rows(earlier), [column]).collect())
        for column in fields
    )  # fmt: skip


def is_as_wide(read: PartFacts, earlier: PartFacts) -> bool:
    """Whether the types of `read` hold the values of `earlier`."""
    types = {column.name: column.dtype for column in read.fields if not column.empty}
    before = [
        (column.dtype, types[column.name]) for column in earlier.fields if column.name in types and not column.empty
    ]
    return all(old == new or (old, new) in WIDER for old, new in before)


def _rows_of(file: NewFile, columns: Iterable[str], shop: Workshop) -> Counts:
    counts = _of_part(file.accepted, columns, shop)
    if file.grown and file.earlier is not None:
        counts -= _of_part(file.earlier, columns, shop)
    return counts


def _of_part(part: PartFacts, columns: Iterable[str], shop: Workshop) -> Counts:
    rows, refused = part.rows.rows, Counter(part.refused_rules or {})
    for ref in part.refused:
        rules = shop.tables.scan(ref).group_by(RULE).len().collect()
        refused.update(dict(rules.iter_rows()))
    nulls = {column: part.profile[column].nulls if column in part.profile else rows for column in columns}
    return Counts(rows, refused, Counter(nulls))


def _periods(new: Sequence[NewFile], columns: Sequence[str], shop: Workshop) -> list[Batch]:
    """New rows by period, of all files together; what has no readable time is in no period."""
    result: dict[str, Counts] = {}
    accepted = _by_period([file.accepted for file in new], columns, shop)
    for file, periods in zip(new, accepted, strict=True):
        before = _by_period([file.earlier], columns, shop)[0] if file.earlier is not None else {}
        for period, counts in periods.items():
            added = counts - before.get(period, Counts())
            if added != Counts():  # else nothing of this period is new
                result[period] = result.get(period, Counts()) + (added if file.grown else counts)
    return [Batch(f"{shop.spec.batch.period} {name}", "period", result[name]) for name in sorted(result)]


def _by_period(parts: Sequence[PartFacts], columns: Sequence[str], shop: Workshop) -> list[dict[str, Counts]]:
    """Of each part and period what `_of_part` counts of all rows."""
    assert shop.spec.time is not None
    column, period = shop.spec.time.column, period_of(shop.spec, default="day")
    assert period is not None
    label = period.alias("__period")
    result: list[dict[str, Counts]] = [{} for _ in parts]
    for block in blocks_of(parts):
        rows = block.scan(shop)
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
                result[row[OWNER]][row["__period"]] = Counts(int(row["rows"]), nulls=null_counts)
    for refused in refused_rows(parts, shop):
        if column not in refused.columns:
            continue
        # A refused row may hold its time as it came.
        time = casts({column: refused.schema[column]}, shop.spec, shop.source)[0].expr
        counts = refused.select(time, RULE, OWNER).group_by(OWNER, label, RULE).len()
        for place, name, rule, count in counts.iter_rows():
            if name is not None:
                found = result[place]
                found[name] = found.get(name, Counts()) + Counts(refused=Counter({rule: count}))
    return result


def _nulls(name: str, stored: Sequence[str]) -> pl.Expr:
    """How many rows have no value of a column, which is in the columns `stored`."""
    missing = pl.all_horizontal(pl.col(own).is_null() for own in stored).sum() if stored else pl.len()
    return missing.alias(f"nulls:{name}")
