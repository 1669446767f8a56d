"""Merging small files into large ones, and deleting days that are no longer kept."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import groupby

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cumulant.core.errors import CumulantError
from cumulant.ports.log import Log, PartInfo, split_covered
from cumulant.serving.prediction_log.storage import log_folder
from cumulant.serving.prediction_log.storage.log_reader import map_file
from cumulant.serving.prediction_log.storage.part_writer import (
    GROUP_BYTES,
    GROUP_ROWS,
    OPTIONS,
    SCHEMA,
    with_all_columns,
)

#: seconds of running time that a day waits on the list
GRACE = 86_400.0
#: seconds of one turn: less than another process waits for one that no longer answers
_TURN_SECONDS = 300.0
#: so many neighbours of at most so many bytes are merged at any age: a file costs each reader about a millisecond
_MANY, _SMALL_BYTES = 30, 64 * 1024


class DaysDue(msgspec.Struct, frozen=True, kw_only=True):
    """Days due for deletion, each with the seconds of running time on the list; `at`: seconds since 1970."""

    at: float = 0.0
    days: dict[str, float] = {}

    def advance(self, due: Iterable[date], *, now: datetime, steady: float) -> DaysDue:
        """The list after `steady` seconds of one process, with the days that are `due` now.

        Processes that share the folder take turns, so that what passed since the last turn is the least that any
        clock says.
        """
        passed = max(0.0, min(steady, now.timestamp() - self.at))
        names = [day.isoformat() for day in due]
        return DaysDue(
            at=now.timestamp(),
            days={name: self.days[name] + passed if name in self.days else 0.0 for name in names},
        )

    def expired(self, grace: float = GRACE) -> list[date]:
        """The days that have waited long enough."""
        return [date.fromisoformat(name) for name, waited in self.days.items() if waited >= grace]


def read_days_due(log: Log, keep: timedelta) -> DaysDue:
    """The list of a log; an empty one where there is none, or none that can be read: days then wait anew.

    Servers that keep rows for different times may share a log; each of these times has a list.
    """
    with contextlib.suppress(msgspec.MsgspecError):
        if (content := log.state(_name(keep))) is not None:
            return msgspec.json.decode(content, type=DaysDue)
    return DaysDue()


def write_days_due(log: Log, keep: timedelta, waiting: DaysDue) -> None:
    """Store the list. Raises as `Log`."""
    log.put_state(_name(keep), msgspec.json.encode(waiting))


def _name(keep: timedelta) -> str:
    return f".retention-{keep.total_seconds():.0f}.json"


def describe_listing(before: DaysDue, after: DaysDue, keep: timedelta, name: str = "the prediction log") -> str | None:
    """Notice for several days that became due at once, as after a clock's jump; None for at most one."""
    fresh = [date.fromisoformat(name) for name in after.days.keys() - before.days.keys()]
    if len(fresh) < 2:
        return None
    return (
        f"{describe_days(fresh)} of {name} are older than the {keep.days} days that are kept, and will be"
        " deleted after a day of running; if the clock is wrong, set it"
    )


def describe_days(days: Iterable[date]) -> str:
    """`2026-08-01`, or `3 days from 2026-08-01 to 2026-08-05`."""
    ordered = sorted(days)
    return str(ordered[0]) if len(ordered) == 1 else f"{len(ordered)} days from {ordered[0]} to {ordered[-1]}"


def upkeep(
    log: Log,
    *,
    keep: timedelta | None,
    file_size: int,
    file_age: float,
    steady: float = 0.0,
    say: Callable[[str], object] = sys.stderr.write,
    schema: pa.Schema = SCHEMA,
    name: str = "the prediction log",
) -> None:
    """Merge and delete parts that are due. Of processes that share a log, one at a time does so.

    `steady`: seconds since the caller's last turn, by a monotonic clock; `say` is called with what is deleted;
    `schema`: of the log's parts; `name`: of the log, for messages.

    Raises:
        StorageError, EngineUnavailableError: as `Log`; what was there is untouched.
    """
    with log.maintenance() as mine:
        if not mine:
            return
        begun = time.monotonic()
        over = set[date]() if keep is None else _over(log, keep, steady, say, name)
        gone = []
        for day in log.days():
            if day in over:
                _forget(log, day)
                gone += [] if log.parts(day) else [day]
            elif time.monotonic() - begun < _TURN_SECONDS:
                _merge_day(log, day, file_size, file_age, schema)
        if gone:
            say(f"{name} deleted {describe_days(gone)}, which serving.log.keep is over for\n")
        if keep is not None:
            _forget_lives(log, keep)


def _over(log: Log, keep: timedelta, steady: float, say: Callable[[str], object], name: str) -> set[date]:
    """The days to delete now; those that become due wait on a list first."""
    now = datetime.now(UTC)
    due = [day for day in log.days() if day < now.date() - keep]
    before = read_days_due(log, keep)
    after = before.advance(due, now=now, steady=steady)
    if text := describe_listing(before, after, keep, name):
        say(f"{text}\n")
    if after.days or before.days:
        with contextlib.suppress(CumulantError):  # a full disk is what deleting helps against
            write_days_due(log, keep, after)
    return set(after.expired())


def _merge_day(log: Log, day: date, file_size: int, file_age: float, schema: pa.Schema) -> None:
    current, covered = split_covered(log.parts(day))
    log.delete([part for part in covered if _is_settled(log, part, current)])
    for _, group in groupby(current, key=lambda part: part.life):
        for run in _runs(list(group), file_size, file_age):
            _merge(log, run, schema)


def _is_settled(log: Log, covered: PartInfo, current: Iterable[PartInfo]) -> bool:
    """Whether the part that covers this one was stored so long ago that each list begun before it has ended."""
    stored = max(part.modified for part in current if part.covers(covered))
    return abs(time.time() - stored) >= log.grace


def _runs(parts: list[PartInfo], file_size: int, file_age: float) -> Iterator[list[PartInfo]]:
    """Neighbours that together make one part: they fill it, the first one is old enough, or they are many and small."""
    run: list[PartInfo] = []
    size = 0
    for part in parts:
        if run and size + part.bytes > file_size:
            yield from [run] if len(run) > 1 else []
            run, size = [], 0
        run.append(part)
        size += part.bytes
    if len(run) > 1 and time.time() - run[0].modified >= file_age:
        yield run
    else:
        yield from _small_runs(run)


def _small_runs(parts: list[PartInfo]) -> Iterator[list[PartInfo]]:
    for small, group in groupby(parts, key=lambda part: part.bytes <= _SMALL_BYTES):
        run = list(group)
        if small and len(run) >= _MANY:
            yield run


def _merge(log: Log, run: list[PartInfo], schema: pa.Schema) -> None:
    merged = PartInfo(run[0].day, run[0].life, run[0].first, run[-1].last)
    try:
        with log.append(merged) as stream, pq.ParquetWriter(stream, schema, **OPTIONS) as writer:
            for table in _groups(log, run, schema):
                writer.write_table(table)
    except _DamagedError as error:
        log.set_aside(error.part)
        return
    if not log.grace:
        log.delete(run)


class _DamagedError(Exception):
    """Damaged part, which is set aside; its rows show as a gap."""

    def __init__(self, part: PartInfo) -> None:
        super().__init__(part.key)
        self.part = part


def _groups(log: Log, run: list[PartInfo], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of the parts as tables of a row group's size."""
    waiting: list[pa.Table] = []
    for part in run:
        for table in _read(log, part, schema):
            waiting.append(table)
            if (
                sum(rows.num_rows for rows in waiting) >= GROUP_ROWS
                or sum(rows.nbytes for rows in waiting) >= GROUP_BYTES
            ):
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _read(log: Log, part: PartInfo, schema: pa.Schema) -> Iterator[pa.Table]:
    try:
        with log.open(part) as file, pq.ParquetFile(map_file(file)) as source:
            for group in range(source.num_row_groups):
                # Each thread of a pool would keep memory of its own for the next time.
                yield with_all_columns(source.read_row_group(group, use_threads=False), schema)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException):
        raise _DamagedError(part) from None


def _forget(log: Log, day: date) -> None:
    """Delete a day, and record in the state of its workers up to which number rows were deleted."""
    for worker, last in _last_numbers(log, log.parts(day)).items():
        known = log_folder.read_life(log, worker)
        if known is None:
            continue
        if known.last is not None and known.last <= last:
            log_folder.forget_life(log, worker)
        else:
            known.forgotten = max(known.forgotten, last)
            log_folder.write_life(log, known)
    log.delete_day(day)


def _forget_lives(log: Log, keep: timedelta) -> None:
    """Delete the states of workers that ended without a row, longer ago than rows are kept."""
    oldest = (datetime.now(UTC) - keep - timedelta(days=1)).timestamp()
    for known in log_folder.read_lives(log):
        if known.last == known.forgotten and known.started / 1_000_000 < oldest:
            log_folder.forget_life(log, known.worker)


def _last_numbers(log: Log, parts: list[PartInfo]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for part in parts:
        try:
            with log.open(part) as file:
                table = pq.read_table(map_file(file), columns=["worker", "sequence"], partitioning=None)
        except (OSError, pa.ArrowException):  # a damaged part goes with its day
            continue
        for worker in pc.unique(table["worker"]).to_pylist():
            largest = pc.max(table["sequence"].filter(pc.equal(table["worker"], worker))).as_py()
            numbers[worker] = max(numbers.get(worker, 0), largest)
    return numbers
