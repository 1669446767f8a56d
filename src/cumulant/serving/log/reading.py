"""Reading the prediction log while it is written. A reader never sees half a file, nor a row twice."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cumulant.core.errors import StorageError
from cumulant.core.prediction import Prediction
from cumulant.serving.log import place
from cumulant.serving.log.parts import SCHEMA, with_all_columns

if TYPE_CHECKING:
    import pyarrow.dataset as ds

Result = TypeVar("Result")
#: reads a file's rows, or some of their columns, batch by batch
Rows = Callable[..., Iterator[pa.Table]]
_BATCH = 65_536

#: files of so many days may still be merged
_MERGED_DAYS = 2
_LISTINGS = 100
#: texts that files of older versions do not hold
_LATER = ("caller_id", "invalid")
_TIMES = ("time", "event_time")


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Requests `first` to `last` of a worker were answered and are not in the log."""

    worker: str
    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1


def scan(folder: Path, *, since: date | None = None, until: date | None = None) -> ds.Dataset:
    """The rows of the days `since` to `until` as a pyarrow dataset, whose columns are `Prediction`'s fields.

    The dataset stays readable while the log goes on and merges its files; rows that come later are not in it.

    Raises:
        StorageError: the folder or a file cannot be read; damaged rows show when they are read, as by `batches`.
    """
    import pyarrow.dataset as ds  # it imports pandas, which takes half a second: only readers of whole days need it

    found = []
    for day in _days(folder, since, until):
        # Files of the last days may be merged while the dataset is read: held open, they stay.
        held = (datetime.now(UTC).date() - day).days < _MERGED_DAYS
        found += _whole(folder, day, partial(_fragment, held=held))
    return ds.FileSystemDataset(found, SCHEMA, ds.ParquetFileFormat())


def _fragment(path: Path, *, held: bool) -> ds.Fragment:
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    kind = ds.ParquetFileFormat()
    try:
        found = kind.make_fragment(pa.memory_map(str(path)) if held else str(path), None if held else LocalFileSystem())
        found.ensure_complete_metadata()  # read in any case; here the file can be named
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error
    return found


def batches(
    folder: Path, columns: list[str], *, wanted: Any = None, since: date | None = None, until: date | None = None
) -> Iterator[pa.RecordBatch]:
    """Some columns of the rows of the days `since` to `until`, of those that meet the condition `wanted` of pyarrow.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    found = scan(folder, since=since, until=until)
    try:
        yield from found.to_batches(columns=columns, filter=wanted)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(folder, error) from error


def stored(folder: Path, *, since: date | None = None, until: date | None = None) -> Iterator[tuple[place.File, Rows]]:
    """The files of the days `since` to `until`, each with what reads its rows in batches.

    For a reader that remembers which files it has seen. A file that is merged before it is read has no rows here: the
    merged one has them, at the next listing.
    """
    for file in place.files(folder, since, until):
        yield file, partial(_batches, file.path)


def _batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path) as found:
            for batch in found.iter_batches(_BATCH, columns=columns or SCHEMA.names):
                table = pa.Table.from_batches([batch])
                yield with_all_columns(table) if columns is None else table
    except FileNotFoundError:
        return
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def find(folder: Path, request: str, *, by: Literal["id", "caller_id"] = "id") -> list[Prediction]:
    """The rows of the request with that id, newest request first where an id came more than once.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    found: list[Prediction] = []
    for day in _days(folder):
        for rows in _whole(folder, day, partial(_of_request, request=request, by=by)):
            found += rows
    return sorted(found, key=lambda one: (-one.time, one.worker, one.sequence, one.row))


def _of_request(path: Path, *, request: str, by: Literal["id", "caller_id"]) -> list[Prediction]:
    ids = _read(path, None, [by])
    if by not in ids.column_names:  # a file of an older release
        return []
    # By substring first: making a scalar to compare with, pyarrow imports pandas, which takes half a second.
    matches = pc.match_substring(ids[by], request)
    if not pc.any(matches).as_py():
        return []
    rows = _answered(_read(path, None).filter(matches))
    return [one for one in predictions(rows) if getattr(one, by) == request]


def numbered(folder: Path, day: date, sequences: Sequence[int]) -> list[dict[str, Any]]:
    """Worker, sequence, row, request and outputs of the rows of a day that have one of these numbers, of all workers.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    rows = _whole(folder, day, partial(_numbered, sequences=np.array(sequences, dtype=np.int64)))
    return [row for of_file in rows for row in of_file]


def _numbered(path: Path, *, sequences: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    places = np.flatnonzero(np.isin(_sequences(_read(path, None, ["sequence"])), sequences))
    if not len(places):
        return []
    table = _read(path, None, ["worker", "sequence", "row", "request", "outputs"])
    return [row for place_ in places for row in table.slice(int(place_), 1).to_pylist()]


def recent(
    folder: Path, *, model: str | None = None, since: datetime | None = None, limit: int = 20
) -> list[Prediction]:
    """The newest rows, newest first; those of one model, and answered since a moment, where asked.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    wanted = _wanted(model, since)

    def newest(path: Path) -> pa.Table:
        return _answered(_read(path, wanted)).sort_by([("time", "descending")]).slice(0, limit)

    found: list[Prediction] = []
    for day in reversed(_days(folder, None if since is None else since.astimezone(UTC).date())):
        for table in _whole(folder, day, newest):
            found += predictions(table)
        if len(found) >= limit:
            break
    return sorted(found, key=lambda one: (-one.time, one.worker, -one.sequence, one.row))[:limit]


def gaps(folder: Path) -> list[Gap]:
    """What was answered and is not in the log, by worker: each hole in its sequence numbers, and its lost end.

    A worker's end is known where the log process saw it end; numbers of days that are no longer kept are no gap.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    seen: dict[str, list[np.ndarray[Any, Any]]] = {}
    for day in _days(folder):
        for numbers_of in _whole(folder, day, _numbers):
            for worker, numbers in numbers_of.items():
                seen.setdefault(worker, []).append(numbers)
    lives = {life.worker: life for life in place.lives(folder)}
    found: list[Gap] = []
    for worker in sorted({*seen, *lives}):
        numbers = np.unique(np.concatenate(seen.get(worker, [np.empty(0, dtype=np.int64)])))
        life = lives.get(worker)
        before = life.forgotten if life is not None else int(numbers[0]) - 1
        found += _holes(worker, numbers, before, life.last if life is not None else None)
    return found


def predictions(table: pa.Table) -> list[Prediction]:
    """The rows of a table of the log as records."""
    for name in _TIMES:
        place_ = table.schema.get_field_index(name)
        table = table.set_column(place_, name, table[name].cast(pa.int64()))
    rows = table.select(SCHEMA.names).to_pylist()
    return [Prediction(**{**row, **{name: row[name] or "" for name in _LATER}}) for row in rows]


def _answered(table: pa.Table) -> pa.Table:
    """Without what earlier versions logged of requests without rows: a row whose request and answer have no field."""
    named = [pc.match_substring(table[name], '"') for name in ("request", "outputs")]
    return table.filter(pc.or_(*named))


def _holes(worker: str, numbers: np.ndarray[Any, Any], before: int, last: int | None) -> Iterator[Gap]:
    kept = numbers[numbers > before]
    ends = [] if last is None or last <= before else [last + 1]
    edges = np.concatenate([np.array([before]), kept, np.array(ends, dtype=np.int64)]).astype(np.int64)
    for place_ in np.nonzero(np.diff(edges) > 1)[0]:
        yield Gap(worker=worker, first=int(edges[place_]) + 1, last=int(edges[place_ + 1]) - 1)


def _numbers(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The sequence numbers of each worker in one file."""
    table = _read(path, None, ["worker", "sequence"])
    workers = np.array(table["worker"].to_pylist())  # not compared in pyarrow, which imports pandas to make a scalar
    sequences = _sequences(table)
    return {str(worker): np.unique(sequences[workers == worker]) for worker in np.unique(workers)}


def _sequences(table: pa.Table) -> np.ndarray[Any, Any]:
    # Not `to_numpy`, which imports pandas.
    return np.concatenate([np.empty(0, np.int64), *map(np.from_dlpack, table["sequence"].chunks)])


def _wanted(model: str | None, since: datetime | None) -> Any:
    """The condition as pyarrow has it; None for every row."""
    conditions = []
    if model is not None:
        conditions.append(pc.equal(pc.field("model"), model))
    if since is not None:
        moment = pa.scalar(since.astimezone(UTC), SCHEMA.field("time").type)
        conditions.append(pc.greater_equal(pc.field("time"), moment))
    return reduce(operator.and_, conditions) if conditions else None


def _days(folder: Path, since: date | None = None, until: date | None = None) -> list[date]:
    found = [day for day, _ in place.days(folder)]
    return [day for day in found if (since is None or day >= since) and (until is None or day <= until)]


def _whole(folder: Path, day: date, read: Callable[[Path], Result]) -> list[Result]:
    """What `read` makes of each file of a day, each row once, although files are merged meanwhile."""
    for _ in range(_LISTINGS):
        try:
            return [read(file.path) for file in place.files(folder, day, day)]
        except FileNotFoundError:  # merged since it was listed
            continue
    raise StorageError(
        "files of the prediction log vanish while they are read",
        subject=str(folder),
        hint="look for links that lead nowhere, and for a program that deletes files there",
    )


def _read(path: Path, wanted: Any, columns: list[str] | None = None) -> pa.Table:
    try:
        with pq.ParquetFile(path) as found:
            table = found.read(columns=columns or SCHEMA.names)
            table = with_all_columns(table) if columns is None else table
            return table if wanted is None else table.filter(wanted)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"a file of the prediction log cannot be read: {error}",
        subject=str(path),
        hint="if it is damaged, move it out of the log's folder; its rows then show as a gap",
    )
