"""Scans of labels and of the prediction log with Polars, without Arrow, whose import costs a command 0.8 CPU s."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import IO, TypeVar

import polars as pl

from cumulant.core.errors import StorageError
from cumulant.outcomes.join.log_rows import TYPES
from cumulant.outcomes.labels import outcome_folder as place
from cumulant.ports.log import Log, PartInfo, current_parts

#: bytes of the log's parts that are read at once, and how many of them are open
_AT_ONCE, _OPEN = 16 << 20, 128
#: descriptors that an open file takes: its own, and one more while it is read; and those left for others
_EACH, _OTHERS, _UNLIMITED = 2, 64, 1 << 20
#: the column that names the file of a row, and the one that numbers the labels
FILE, FACT = "file", "fact"
Item = TypeVar("Item")
Query = Callable[[pl.LazyFrame], pl.LazyFrame]
#: of the files of a call
_Scan = Callable[[list[Path]], pl.LazyFrame]


class OpenFacts:
    """Labels in open files: they stay readable when batches are merged and removed meanwhile.

    Each is numbered in the column `FACT`, in the order of the store.
    """

    def __init__(self, folder: Path, files: Mapping[Path, IO[bytes]]) -> None:
        self._folder, self._held = folder, files

    def collect(self, query: Query) -> pl.DataFrame:
        """What `query` selects of the labels.

        Raises:
            StorageError: a file cannot be read.
        """
        return self._collect(list(self._held), lambda paths: query(self._numbered(paths, 0)))

    def numbered(self, numbers: pl.Series) -> pl.DataFrame:
        """The labels of these numbers, which ascend: only the files that hold them are read.

        Raises:
            StorageError: a file cannot be read.
        """
        of = (self._first.search_sorted(numbers, side="right") - 1).unique(maintain_order=True).to_list()
        runs = [[place for _, place in run] for _, run in groupby(enumerate(of), lambda pair: pair[1] - pair[0])]
        paths = list(self._held)

        def scan(_: list[Path]) -> pl.LazyFrame:
            read = (self._numbered([paths[place] for place in run], self._first[run[0]]) for run in runs)
            return pl.concat([*read, self._numbered(paths[:1], 0).head(0)]).filter(
                pl.col(FACT).is_in(numbers.implode())
            )

        return self._collect(paths, scan)

    @cached_property
    def _first(self) -> pl.Series:
        """The number of the first label of each file."""
        sizes = [self._collect([path], lambda paths: self._numbered(paths, 0).select(pl.len())) for path in self._held]
        heights = pl.concat(sizes)["len"]
        return heights.cum_sum() - heights

    def _numbered(self, paths: list[Path], first: int) -> pl.LazyFrame:
        files = [self._held[path] for path in paths]
        return pl.scan_parquet(files, glob=False, row_index_name=FACT, row_index_offset=first)

    def _collect(self, paths: list[Path], scan: _Scan) -> pl.DataFrame:
        try:
            return scan(paths).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _read_error(self._folder, paths, lambda some: self._numbered(some, 0), error) from error


@contextlib.contextmanager
def open_facts(folder: Path, batches: Sequence[str] | None = None) -> Iterator[OpenFacts | None]:
    """The labels that were ingested, or those of these batches; None where they are in too many files to hold open.

    Raises:
        StorageError: a file cannot be read.
    """
    most = max(0, _free_descriptors() - _OTHERS) // _EACH
    for _ in range(place.LISTINGS):
        with contextlib.ExitStack() as opened:
            try:
                paths = _parts(folder, batches)
                files = {path: opened.enter_context(path.open("rb")) for path in paths[:most]}
            except FileNotFoundError:
                continue
            yield OpenFacts(folder, files) if len(files) == len(paths) else None
            return
    raise place.vanishing_files_error(folder, "files")


def _free_descriptors() -> int:
    """How many files this process may open beside those that it has open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _UNLIMITED if limit == resource.RLIM_INFINITY else limit - sum(1 for _ in Path("/dev/fd").iterdir())


def collect_facts(
    folder: Path, query: Query, batches: Sequence[str] | None = None, *, named: bool = False
) -> pl.DataFrame | None:
    """What `query` selects of the labels that were ingested, or of these batches; None where there are none. With
    `named`, each row has its file in the column `FILE`, for `scan_files_of`.

    Raises:
        StorageError: a file cannot be read.
    """
    column = FILE if named else None
    return _collect(
        folder,
        lambda: _parts(folder, batches),
        lambda files: query(pl.scan_parquet(files, glob=False, include_file_paths=column)),
    )


def _parts(folder: Path, batches: Sequence[str] | None) -> list[Path]:
    """The files of all labels, or of these batches. Raises FileNotFoundError."""
    names = place.list_batches(folder) if batches is None else batches
    files = [place.list_parts(folder, name) for name in names]
    if batches is None and not all(files) and not set(names) <= set(place.list_batches(folder)):
        raise FileNotFoundError  # a batch was merged since it was listed
    return [path for of_batch in files for path in of_batch]


def scan_files_of(rows: pl.DataFrame) -> pl.LazyFrame:
    """All labels in the files of these `rows`, which a query of `collect_facts` has read with their `FILE`."""
    return pl.scan_parquet(rows[FILE].unique(maintain_order=True).to_list(), glob=False, include_file_paths=FILE)


def scan_predictions(log: Log, query: Query, *, size: int | None = None) -> Iterator[pl.DataFrame]:
    """What `query` selects of the prediction log's `COLUMNS`, for one or several days at a time, each row once.

    `query` is for rows: parts are read some at a time. `size`: bytes of parts that are read at once; a day is read
    whole.

    Raises:
        StorageError: a part cannot be read.
    """
    for days in _groups(log, size or _AT_ONCE):
        rows = _scan_days(log, days, query)
        if rows is not None and rows.height:
            yield rows


def _scan_days(log: Log, days: Sequence[date], query: Query) -> pl.DataFrame | None:
    """The rows of some days; a day whose parts are merged meanwhile is listed again."""
    for _ in range(place.LISTINGS):
        parts = [part for day in days for part in current_parts(log, day, day)]
        with contextlib.suppress(FileNotFoundError):
            frames = [_scan_parts(log, some, query) for some in _read_at_once(_sized(parts), _AT_ONCE, _OPEN)]
            return pl.concat(frames) if frames else None
    raise place.vanishing_files_error(log.location, "files")


def _scan_parts(log: Log, parts: Sequence[PartInfo], query: Query) -> pl.DataFrame:
    """Raises FileNotFoundError, StorageError."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(log.open(part)) for part in parts]
        try:
            return query(_scan_log(files)).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _damaged_part(log, parts, error) from error


def find_parts_with(log: Log, parts: Sequence[PartInfo], wanted: pl.Expr) -> set[str]:
    """The keys of those of these parts of the prediction log that have a row for which `wanted` holds.

    Raises:
        FileNotFoundError: a part is not there any more.
        StorageError: a part cannot be read.
    """
    matches: set[str] = set()
    for some in _read_at_once(_sized(parts), _AT_ONCE, _OPEN):
        places = _scan_parts(log, some, lambda rows: rows.with_row_index(FACT).filter(wanted).select(FACT))[FACT]
        if len(places):
            heights = pl.Series([_height(log, part) for part in some])
            within = heights.cum_sum().search_sorted(places, side="right").unique()
            matches.update(some[number].key for number in within.to_list())
    return matches


def _height(log: Log, part: PartInfo) -> int:
    with log.open(part) as file:
        return int(_scan_log([file]).select(pl.len()).collect().item())


def _scan_log(files: Sequence[IO[bytes]]) -> pl.LazyFrame:
    """Rows of parts of the log, which another version may have written with fewer columns or more."""
    return pl.scan_parquet(list(files), glob=False, schema=TYPES, missing_columns="insert", extra_columns="ignore")


def _groups(log: Log, size: int) -> Iterator[list[date]]:
    """Days whose parts are read at once."""
    return _read_at_once(((day, sum(part.bytes for part in log.parts(day))) for day in log.days()), size)


def _sized(parts: Iterable[PartInfo]) -> Iterator[tuple[PartInfo, int]]:
    return ((part, part.bytes) for part in parts)


def _read_at_once(sized: Iterable[tuple[Item, int]], most: int, count: int | None = None) -> Iterator[list[Item]]:
    """Things of so many bytes, in groups that are read at once; of at most `count`."""
    some: list[Item] = []
    size = 0
    for item, taken in sized:
        some.append(item)
        size += taken
        if size >= most or len(some) == count:
            yield some
            some, size = [], 0
    if some:
        yield some


def _collect(folder: Path, paths: Callable[[], list[Path]], scan: _Scan) -> pl.DataFrame | None:
    """The rows of `scan`; a file that is merged while it is read is listed again."""
    for _ in range(place.LISTINGS):
        listed: list[Path] = []
        try:
            listed = paths()
            if not listed:
                return None
            return scan(listed).collect()
        except FileNotFoundError:
            continue
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _read_error(folder, listed, scan, error) from error
    raise place.vanishing_files_error(folder, "files")


def _read_error(folder: Path, paths: Sequence[Path], scan: _Scan, error: Exception) -> StorageError:
    """Names the file; Polars names none where it reads several. Where each can be read alone, names the folder."""
    return _unreadable(str(next((path for path in paths if not _is_readable(path, scan)), folder)), error)


def _unreadable(subject: str, error: Exception) -> StorageError:
    return StorageError(
        f"a file of the outcomes or of the prediction log cannot be read: {error}",
        subject=subject,
        hint="if it is damaged, move it out of its folder; labels can be ingested again, rows of the log show as a gap",
    )


def _damaged_part(log: Log, parts: Sequence[PartInfo], error: Exception) -> StorageError:
    """Names the part; Polars names none where it reads several. Where each can be read alone, names the log."""
    damaged = next((part.key for part in parts if not _is_readable_part(log, part)), None)
    return _unreadable(log.location if damaged is None else f"{log.location}/{damaged}", error)


def _is_readable_part(log: Log, part: PartInfo) -> bool:
    try:
        with log.open(part) as file:
            _scan_log([file]).collect()
    except (OSError, pl.exceptions.PolarsError):
        return False
    return True


def _is_readable(path: Path, scan: _Scan) -> bool:
    try:
        scan([path]).collect()
    except (OSError, pl.exceptions.PolarsError):
        return False
    return True
