"""Labels and rows of the prediction log as Polars reads them: without Arrow, whose import costs a command 0.8 CPU s."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

import polars as pl

from cumulant.core.errors import StorageError
from cumulant.outcomes import place
from cumulant.outcomes.scored import TYPES
from cumulant.serving import log

#: bytes of the log's files that are read at once; a day is read whole
_AT_ONCE = 16 << 20
#: the column that names the file of a row
FILE = "file"
Item = TypeVar("Item")
Query = Callable[[pl.LazyFrame], pl.LazyFrame]
#: of the files of a call
_Scan = Callable[[list[Path]], pl.LazyFrame]


def facts(
    folder: Path, query: Query, batches: Sequence[str] | None = None, *, named: bool = False
) -> pl.DataFrame | None:
    """What `query` selects of the labels that were ingested, or of these batches; None where there are none. With
    `named`, each row has its file in the column `FILE`, for `within`.

    Raises:
        StorageError: a file cannot be read.
    """

    def paths() -> list[Path]:
        names = place.batches(folder) if batches is None else batches
        files = [place.parts(folder, name) for name in names]
        if batches is None and not all(files) and not set(names) <= set(place.batches(folder)):
            raise FileNotFoundError  # a batch was merged since it was listed
        return [path for of_batch in files for path in of_batch]

    column = FILE if named else None
    return _collected(folder, paths, lambda files: query(pl.scan_parquet(files, glob=False, include_file_paths=column)))


def within(rows: pl.DataFrame) -> pl.LazyFrame:
    """All labels in the files of these `rows`, which a query of `facts` has read with their `FILE`."""
    return pl.scan_parquet(rows[FILE].unique(maintain_order=True).to_list(), glob=False, include_file_paths=FILE)


def predictions(
    folder: Path, query: Query, *, since: date | None = None, until: date | None = None
) -> Iterator[pl.DataFrame]:
    """What `query` selects of the prediction log's `COLUMNS`, for one or several days at a time, each row once.

    Raises:
        StorageError: a file cannot be read.
    """
    for days in _groups(folder, since, until):

        def paths(days: Sequence[date] = days) -> list[Path]:
            return [file.path for day in days for file in log.files(folder, day, day)]

        rows = _collected(folder, paths, lambda files: query(_logged(files)))
        if rows is not None and rows.height:
            yield rows


def files_with(folder: Path, files: Sequence[Path], wanted: pl.Expr) -> set[Path]:
    """Those of these files of the prediction log in `folder` that have a row for which `wanted` holds.

    Raises:
        FileNotFoundError: a file is not there any more.
        StorageError: a file cannot be read.
    """
    found: set[Path] = set()
    for some in _read_at_once((path, path.stat().st_size) for path in files):
        try:
            rows = _logged(some, FILE).filter(wanted).select(pl.col(FILE).unique()).collect()
        except FileNotFoundError:
            raise
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _damaged(folder, some, _logged, error) from error
        found.update(map(Path, rows[FILE].to_list()))
    return found


def _logged(files: list[Path], name: str | None = None) -> pl.LazyFrame:
    """Rows of the log, whose files of another version may have fewer columns or more; with their file as `name`."""
    return pl.scan_parquet(
        files, glob=False, schema=TYPES, missing_columns="insert", extra_columns="ignore", include_file_paths=name
    )


def _groups(folder: Path, since: date | None, until: date | None) -> Iterator[list[date]]:
    """Days whose files are read at once."""
    return _read_at_once(
        (day, _size(path))
        for day, path in log.days(folder)
        if (since is None or day >= since) and (until is None or day <= until)
    )


def _read_at_once(sized: Iterable[tuple[Item, int]]) -> Iterator[list[Item]]:
    """Things of so many bytes, in groups that are read at once."""
    some: list[Item] = []
    size = 0
    for item, taken in sized:
        some.append(item)
        size += taken
        if size >= _AT_ONCE:
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


def _collected(folder: Path, paths: Callable[[], list[Path]], scan: _Scan) -> pl.DataFrame | None:
    """A file that is merged while it is read is looked for again."""
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
            raise _damaged(folder, listed, scan, error) from error
    raise place.vanishing(folder, "files")


def _damaged(folder: Path, paths: Sequence[Path], scan: _Scan, error: Exception) -> StorageError:
    """Names the file; Polars names none where it reads several. Where each can be read alone, names the folder."""
    return StorageError(
        f"a file of the outcomes or of the prediction log cannot be read: {error}",
        subject=str(next((path for path in paths if not _readable(path, scan)), folder)),
        hint="if it is damaged, move it out of its folder; labels can be ingested again, rows of the log show as a gap",
    )


def _readable(path: Path, scan: _Scan) -> bool:
    try:
        scan([path]).collect()
    except (OSError, pl.exceptions.PolarsError):
        return False
    return True
