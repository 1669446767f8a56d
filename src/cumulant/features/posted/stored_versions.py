"""The rows in force of a history as a table of online state stores them; log rows that it stores are removed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
import polars as pl

from cumulant.core.plan import FeaturePlan, KnownAt, Source
from cumulant.core.units import micros, to_micros
from cumulant.data.corrections.dated_rows import is_in_force
from cumulant.data.row_columns import FROM, ROW
from cumulant.features.offline.frames import inside, inside_as, read_fields
from cumulant.features.offline.groups import groups_of
from cumulant.features.offline.versions import has_versions
from cumulant.features.online.carry_over import WAIT, hide_after
from cumulant.features.online.state import encode
from cumulant.features.online.state_writer import present_us
from cumulant.features.posted.posted_events import KEPT_US, LoggedRow, SourceLog, forget_stored, key_values, log_table
from cumulant.features.posted.row_versions import (
    StoredVersion,
    VersionRule,
    corrections_of,
    decode_version,
    version_columns,
    version_key,
)
from cumulant.ports.online import Cells, OnlineStore

_STEP = 10_000
_KNOWN, _SEQUENCE = "__known", "__sequence"


def corrected_sources(plan: FeaturePlan) -> tuple[str, ...]:
    """The sources of windows and lookups whose posted rows correct earlier ones."""
    names = sorted({group.source for group in groups_of(plan)})
    return tuple(name for name in names if plan.sources[name].key and corrections_of(plan.sources[name]) is not None)


def version_blobs(
    plan: FeaturePlan,
    name: str,
    rows: pl.LazyFrame | pl.DataFrame,
    as_of: datetime | None,
    *,
    deletions: pl.LazyFrame | pl.DataFrame | None = None,
    keys: Collection[bytes] | None = None,
) -> Iterator[tuple[bytes, bytes]]:
    """The rows in force of a source at `as_of` (None: at the end), and its deleted keys, each as its key and blob.

    `deletions`: as `scan_deletions`. `keys`: those of `row_key` to return; None: all.
    """
    source, columns = with_order(plan.sources[name]), version_columns(plan, plan.sources[name])
    frame = read_fields(name, source.fields, rows)
    if keys is not None:
        frame = frame.join(_key_frame(frame, source, keys), on=source.key, how="semi", maintain_order="left")
    frame = hide_after(frame, source, as_of).filter(pl.col(column).is_not_null() for column in source.key)
    limit = None if as_of is None else to_micros(as_of)
    stays = frame.filter(is_in_force(limit)) if has_versions(frame) else frame
    for key, version in versions_of(stays, source, columns):
        yield version_key(name, key), encode(version)
    if deletions is not None:
        gone = _deletions(source, deletions)
        if keys is not None and gone.height:
            gone = gone.join(_key_frame(gone, source, keys), on=source.key, how="semi", maintain_order="left")
        if gone.height:
            yield from _deleted_keys(gone, stays, source)


def versions_of(
    frame: pl.DataFrame, source: Source, columns: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], StoredVersion]]:
    """The key of each row of a frame that has the fields of `with_order`, and the row as a version with `columns`."""
    for part in _with_known_time(frame, source).iter_slices(_STEP):
        dates = part.select(ROW, _KNOWN, FROM).rows()
        for key, row, (position, known, begins) in zip(
            inside(part.select(source.key)), inside(part.select(columns)), dates, strict=True
        ):
            values = {column: value for column, value in zip(columns, row, strict=True) if value is not None}
            arrived = None if begins == known else begins
            yield key, StoredVersion(position, values, known, arrived, begins)


def with_order(source: Source) -> Source:
    """The source with what orders its versions, which no window need read."""
    corrections = corrections_of(source)
    known, order = ((), ()) if corrections is None else (corrections.known, corrections.order)
    fields = {field.name: field for field in (*source.fields, *order)}
    times = {field.name: KnownAt(column=field.name) for field in known}
    return msgspec.structs.replace(source, fields=tuple(fields.values()), known=times | source.known)


def _sequence(source: Source) -> str:
    """The column that orders versions of one known time; empty where there is none."""
    corrections = corrections_of(source)
    sequence = msgspec.UNSET if corrections is None else corrections.sequence
    return "" if isinstance(sequence, msgspec.UnsetType) else sequence.name


def _key_frame(frame: pl.DataFrame, source: Source, keys: Collection[bytes]) -> pl.DataFrame:
    values = pl.DataFrame([key_values(key) for key in keys], schema=list(source.key), orient="row")
    return values.select(inside_as(name, frame[name].dtype) for name in source.key)


def _with_known_time(frame: pl.DataFrame, source: Source) -> pl.DataFrame:
    """Rows with their known time, and since when they are in force."""
    corrections = corrections_of(source)
    times = [pl.col(field.name).cast(pl.Int64) for field in (() if corrections is None else corrections.known)]
    known = pl.max_horizontal(times) if times else pl.lit(None, pl.Int64)
    frame = frame.with_columns(known.alias(_KNOWN))
    return frame if has_versions(frame) else frame.with_columns(pl.lit(None, pl.Int64).alias(FROM))


def _deleted_keys(rows: pl.DataFrame, stays: pl.DataFrame, source: Source) -> Iterator[tuple[bytes, bytes]]:
    """The keys of deletions of which no row is in force."""
    corrections, key, column = corrections_of(source), list(source.key), _sequence(source)
    assert corrections is not None
    last = _with_known_time(rows.join(stays.select(key), on=key, how="anti"), source).group_by(key, maintain_order=True)
    place = pl.col(column or _KNOWN).alias(_SEQUENCE)
    # Of the deletions of a key the one that is known last; its sequence is the greatest of those.
    latest = last.agg(pl.col(_KNOWN, FROM, ROW).max(), place.sort_by(_KNOWN, place, nulls_last=False).last())
    dates = zip(latest.select(_KNOWN, FROM, ROW).rows(), inside(latest.select(_SEQUENCE)), strict=True)
    for values, ((known, begins, position), (sequence,)) in zip(inside(latest.select(key)), dates, strict=True):
        arrived = None if begins == known else begins
        # A deletion without a known time is known when it arrives.
        at = begins if known is None and corrections.known else known
        order = {column: sequence} if column and sequence is not None else {}
        yield (
            version_key(source.name, values),
            encode(StoredVersion(position, order, at, arrived, begins, deleted=True)),
        )


def _deletions(source: Source, rows: pl.LazyFrame | pl.DataFrame) -> pl.DataFrame:
    """Of hidden rows those that delete."""
    corrections = corrections_of(source)
    assert corrections is not None
    if corrections.marker is None:
        return pl.DataFrame()
    wanted = {*source.key, *(field.name for field in corrections.fields)}
    fields = {field.name: field for field in (*source.fields, *corrections.fields) if field.name in wanted}
    frame = read_fields(source.name, tuple(fields.values()), rows)
    marker = pl.col(corrections.marker.name)
    if corrections.marker.dtype in ("time", "date"):
        marker = marker.to_physical().cast(pl.Int64)
    stays = marker.is_in(list(corrections.deletes)).fill_null(value=False)
    return frame.filter(stays, *(pl.col(column).is_not_null() for column in source.key))


def trim_log(plan: FeaturePlan, name: str, store: OnlineStore, *, scope: str, table: str, newest: int | None) -> None:
    """Remove log rows that `table` holds, whose event (of deletions: arrival) is `WAIT` before `newest`, and of which
    no version came lately: since when those count is in the log alone. A log that there was not yet begins.
    """
    now = present_us()
    store.update(lambda cells: _begin(SourceLog(cells, log_table(scope, name)), now))
    if newest is None:
        return
    source, columns = plan.sources[name], version_columns(plan, plan.sources[name])
    corrections = corrections_of(source)
    assert corrections is not None
    rule, limit, lately = VersionRule(corrections), newest - micros(WAIT), now - KEPT_US

    def holds(record: LoggedRow, blob: bytes | None) -> bool:
        at = record.arrived if record.deleted else record.values.get(source.event_time or "")
        if at is None or at > limit or (record.entered or 0) > lately:
            return False
        if blob is None:
            return record.deleted
        stored = decode_version(blob)
        values = {column: record.values[column] for column in columns if column in record.values}
        return rule.stored_after(record, values, stored) is None

    def stored_keys(cells: Cells, rows: list[tuple[bytes, LoggedRow]]) -> set[bytes]:
        blobs = cells.get(table, [version_key(name, key_values(key)) for key, _ in rows])
        return {key for (key, record), blob in zip(rows, blobs, strict=True) if holds(record, blob)}

    # What was answered from an earlier filling may have been answered from these rows.
    forget_stored(store, log_table(scope, name), stored_keys, rows=_STEP, now=now)


def _begin(log: SourceLog, now: int) -> None:
    log.begin(now)
    log.save()
