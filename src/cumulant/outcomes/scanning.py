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

#: bytes of the log's files that are read at once
_AT_ONCE = 16 << 20
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


def scan_predictions(
    folder: Path, query: Query, *, since: date | None = None, until: date | None = None, size: int | None = None
) -> Iterator[pl.DataFrame]:
    """What `query` selects of the prediction log's `COLUMNS`, for one or several days at a time, each row once.

    `size`: bytes of files that are read at once; a day is read whole.

    Raises:
        StorageError: a file cannot be read.
    """
    from cumulant.serving.prediction_log.storage.log_folder import current_files as log_files

    for days in _groups(folder, since, until, size or _AT_ONCE):

        def paths(days: Sequence[date] = days) -> list[Path]:
            return [file.path for day in days for file in log_files(folder, day, day)]

        rows = _collect(folder, paths, lambda files: query(_scan_log(files)))
        if rows is not None and rows.height:
            yield rows


def find_files_with(folder: Path, files: Sequence[Path], wanted: pl.Expr) -> set[Path]:
    """Those of these files of the prediction log in `folder` that have a row for which `wanted` holds.

    Raises:
        FileNotFoundError: a file is not there any more.
        StorageError: a file cannot be read.
    """
    matches: set[Path] = set()
    for some in _read_at_once(((path, path.stat().st_size) for path in files), _AT_ONCE):
        try:
            rows = _scan_log(some, FILE).filter(wanted).select(pl.col(FILE).unique()).collect()
        except FileNotFoundError:
            raise
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _read_error(folder, some, _scan_log, error) from error
        matches.update(map(Path, rows[FILE].to_list()))
    return matches


def _scan_log(files: list[Path], name: str | None = None) -> pl.LazyFrame:
    """Rows of the log, whose files of another version may have fewer columns or more; with their file as `name`."""
    return pl.scan_parquet(
        files, glob=False, schema=TYPES, missing_columns="insert", extra_columns="ignore", include_file_paths=name
    )


def _groups(folder: Path, since: date | None, until: date | None, size: int) -> Iterator[list[date]]:
    """Days whose files are read at once."""
    from cumulant.serving.prediction_log.storage.log_folder import list_days

    sized = (
        (day, _size(path))
        for day, path in list_days(folder)
        if (since is None or day >= since) and (until is None or day <= until)
    )
    return _read_at_once(sized, size)


def _read_at_once(sized: Iterable[tuple[Item, int]], most: int) -> Iterator[list[Item]]:
    """Things of so many bytes, in groups that are read at once."""
    some: list[Item] = []
    size = 0
    for item, taken in sized:
        some.append(item)
        size += taken
        if size >= most:
            yield some
            some, size = [], 0
    if some:
        yield some


def _size(folder: Path) -> int:
    """Bytes of a day's files; one that is merged meanwhile, or a day that is deleted, counts nothing."""
    sizes = 0
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                sizes += path.stat().st_size
    return sizes


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
    return StorageError(
        f"a file of the outcomes or of the prediction log cannot be read: {error}",
        subject=str(next((path for path in paths if not _is_readable(path, scan)), folder)),
        hint="if it is damaged, move it out of its folder; labels can be ingested again, rows of the log show as a gap",
    )


def _is_readable(path: Path, scan: _Scan) -> bool:
    try:
        scan([path]).collect()
    except (OSError, pl.exceptions.PolarsError):
        return False
    return True
