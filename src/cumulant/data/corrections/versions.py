"""Versions of rows with `on_repeat: latest`, and the interval in which each is in force.

Rows of a key are ordered by known time, of one known time by `sequence_by`, then by arrival, then by place; an equal
successor is the same version. A version is in force from the moment at which it became known (the first: from the
start) until the next one. One that follows its predecessor by `sequence_by`, or arrived together with it, with the same
known time, replaces it. A deletion is a version that hides its key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import polars as pl

from cumulant.core.errors import DataError
from cumulant.core.plan import Field
from cumulant.core.refs import TableRef
from cumulant.data.corrections.arrivals import ARRIVED, Arrival
from cumulant.data.corrections.dated_rows import HIDDEN
from cumulant.data.corrections.repeats import KNOWN, located_frames
from cumulant.data.deletions import is_deletion
from cumulant.data.parts.group_repeats import group_equal_rows
from cumulant.data.parts.packs import blocks_of, exact_types
from cumulant.data.parts.part import PartContext, PartFacts
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.data.rules.row_checks import absent_column_error
from cumulant.data.spec import SourceSpec
from cumulant.data.text.casts import conform

_START, _NEVER = -(2**62), -(2**63)
_EQUAL, _MARK, _SEQUENCE, _FOLLOWS = "__equal", "__mark", "__sequence", "__follows"
#: rows that are read at a time
_STEP = 262_144


class Versions(NamedTuple):
    """Rows that are not in force all the time, as a table, and how many rows each reason takes out of it now."""

    table: TableRef | None = None
    digest: str = ""
    superseded: int = 0
    repeated: int = 0
    deletions: int = 0


def refuse_undecidable(spec: SourceSpec, fields: Sequence[Field], source: str) -> None:
    """Raise DataError where corrections or deletions are declared without the columns that they need."""
    if spec.on_repeat == "latest" and not spec.keys:
        raise DataError(
            f"source {source}: `on_repeat: latest` needs a key",
            subject=source,
            hint="declare `key`, the columns that identify a row, or leave on_repeat out",
        )
    refuse_undeclared_order(spec, source)
    if spec.sequence_by is not None:
        _refuse_sequence(spec.sequence_by, fields, source)
    if spec.deleted is None:
        return
    if spec.on_repeat != "latest":
        raise DataError(
            f"source {source}: `deleted` needs `on_repeat: latest`",
            subject=source,
            hint="set on_repeat: latest: a deletion is the latest row of its key",
        )
    columns = [field.name for field in fields]
    if spec.deleted.column not in columns:
        message = f'source {source} has no column "{spec.deleted.column}", which deleted names'
        raise absent_column_error(message, spec.deleted.column, columns)


def refuse_undeclared_order(spec: SourceSpec, source: str) -> None:
    """Raise DataError where `sequence_by` is declared without what it needs, whatever the columns are."""
    if spec.sequence_by is None:
        return
    if spec.on_repeat != "latest":
        raise DataError(
            f"source {source}: `sequence_by` needs `on_repeat: latest`",
            subject=source,
            hint="set on_repeat: latest: it orders the rows of a key that correct each other",
        )
    if not spec.known_times:
        raise DataError(
            f"source {source}: `sequence_by` needs a known time",
            subject=spec.sequence_by,
            hint="name a column of times under known_time: a row without one counts from its arrival, in that order",
        )
    rule = spec.rules.get(spec.sequence_by)
    times = (*spec.known_times, *([spec.time.column] if spec.time else []))
    if spec.sequence_by not in times and (rule is None or rule.type is None):
        # Inferred, it changes with the rows: text as long as there are nulls alone, and then 9 is after 10.
        raise DataError(
            f'source {source}: the type of "{spec.sequence_by}", which `sequence_by` names, is not declared',
            subject=spec.sequence_by,
            hint=f"add `rules: {{{spec.sequence_by}: {{type: int}}}}`, or `time`, `date` or `str`",
        )


def _refuse_sequence(column: str, fields: Sequence[Field], source: str) -> None:
    types = {field.name: field.dtype for field in fields}
    if column not in types:
        raise absent_column_error(
            f'source {source} has no column "{column}", which sequence_by names', column, [*types]
        )
    if types[column] not in ("int", "time", "date", "str"):
        raise DataError(
            f'source {source}: `sequence_by` names "{column}", which is {types[column]}',
            subject=column,
            hint="name a column of whole numbers, times, dates or text, or declare its `type` under `rules`",
        )


def versions_of(
    parts: Sequence[PartFacts], arrived: Sequence[Arrival], fields: Sequence[Field], context: PartContext
) -> Versions:
    """When each row of the parts is in force, for those that are not always."""
    if context.spec.on_repeat != "latest":
        return Versions()
    keys, changed = context.spec.keys, _rows_of_changed_keys(parts, arrived, fields, context)
    if not changed.height:
        return Versions()
    groups = group_equal_rows(
        lambda: _read_rows(changed, parts, fields, context), keys, rows=changed.height, budget=context.budget
    )
    dated = pl.concat(_date_rows(_order(rows, fields, keys, context.spec.sequence_by), keys) for rows in groups).sort(
        ROW
    )
    if not dated.height:
        return Versions()
    name = _digest(dated)
    table = context.tables.write(context.key(name, "versions"), dated.select(ROW, FROM, UNTIL, HIDDEN))
    repeated, deletions = int(dated[_EQUAL].sum()), int((dated[_MARK] & ~dated[_EQUAL]).sum())
    gone = dated.filter(HIDDEN | pl.col(UNTIL).is_not_null()).height
    return Versions(table, name, gone - repeated - deletions, repeated, deletions)


def _rows_of_changed_keys(
    parts: Sequence[PartFacts], arrived: Sequence[Arrival], fields: Sequence[Field], context: PartContext
) -> pl.DataFrame:
    """The rows of keys that repeat or are deleted, in order: known time, arrival, and whether they delete."""
    spec, keys = context.spec, list(context.spec.keys)
    wanted = {*keys, *spec.known_times, *([] if spec.deleted is None else [spec.deleted.column])}
    mark = is_deletion(spec, {field.name: field.dtype for field in fields}, context.source).alias(_MARK)
    known = pl.col(KNOWN)
    if spec.known_times:  # a deletion without one is no row that is known before all others
        known = pl.when(pl.col(_MARK)).then(pl.coalesce(KNOWN, ARRIVED)).otherwise(KNOWN).alias(KNOWN)

    def frames() -> Iterator[pl.DataFrame]:
        first = 0
        for frame in located_frames(parts, arrived, [field for field in fields if field.name in wanted], context):
            number = pl.int_range(first, first + frame.height, dtype=pl.Int64, eager=True).alias(ROW)
            yield frame.with_columns(mark).select(*keys, number, known, ARRIVED, _MARK)
            first += frame.height

    frames_of_changed = [pl.DataFrame(schema={ROW: pl.Int64, KNOWN: pl.Int64, ARRIVED: pl.Int64, _MARK: pl.Boolean})]
    for rows in group_equal_rows(frames, keys, rows=sum(part.rows.rows for part in parts), budget=context.budget):
        several = rows.group_by(keys).agg(pl.len().alias("__rows"), pl.col(_MARK).any().alias("__marked"))
        several = several.filter((pl.col("__rows") > 1) | pl.col("__marked")).select(keys)
        frames_of_changed.append(rows.join(several, on=keys, how="semi").select(ROW, KNOWN, ARRIVED, _MARK))
    return pl.concat(frames_of_changed).sort(ROW)


def _read_rows(
    changed: pl.DataFrame, parts: Sequence[PartFacts], fields: Sequence[Field], context: PartContext
) -> Iterator[pl.DataFrame]:
    """All columns of these rows; other rows are read and left out, some at a time."""
    blocks = blocks_of(parts)
    exact = exact_types(blocks, fields, context)
    first = 0
    for block in blocks:
        rows = conform(block.scan(context), fields, exact)
        for begin in range(0, block.range.rows, _STEP):
            count = min(_STEP, block.range.rows - begin)
            low, high = (int(changed[ROW].search_sorted(first + place)) for place in (begin, begin + count))
            if high > low:
                number = pl.int_range(first + begin, first + begin + count, dtype=pl.Int64, eager=True).alias(ROW)
                frame = rows.slice(begin, count).collect().with_columns(number)
                yield frame.join(changed[low:high], on=ROW, how="inner")
        first += block.range.rows


def _order(rows: pl.DataFrame, fields: Sequence[Field], keys: Sequence[str], sequence: str | None) -> pl.DataFrame:
    """The keys of rows in their order, whether each row is the one before once more, and whether it follows that by
    the declared sequence.
    """
    # A row without a known time is in force from its arrival, and so is in that order.
    place = pl.lit(None) if sequence is None else pl.when(pl.col(KNOWN).is_not_null()).then(pl.col(sequence))
    rows = rows.with_columns(place.alias(_SEQUENCE))
    rows = rows.sort(*keys, KNOWN, _SEQUENCE, ARRIVED, ROW, nulls_last=False)
    follows = pl.col(_SEQUENCE).ne_missing(pl.col(_SEQUENCE).shift(1)).alias(_FOLLOWS)
    first = pl.struct(keys).is_first_distinct()
    same = pl.all_horizontal(pl.col(field.name).eq_missing(pl.col(field.name).shift(1)) for field in fields)
    equal = (same & ~first).fill_null(value=False).alias(_EQUAL)
    return rows.select(*keys, ROW, KNOWN, ARRIVED, _MARK, equal, follows)


def _date_rows(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Those of ordered rows that are not in force all the time, with the moments from and until which each is."""
    first = pl.struct(keys).is_first_distinct()
    others = rows.filter(~pl.col(_EQUAL)).with_columns(first.alias("__first"))
    before = pl.col(KNOWN).shift(1)
    by_known = pl.col(KNOWN).is_not_null() & (before.is_null() | (pl.col(KNOWN) > before))
    replaces = pl.col(KNOWN).is_not_null() & pl.col(_FOLLOWS)  # the row before, with the same known time
    later = pl.when(~replaces & (pl.col(ARRIVED) != pl.col(ARRIVED).shift(1))).then(ARRIVED)  # else with the row before
    moment = pl.when("__first").then(pl.lit(_START)).when(by_known).then(KNOWN).otherwise(later)
    others = others.with_columns(moment.cast(pl.Int64).alias(FROM))
    others = others.with_columns(pl.col(FROM).forward_fill())
    # A row that became known later than one that follows it was never in force.
    others = others.with_columns(pl.col(FROM).reverse().cum_min().reverse().over(keys))
    others = others.with_columns(pl.col(FROM).shift(-1).over(keys).alias(UNTIL))
    never = (pl.col(UNTIL) <= pl.col(FROM)).fill_null(value=False)
    others = others.with_columns(
        (never | pl.col(_MARK)).alias(HIDDEN),
        # The first row of a key is in force from the start; what deletes it is known at its own moment all the same.
        pl.when(pl.col(FROM) != _START).then(FROM).when(_MARK).then(pl.col(KNOWN).cast(pl.Int64)).alias(FROM),
    )
    dates = others.select(ROW, FROM, UNTIL, HIDDEN)
    rows = rows.join(dates, on=ROW, how="left", maintain_order="left")
    rows = rows.select(ROW, FROM, UNTIL, pl.col(HIDDEN).fill_null(value=True), _EQUAL, _MARK)
    return rows.filter(HIDDEN | pl.col(FROM).is_not_null() | pl.col(UNTIL).is_not_null())


def _digest(dated: pl.DataFrame) -> str:
    """Of the values alone; Arrow's bytes for nulls and booleans hold more than these."""
    hashed = hashlib.sha256()
    for values in dated.select(ROW, pl.col(FROM, UNTIL).fill_null(_NEVER), pl.col(HIDDEN).cast(pl.UInt8)):
        hashed.update(values.to_numpy().tobytes())
    return hashed.hexdigest()
