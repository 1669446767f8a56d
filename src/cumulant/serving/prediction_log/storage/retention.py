"""Merging small files into large ones, and deleting days that are no longer kept."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cumulant.core.system.atomic_files import sync
from cumulant.core.system.json_files import read_json
from cumulant.core.system.locks import try_lock
from cumulant.serving.prediction_log.storage import log_folder
from cumulant.serving.prediction_log.storage.log_folder import PredictionFile, write_json
from cumulant.serving.prediction_log.storage.part_writer import (
    GROUP_BYTES,
    GROUP_ROWS,
    OPTIONS,
    SCHEMA,
    with_all_columns,
)

#: seconds of running time that a day waits on the list
GRACE = 86_400.0
_LEFT_SECONDS = 3600.0
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


def read_days_due(folder: Path, keep: timedelta) -> DaysDue:
    """The list of a log's folder; an empty one where there is none, or none that can be read: days then wait anew.

    Servers that keep rows for different times may share a folder; each of these times has a list.
    """
    return read_json(_path(folder, keep), DaysDue) or DaysDue()


def write_days_due(folder: Path, keep: timedelta, waiting: DaysDue) -> None:
    """Keep the list.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    write_json(_path(folder, keep), waiting)


def _path(folder: Path, keep: timedelta) -> Path:
    return folder / f".retention-{keep.total_seconds():.0f}.json"


def describe_listing(before: DaysDue, after: DaysDue, keep: timedelta) -> str | None:
    """Notice for several days that became due at once, as after a clock's jump; None for at most one."""
    fresh = [date.fromisoformat(name) for name in after.days.keys() - before.days.keys()]
    if len(fresh) < 2:
        return None
    return (
        f"{describe_days(fresh)} of the prediction log are older than the {keep.days} days that are kept, and will be"
        " deleted after a day of running; if the clock is wrong, set it"
    )


def describe_days(days: Iterable[date]) -> str:
    """`2026-08-01`, or `3 days from 2026-08-01 to 2026-08-05`."""
    ordered = sorted(days)
    return str(ordered[0]) if len(ordered) == 1 else f"{len(ordered)} days from {ordered[0]} to {ordered[-1]}"


def upkeep(
    folder: Path,
    *,
    keep: timedelta | None,
    file_size: int,
    file_age: float,
    steady: float = 0.0,
    say: Callable[[str], object] = sys.stderr.write,
) -> None:
    """Merge and delete files that are due. Of processes that share a folder, one at a time does so.

    `steady`: seconds since the caller's last turn, by a monotonic clock; `say` is called with what is deleted.

    Raises:
        OSError: the disk is full or cannot be written; what was there is untouched.
    """
    with _turn(folder) as mine:
        if not mine:
            return
        over = set[date]() if keep is None else _over(folder, keep, steady, say)
        gone = []
        for day, path in log_folder.list_days(folder):
            if day in over:
                _forget(folder, day, path)
                gone += [] if path.exists() else [day]
            else:
                _merge_day(folder, day, file_size, file_age)
                _remove_abandoned(path)
        if gone:
            say(f"the prediction log deleted {describe_days(gone)}, which serving.log.keep is over for\n")
        if keep is not None:
            _forget_lives(folder, keep)


def _over(folder: Path, keep: timedelta, steady: float, say: Callable[[str], object]) -> set[date]:
    """The days to delete now; those that become due wait on a list first."""
    now = datetime.now(UTC)
    due = [day for day, _ in log_folder.list_days(folder) if day < now.date() - keep]
    before = read_days_due(folder, keep)
    after = before.advance(due, now=now, steady=steady)
    if text := describe_listing(before, after, keep):
        say(f"{text}\n")
    if after.days or before.days:
        with contextlib.suppress(OSError):  # a full disk is what deleting helps against
            write_days_due(folder, keep, after)
    return set(after.expired())


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[bool]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".upkeep").open("wb") as lock:
        yield try_lock(lock.fileno())


def _merge_day(folder: Path, day: date, file_size: int, file_age: float) -> None:
    current, covered = log_folder.split_covered(log_folder.list_day_files(folder, day))
    for file in covered:  # a merge that was cut off after its renaming
        file.path.unlink(missing_ok=True)
    for _, group in groupby(current, key=lambda file: file.life):
        for run in _runs(list(group), file_size, file_age):
            _merge(folder, run)


def _runs(files: list[PredictionFile], file_size: int, file_age: float) -> Iterator[list[PredictionFile]]:
    """Neighbours that together make one file: they fill it, the first one is old enough, or they are many and small."""
    run: list[PredictionFile] = []
    sizes: list[int] = []
    for file in files:
        size = file.path.stat().st_size
        if run and sum(sizes) + size > file_size:
            yield from [run] if len(run) > 1 else []
            run, sizes = [], []
        run.append(file)
        sizes.append(size)
    if len(run) > 1 and time.time() - run[0].path.stat().st_mtime >= file_age:
        yield run
    else:
        yield from _small_runs(run, sizes)


def _small_runs(files: list[PredictionFile], sizes: list[int]) -> Iterator[list[PredictionFile]]:
    for small, group in groupby(zip(files, sizes, strict=True), key=lambda pair: pair[1] <= _SMALL_BYTES):
        run = [file for file, _ in group]
        if small and len(run) >= _MANY:
            yield run


def _merge(folder: Path, run: list[PredictionFile]) -> None:
    first, last = run[0], run[-1]
    writing = log_folder.writing_path(folder, first.day, f"{first.life}-merge", first.first)
    try:
        with pq.ParquetWriter(writing, SCHEMA, **OPTIONS) as writer:
            for table in _groups(run):
                writer.write_table(table)
        sync(writing)
        writing.rename(log_folder.part_path(folder, first.day, first.life, first.first, last.last))
    except _DamagedError as error:
        writing.unlink(missing_ok=True)
        error.path.rename(error.path.with_suffix(".damaged"))
        return
    except BaseException:
        writing.unlink(missing_ok=True)
        raise
    for file in run:
        file.path.unlink(missing_ok=True)


class _DamagedError(Exception):
    """Damaged file, which is renamed; its rows show as a gap."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


def _groups(run: list[PredictionFile]) -> Iterator[pa.Table]:
    """The rows of the files as tables of a row group's size."""
    waiting: list[pa.Table] = []
    for file in run:
        for table in _read(file.path):
            waiting.append(table)
            if (
                sum(part.num_rows for part in waiting) >= GROUP_ROWS
                or sum(part.nbytes for part in waiting) >= GROUP_BYTES
            ):
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _read(path: Path) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path) as source:
            for group in range(source.num_row_groups):
                # Each thread of a pool would keep memory of its own for the next time.
                yield with_all_columns(source.read_row_group(group, use_threads=False))
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException):
        raise _DamagedError(path) from None


def _remove_abandoned(path: Path) -> None:
    """Delete drafts of ended processes."""
    for draft in path.glob(f".*{log_folder.WRITING}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > _LEFT_SECONDS:
                draft.unlink()


def _forget(folder: Path, day: date, path: Path) -> None:
    """Delete a day, and record in the state of its workers up to which number rows were deleted."""
    for worker, last in _last_numbers([file.path for file in log_folder.list_day_files(folder, day)]).items():
        known = log_folder.read_life(folder, worker)
        if known is None:
            continue
        if known.last is not None and known.last <= last:
            log_folder.forget_life(folder, worker)
        else:
            known.forgotten = max(known.forgotten, last)
            log_folder.write_life(folder, known)
    shutil.rmtree(path, ignore_errors=True)


def _forget_lives(folder: Path, keep: timedelta) -> None:
    """Delete the states of workers that ended without a row, longer ago than rows are kept."""
    oldest = (datetime.now(UTC) - keep - timedelta(days=1)).timestamp()
    for known in log_folder.read_lives(folder):
        if known.last == known.forgotten and known.started / 1_000_000 < oldest:
            log_folder.forget_life(folder, known.worker)


def _last_numbers(paths: list[Path]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for path in paths:
        try:
            table = pq.read_table(path, columns=["worker", "sequence"], partitioning=None)
        except (OSError, pa.ArrowException):  # a damaged file goes with its day
            continue
        for worker in pc.unique(table["worker"]).to_pylist():
            largest = pc.max(table["sequence"].filter(pc.equal(table["worker"], worker))).as_py()
            numbers[worker] = max(numbers.get(worker, 0), largest)
    return numbers
