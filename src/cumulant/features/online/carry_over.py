"""Carry-over between a filled table and the logs of posted rows: open rows are logged, stored ones removed.

A row of a snapshot is *open* while a column of it that becomes known later is null. Its other columns are needed when
that column is posted, so that it is put into the log, for `WAIT` after its event. A posted row stays in the log until a
snapshot has all that was posted of it, and for `WAIT`, so that a repetition is recognised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from cumulant.core.plan import FeaturePlan, Source
from cumulant.core.units import micros, to_micros
from cumulant.data.corrections.dated_rows import is_in_force
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.features.definition import known_time
from cumulant.features.offline.frames import blocks_of, inside, inside_as, known_times, scan_fields
from cumulant.features.offline.groups import groups_of
from cumulant.features.posted.posted_events import (
    Inside,
    LoggedRow,
    PostedRow,
    SourceLog,
    forget_stored,
    log_table,
    row_key,
)
from cumulant.ports.online import OnlineStore

WAIT = timedelta(days=90)
_STEP = 1_000


def reconcile_logs(
    plan: FeaturePlan,
    frames: Mapping[str, pl.LazyFrame | pl.DataFrame],
    store: OnlineStore,
    *,
    scope: str,
    as_of: datetime | None,
    versions: Collection[str] = (),
    block: int | None = None,
) -> None:
    """Log open rows of `frames`, and remove log rows that `frames` have and that need not wait. Of sources in
    `versions` the table itself holds the rows, and `stored_versions.trim_log` does it.

    `block`: rows of a source that are in memory at a time; None: all. Rows are read only where a log may change by
    them.
    """
    for name in sorted({group.source for group in groups_of(plan)} - set(versions)):
        source = plan.sources[name]
        if source.key:
            _reconcile_log(source, frames[name], store, log_table(scope, name), as_of=as_of, block=block)


def _reconcile_log(
    source: Source,
    rows: pl.LazyFrame | pl.DataFrame,
    store: OnlineStore,
    table: str,
    *,
    as_of: datetime | None,
    block: int | None,
) -> None:
    lazy = _scan(source, rows)
    if FROM in lazy.collect_schema():
        every = lazy.collect()
        frame = hide_after(every, source, as_of).filter(is_in_force(None if as_of is None else to_micros(as_of)))
        _correct(store, table, source, every, frame)
        lazy, block = frame.lazy(), None
    newest = _newest(lazy, source, as_of)
    if newest is None:
        return
    if later_columns(source):
        for part in blocks_of(lazy, block):
            _log_open_rows(store, table, source, hide_after(part, source, as_of), newest)
    old = _old_keys(store, table, source, lazy, newest)
    parts = [
        hide_after(part, source, as_of).join(old, on=source.key, how="semi")
        for part in (blocks_of(lazy, block) if old.height else [lazy.collect_schema().to_frame()])
    ]
    forget_stored(store, table, lambda _, logged: _stored_in_full(source, pl.concat(parts), logged, newest), rows=_STEP)


def _scan(source: Source, rows: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
    """The fields that the plan reads, and of all other columns whether there is a value."""
    read = {field.name for field in source.fields} | {ROW, FROM, UNTIL}
    others = [name for name in rows.lazy().collect_schema().names() if name not in read]
    more = [pl.col(name).is_not_null().alias(_has(name)) for name in others]
    return scan_fields(source.name, source.fields, rows, more=more)


def _has(name: str) -> str:
    return f"has {name}"


def hide_after(frame: pl.DataFrame, source: Source, as_of: datetime | None) -> pl.DataFrame:
    """The rows as they were known at `as_of`."""
    if as_of is None or source.event_time is None:
        return frame
    limit = pl.lit(as_of).cast(pl.Datetime("us", "UTC"))
    seen = []
    for column in later_columns(source):
        times = known_times(frame, source, [column])
        assert times is not None
        seen.append(pl.when(times <= as_of).then(pl.col(column)).alias(column))
    return frame.with_columns(seen).filter(pl.col(source.event_time) <= limit)


def later_columns(source: Source) -> list[str]:
    """Columns that become known after the row."""
    return [field.name for field in source.fields if known_time.known_at(source, field.name) is not None]


def _newest(rows: pl.LazyFrame, source: Source, as_of: datetime | None) -> int | None:
    """The moment that the rows reach to, in microseconds."""
    if as_of is not None:
        return to_micros(as_of)
    assert source.event_time is not None
    newest = rows.select(pl.col(source.event_time).max()).collect(engine="streaming").item()
    return None if newest is None else to_micros(newest)


def _old_keys(store: OnlineStore, table: str, source: Source, rows: pl.LazyFrame, newest: int) -> pl.DataFrame:
    """The keys of the log's rows that need not wait any more."""
    values: list[list[object]] = []
    mark, more = 0, True
    while more:
        logged, mark, more = store.update(lambda cells, mark=mark: _logged(SourceLog(cells, table), mark))  # type: ignore[misc]
        values += [[of[name] for name in source.key] for of in logged if _is_old(source, of, newest)]
    schema = rows.select(source.key).collect_schema()
    keys = pl.DataFrame(values, schema=list(source.key), orient="row") if values else schema.to_frame()
    return keys.select(inside_as(name, dtype) for name, dtype in schema.items()) if values else keys


def _logged(log: SourceLog, mark: int) -> tuple[list[Inside], int, bool]:
    """The values of some rows of a log from `mark` on, where they end, and whether there are more."""
    records, end = log.since(mark, _STEP)
    return [record.values for _, record in records], end, end < log.next


def _log_open_rows(store: OnlineStore, table: str, source: Source, frame: pl.DataFrame, newest: int) -> None:
    later = later_columns(source)
    assert source.event_time is not None
    open_rows = frame.filter(
        pl.any_horizontal(pl.col(column).is_null() for column in later),
        pl.all_horizontal(pl.col(column).is_not_null() for column in source.key),
        pl.col(source.event_time).cast(pl.Int64) > newest - micros(WAIT),
    )
    for rows in open_rows.select(ROW, *(field.name for field in source.fields)).iter_slices(_STEP):
        store.update(lambda cells, rows=rows: _append_open_rows(SourceLog(cells, table), source, rows))  # type: ignore[misc]


def _append_open_rows(log: SourceLog, source: Source, rows: pl.DataFrame) -> None:
    posted = [PostedRow(_key(source, values), values, {}) for values in _rows(rows, source)]
    log.load(row.key for row in posted)
    for row, position in zip(posted, rows[ROW].to_list(), strict=True):
        log.append(row, position)
    log.save()


def _correct(store: OnlineStore, table: str, source: Source, every: pl.DataFrame, frame: pl.DataFrame) -> None:
    """Posted rows that `frame` corrects take its values, and those that it no longer has leave the log."""
    key = list(source.key)
    changed = every.filter(pl.col(FROM).is_not_null() | pl.col(UNTIL).is_not_null()).select(key).unique()
    stays = {_key(source, values): values for values in _rows(frame.join(changed, on=key, how="semi"), source)}
    for keys in changed.iter_slices(_STEP):
        store.update(lambda cells, keys=keys: _apply_corrections(SourceLog(cells, table), source, keys, stays))  # type: ignore[misc]


def _apply_corrections(log: SourceLog, source: Source, keys: pl.DataFrame, stays: Mapping[bytes, Inside]) -> None:
    names = [row_key(values) for values in inside(keys.select(source.key))]
    log.load(names)
    for name in names:
        if name in stays:
            log.correct(name, stays[name])
    log.forget([name for name in names if name not in stays], log.first)
    log.save()


def _rows(frame: pl.DataFrame, source: Source) -> Iterator[Inside]:
    """The values of each row that are not null."""
    names = [field.name for field in source.fields]
    for row in inside(frame.select(names)):
        yield {name: value for name, value in zip(names, row, strict=True) if value is not None}


def _stored_in_full(
    source: Source, frame: pl.DataFrame, rows: list[tuple[bytes, LoggedRow]], newest: int
) -> set[bytes]:
    """Which of the rows are old, and in the frame with all that was posted of them."""
    old = {key: record for key, record in rows if _is_old(source, record.values, newest)}
    if not old:
        return set()
    types = {name: frame[name].dtype for name in source.key}
    keys = pl.DataFrame([{name: record.values[name] for name in source.key} for record in old.values()])
    keys = keys.select(inside_as(name, dtype) for name, dtype in types.items())
    return {
        key
        for key, values in _stored_rows(source, frame.join(keys, on=source.key, how="semi"))
        if _covers(values, old.get(key))
    }


def _is_old(source: Source, values: Inside, newest: int) -> bool:
    at = values.get(source.event_time or "")
    return at is not None and at <= newest - micros(WAIT)


def _stored_rows(source: Source, frame: pl.DataFrame) -> Iterator[tuple[bytes, dict[str, Any]]]:
    for row in inside(frame):
        values = dict(zip(frame.columns, row, strict=True))
        yield _key(source, values), values


def _covers(stored: Mapping[str, Any], record: LoggedRow | None) -> bool:
    """Whether the stored row has all that was posted; columns that the source does not have are ignored."""
    return (
        record is not None
        and all(stored.get(name) is not None for name in record.values)
        and all(stored.get(_has(name), True) for name in record.other)
    )


def _key(source: Source, values: Mapping[str, Any]) -> bytes:
    return row_key([values[name] for name in source.key])
