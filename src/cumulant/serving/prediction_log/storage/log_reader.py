"""Reading the prediction log while it is written. A reader never sees half a file, nor a row twice.

Interactive queries avoid pyarrow's compute functions: importing those takes longer than the query.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from itertools import groupby, islice
from typing import Any, BinaryIO, Literal, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cumulant.core.errors import CumulantError, EngineUnavailableError, StorageError
from cumulant.core.prediction import Prediction
from cumulant.core.system.disk_errors import is_exhausted
from cumulant.core.units import from_micros, to_micros
from cumulant.ports.log import Log, PartInfo, current_parts
from cumulant.serving.prediction_log.storage import log_folder
from cumulant.serving.prediction_log.storage.log_columns import (
    Flags,
    Integers,
    distinct,
    flags,
    integers,
    is_one_of,
    mentions,
)
from cumulant.serving.prediction_log.storage.part_writer import SCHEMA, with_all_columns

Result = TypeVar("Result")
#: where a row stands among the newest: time in microseconds, worker, sequence, row of its request
LogPlace = tuple[int, str, int, int]
#: reads a part's rows, or some of their columns, batch by batch; raises FileNotFoundError where it is gone
Rows = Callable[..., Iterator[pa.Table]]
_BATCH = 65_536
_SECOND = 1_000_000  # in microseconds

_LISTINGS = 100
#: texts that files of older versions do not hold
_LATER = ("caller_id", "invalid", "principal", "features", "incomplete")
_TIMES = ("time", "event_time")


class LogGap(msgspec.Struct, frozen=True, kw_only=True):
    """Requests `first` to `last` of a worker were answered and are not in the log."""

    worker: str
    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1


def iterate_files(log: Log, *, since: date | None = None, until: date | None = None) -> Iterator[tuple[PartInfo, Rows]]:
    """The parts of the days `since` to `until`, each with what reads its rows in batches.

    For a reader that remembers which parts it has seen. A part that is merged before it is read raises
    FileNotFoundError: the merged one has its rows, at the next listing.
    """
    for part in current_parts(log, since, until):
        yield part, partial(read_batches, log, part)


def read_batches(log: Log, part: PartInfo, columns: list[str] | None = None) -> Iterator[pa.Table]:
    try:
        with log.open(part) as file, pq.ParquetFile(map_file(file)) as source:
            for batch in source.iter_batches(_BATCH, columns=columns or SCHEMA.names):
                table = pa.Table.from_batches([batch])
                yield with_all_columns(table) if columns is None else table
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise damaged_file(log, part, error) from error


def find_predictions(log: Log, request: str, *, by: Literal["id", "caller_id"] = "id") -> list[Prediction]:
    """The rows of the request with that id, newest request first where an id came more than once.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    predictions: list[Prediction] = []
    for day in logged_days(log):
        for rows in read_day(log, day, partial(_of_request, log, request=request, by=by)):
            predictions += rows
    return sorted(
        predictions, key=lambda prediction: (-prediction.time, prediction.worker, prediction.sequence, prediction.row)
    )


def _of_request(log: Log, part: PartInfo, *, request: str, by: Literal["id", "caller_id"]) -> list[Prediction]:
    ids = _read(log, part, [by])
    if by not in ids.column_names or not mentions(ids[by], request):  # a file of an older release has no such column
        return []
    places = [position for position, text in enumerate(ids[by].to_pylist()) if text == request]
    table = _read(log, part) if places else None
    return [] if table is None else _records(table, (position for position in places if _is_answered(table, position)))


def numbered_rows(log: Log, day: date, sequences: Sequence[int], workers: Collection[str]) -> list[dict[str, Any]]:
    """Worker, sequence, row, request and outputs of the rows of a day that have one of these numbers, of these workers.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    wanted = np.array(sequences, dtype=np.int64)
    rows = read_day(log, day, partial(_numbered, log, wanted=wanted, workers=frozenset(workers)))
    return [row for of_file in rows for row in of_file]


def _numbered(log: Log, part: PartInfo, *, wanted: Integers, workers: frozenset[str]) -> list[dict[str, Any]]:
    if not _may_hold(log, part, "sequence", wanted):
        return []
    table = _read(log, part, ["worker", "sequence"], repeated=["worker"])
    chosen = np.isin(integers(table["sequence"]), wanted) & is_one_of(table["worker"], workers)
    places = np.flatnonzero(chosen)
    if not len(places):
        return []
    table = _read(log, part, ["worker", "sequence", "row", "request", "outputs"])
    return [row for position in places for row in table.slice(int(position), 1).to_pylist()]


def requests_by_second(log: Log, model: str, *, since: datetime, until: datetime) -> tuple[Integers, Integers]:
    """The seconds since 1970 UTC, in order, in which requests of a model were answered after `since` and until `until`,
    and how many in each [seconds], without those that were mirrored. Memory follows the time, not the requests.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    earliest, latest = to_micros(since), to_micros(until)
    first, counts = earliest // _SECOND, np.zeros((latest - earliest) // _SECOND + 2, dtype=np.int64)
    read = partial(_requests_by_second, log, model=model, earliest=earliest, latest=latest)
    for day in logged_days(log, since.astimezone(UTC).date(), until.astimezone(UTC).date()):
        for seconds, requests in read_day(log, day, read):
            counts[seconds - first] += requests
    occupied = np.flatnonzero(counts)
    return occupied + first, counts[occupied]


def _requests_by_second(
    log: Log, part: PartInfo, *, model: str, earliest: int, latest: int
) -> tuple[Integers, Integers]:
    table = _read(log, part, ["time", "row", "shadow", "model"], repeated=["model"])
    times = integers(table["time"])
    wanted = (earliest < times) & (times <= latest)
    if wanted.any():
        wanted &= np.concatenate([np.from_dlpack(chunk) for chunk in table["row"].chunks]) == 0
        wanted &= ~flags(table["shadow"]) & is_one_of(table["model"], (model,))
    seconds = np.sort(times[wanted] // _SECOND)
    begins = np.flatnonzero(np.diff(seconds, prepend=-1))
    return seconds[begins], np.diff(begins, append=len(seconds))


def recent_predictions(
    log: Log,
    *,
    model: str | None = None,
    since: datetime | None = None,
    before: LogPlace | None = None,
    limit: int = 20,
) -> list[Prediction]:
    """The newest rows, newest first; those of one model, and those answered since a moment, where given.

    With `before`, those that follow that row in this order.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    earliest = None if since is None else to_micros(since)
    newest = partial(_newest_of_day, log, model=model, earliest=earliest, before=before, limit=limit)
    until = None if before is None else from_micros(before[0]).date()
    predictions: list[Prediction] = []
    for day in reversed(logged_days(log, None if since is None else since.astimezone(UTC).date(), until)):
        predictions += _of_day(log, day, newest)
        if len(predictions) >= limit:
            break
    return sorted(predictions, key=_newest_first)[:limit]


def _newest_first(prediction: Prediction) -> tuple[int, str, int, int]:
    return -prediction.time, prediction.worker, -prediction.sequence, prediction.row


def _newest_of_day(
    log: Log, parts: list[PartInfo], *, model: str | None, earliest: int | None, before: LogPlace | None, limit: int
) -> list[Prediction]:
    """The newest rows of these parts; those are read whole that may hold one."""
    times_of = ((part, integers(_read(log, part, ["time"])["time"])) for part in parts)
    ends = [(int(times.max()), part.key, part) for part, times in times_of if len(times)]
    predictions: list[Prediction] = []
    for end, _, part in sorted(ends, key=lambda item: item[:2], reverse=True):
        if len(predictions) >= limit and end < predictions[limit - 1].time:
            break
        predictions += _newest(log, part, model=model, earliest=earliest, before=before, limit=limit)
        predictions.sort(key=_newest_first)
    return predictions[:limit]


def _newest(
    log: Log, part: PartInfo, *, model: str | None, earliest: int | None, before: LogPlace | None, limit: int
) -> list[Prediction]:
    """The newest rows of one file, at most `limit`."""
    table = _read(log, part)
    times = integers(table["time"])
    # of answers of one microsecond the oldest stands first in the file, and the rows of each in their order
    order = np.lexsort((-integers(table["sequence"]), -times))
    if earliest is not None:
        order = order[times[order] >= earliest]
    if model is not None:
        order = order[np.array([name == model for name in table["model"].to_pylist()], dtype=bool)[order]]
    if before is not None:
        order = order[_follows(table, times, before)[order]]
    return _records(table, islice((position for position in order.tolist() if _is_answered(table, position)), limit))


def _follows(table: pa.Table, times: Integers, before: LogPlace) -> Flags:
    """Which rows come after a place in the order of `_newest_first`; those of its microsecond are compared singly."""
    time, worker, sequence, row = before
    flags = times < time
    place = (worker, -sequence, row)
    for position in np.flatnonzero(times == time).tolist():
        own = (table[name][position].as_py() for name in ("worker", "sequence", "row"))
        name, number, index = own
        flags[position] = (name, -number, index) > place
    return flags


def find_gaps(log: Log) -> list[LogGap]:
    """Answered requests that are not in the log, by worker: gaps in the sequence numbers, and lost ends.

    A worker's end is known where the log process saw it end; numbers of days that are no longer kept are no gap.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    # Rows of a worker that has ended are there before its end is: an end that is known before they are read is certain.
    ended = {life.worker: life.last for life in log_folder.read_lives(log)}
    seen: dict[str, list[Integers]] = {}
    for day in logged_days(log):
        for numbers_of in read_day(log, day, partial(_numbers, log)):
            for worker, numbers in numbers_of.items():
                seen.setdefault(worker, []).append(numbers)
    lives = {life.worker: life for life in log_folder.read_lives(log)}
    holes: list[LogGap] = []
    for worker in sorted({*seen, *lives}):
        numbers = distinct(np.concatenate(seen.get(worker, [np.empty(0, dtype=np.int64)])))
        life = lives.get(worker)
        before = life.forgotten if life is not None else int(numbers[0]) - 1
        holes += _holes(worker, numbers, before, ended.get(worker))
    return holes


def _records(table: pa.Table, places: Iterable[int]) -> list[Prediction]:
    """The rows of a table of the log at these places as records."""
    for name in _TIMES:
        times = pa.chunked_array([chunk.view(pa.int64()) for chunk in table[name].chunks], pa.int64())
        table = table.set_column(table.schema.get_field_index(name), name, times)
    # Rows of one request follow each other, and are made objects together.
    runs = [list(run) for _, run in groupby(enumerate(places), lambda pair: pair[1] - pair[0])]
    rows = [row for run in runs for row in table.slice(run[0][1], len(run)).to_pylist()]
    return [Prediction(**{**row, **{name: row[name] or "" for name in _LATER}}) for row in rows]


def _is_answered(table: pa.Table, position: int) -> bool:
    """Whether a row's request or answer has a field: earlier versions logged requests without rows, too."""
    return any('"' in table[name][position].as_py() for name in ("request", "outputs"))


def _holes(worker: str, numbers: Integers, before: int, last: int | None) -> Iterator[LogGap]:
    logged = numbers[numbers > before]
    ends = [] if last is None or last <= before else [last + 1]
    edges = np.concatenate([np.array([before]), logged, np.array(ends, dtype=np.int64)]).astype(np.int64)
    for position in np.nonzero(np.diff(edges) > 1)[0]:
        yield LogGap(worker=worker, first=int(edges[position]) + 1, last=int(edges[position + 1]) - 1)


def _numbers(log: Log, part: PartInfo) -> dict[str, Integers]:
    """The sequence numbers of each worker in one file."""
    seen: dict[str, list[Integers]] = {}
    for batch in _read(log, part, ["worker", "sequence"], repeated=["worker"]).to_batches():
        workers, places = batch["worker"].dictionary.to_pylist(), np.from_dlpack(batch["worker"].indices)
        numbers = np.from_dlpack(batch["sequence"])
        for position, worker in enumerate(workers):
            if len(own := numbers[places == position]):
                seen.setdefault(str(worker), []).append(own)
    return {worker: distinct(np.concatenate(numbers)) for worker, numbers in seen.items()}


def logged_days(log: Log, since: date | None = None, until: date | None = None) -> list[date]:
    return [day for day in log.days() if (since is None or day >= since) and (until is None or day <= until)]


def read_day(log: Log, day: date, read: Callable[[PartInfo], Result]) -> list[Result]:
    """Results of `read` for each part of a day, each row once, although parts are merged meanwhile."""

    def read_all(parts: list[PartInfo]) -> list[Result]:
        log.prefetch(parts)
        return [read(part) for part in parts]

    return _of_day(log, day, read_all)


def _of_day(log: Log, day: date, read: Callable[[list[PartInfo]], Result]) -> Result:
    """Result of `read` for the parts of a day, each row once, although parts are merged meanwhile."""
    for _ in range(_LISTINGS):
        try:
            return read(current_parts(log, day, day))
        except FileNotFoundError:  # merged since it was listed
            continue
    raise StorageError(
        "files of the prediction log vanish while they are read",
        subject=log.location,
        hint="look for links that lead nowhere, and for a program that deletes files there",
    )


def _read(log: Log, part: PartInfo, columns: list[str] | None = None, *, repeated: list[str] | None = None) -> pa.Table:
    """Some columns of a part, else all of today's; those `repeated` as each value once and its places."""
    # For a few columns of many small files, read-ahead buffers and threads cost as much as the reading.
    whole = columns is None
    with _damage(log, part), log.open(part) as file:
        with pq.ParquetFile(map_file(file), read_dictionary=repeated, pre_buffer=whole) as source:
            table = source.read(columns=columns or SCHEMA.names, use_threads=whole)
        return with_all_columns(table) if whole else table


def _may_hold(log: Log, part: PartInfo, column: str, wanted: Integers) -> bool:
    """Whether a column may have one of these numbers, by the ranges in the part's footer."""
    with _damage(log, part), log.open(part) as file:
        metadata = pq.read_metadata(map_file(file))
    position = metadata.schema.names.index(column)
    ranges = [metadata.row_group(number).column(position).statistics for number in range(metadata.num_row_groups)]
    return any(
        statistics is None
        or not statistics.has_min_max
        or bool(((statistics.min <= wanted) & (wanted <= statistics.max)).any())
        for statistics in ranges
    )


@contextmanager
def _damage(log: Log, part: PartInfo) -> Iterator[None]:
    """Convert errors of reading a part to StorageError with its name."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise damaged_file(log, part, error) from error


def map_file(file: BinaryIO) -> pa.NativeFile:
    """A mapping of an open file, which stays when that is closed.

    Arrow's own: its threads may outlive the interpreter, and could not let go of a Python file then.

    Raises:
        OSError: the file is empty.
    """
    return pa.memory_map(f"/dev/fd/{file.fileno()}")


def damaged_file(log: Log, part: PartInfo | None, error: Exception) -> CumulantError:
    """The error of a part that cannot be read; None: which one is not known."""
    subject = log.location if part is None else f"{log.location}/{part.key}"
    if is_exhausted(error):
        hint = "free memory, or allow the process more open files, and run again"
        return EngineUnavailableError(
            f"too little memory to read the prediction log: {error}", subject=subject, hint=hint
        )
    return StorageError(
        f"a file of the prediction log cannot be read: {error}",
        subject=subject,
        hint="if it is damaged, move it out of the log's folder; its rows then show as a gap",
    )
