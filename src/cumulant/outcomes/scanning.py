"""Scans of labels and of the prediction log with Polars, without Arrow, whose import costs a command 0.8 CPU s."""

from __future__ import annotations

import contextlib
import io
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import polars as pl

from cumulant.core.errors import StorageError
from cumulant.outcomes.join.log_rows import TYPES
from cumulant.outcomes.labels.batches import LabelBatches
from cumulant.outcomes.logs import LISTINGS, vanishing_parts_error
from cumulant.ports.log import Log, PartInfo, current_parts

#: bytes of the log's parts that are read at once, and how many of them are open
_AT_ONCE, _OPEN = 16 << 20, 128
#: descriptors that an open file takes: its own, and one more while it is read; and those left for others
_EACH, _OTHERS, _UNLIMITED = 2, 64, 1 << 20
#: labels of a part that are read at once for some of them
_PIECE = 65_536
#: the column that names the file of a row, and the one that numbers the labels
FILE, FACT = "file", "fact"
Item = TypeVar("Item")
Query = Callable[[pl.LazyFrame], pl.LazyFrame]
#: the rows of the parts of these names
_PartRows = Callable[[Iterable[str]], pl.LazyFrame]


class OpenFacts:
    """Labels in open parts: they stay readable when batches are merged and deleted meanwhile.

    Each is numbered in the column `FACT`, in the order of the batches.
    """

    def __init__(self, labels: Log, files: Mapping[PartInfo, IO[bytes]]) -> None:
        self._labels, self._files = labels, files

    def collect(self, query: Query) -> pl.DataFrame:
        """What `query` selects of the labels.

        Raises:
            StorageError: a part cannot be read.
        """
        return self._collect(lambda: query(self._scan(list(self._files.values()), 0)))

    def collect_named(self, query: Callable[[pl.LazyFrame, _PartRows], pl.LazyFrame]) -> pl.DataFrame:
        """As `collect`; each row has its part in the column `FILE`, and `query` gets what scans parts by these names.

        Raises:
            StorageError: a part cannot be read.
        """
        scans = {
            part.key: pl.scan_parquet(file, glob=False).with_columns(pl.lit(part.key).alias(FILE))
            for part, file in self._files.items()
        }
        return self._collect(
            lambda: query(pl.concat(scans.values()), lambda names: pl.concat(scans[name] for name in names))
        )

    def numbered(self, numbers: pl.Series) -> pl.DataFrame:
        """The labels of these numbers, which ascend: only the pieces of parts that hold them are read.

        Raises:
            StorageError: a part cannot be read.
        """
        of = (self._first.search_sorted(numbers, side="right") - 1).unique(maintain_order=True).to_list()
        runs = [[place for _, place in run] for _, run in groupby(enumerate(of), lambda pair: pair[1] - pair[0])]
        files = list(self._files.values())

        def scan() -> pl.LazyFrame:
            read = []
            for run in runs:
                for file, places in groupby(run, lambda place: self._pieces[place].file):
                    own = [self._pieces[place] for place in places]
                    rows = sum(piece.rows for piece in own)
                    first = own[0].first - own[0].offset
                    read.append(self._scan([files[file]], first).slice(own[0].offset, rows))
            none = self._scan(files[:1], 0).head(0)
            return pl.concat([*read, none]).filter(pl.col(FACT).is_in(numbers.implode()))

        return self._collect(scan)

    @cached_property
    def _pieces(self) -> list[_Piece]:
        pieces, first = [], 0
        for place, file in enumerate(self._files.values()):
            height = self._collect(partial(self._height, file)).item()
            for offset in range(0, height, _PIECE):
                rows = min(_PIECE, height - offset)
                pieces.append(_Piece(place, offset, rows, first))
                first += rows
        return pieces

    @cached_property
    def _first(self) -> pl.Series:
        """The number of the first label of each piece."""
        return pl.Series([piece.first for piece in self._pieces], dtype=pl.UInt32)

    def _height(self, file: IO[bytes]) -> pl.LazyFrame:
        return self._scan([file], 0).select(pl.len())

    def _scan(self, files: list[IO[bytes]], first: int) -> pl.LazyFrame:
        return pl.scan_parquet(files, glob=False, row_index_name=FACT, row_index_offset=first)

    def _collect(self, scan: Callable[[], pl.LazyFrame]) -> pl.DataFrame:
        try:
            return scan().collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            damaged = next((part for part, file in self._files.items() if not _is_readable(file)), None)
            place = self._labels.location if damaged is None else f"{self._labels.location}/{damaged.key}"
            raise _unreadable(place, error) from error


class _Piece(NamedTuple):
    """Rows of one file: the first is numbered `first`, and has `offset` rows of the file before it."""

    file: int
    offset: int
    rows: int
    first: int


@contextlib.contextmanager
def open_facts(labels: Log, batches: Sequence[str] | None = None) -> Iterator[OpenFacts | None]:
    """The labels that were ingested, or those of these batches; None where there are none.

    Raises:
        StorageError: a part cannot be read.
        FileNotFoundError: one of these batches was merged and deleted.
    """
    for _ in range(LISTINGS):
        with contextlib.ExitStack() as opened:
            listed = LabelBatches(labels)
            try:
                parts = [listed.part(name) for name in (listed.names if batches is None else batches)]
                files = _open_files(labels, parts, opened)
            except FileNotFoundError:
                if batches is not None:
                    raise
                continue  # merged since they were listed
            yield OpenFacts(labels, files) if files else None
            return
    raise vanishing_parts_error(labels)


def _open_files(labels: Log, parts: Sequence[PartInfo], opened: contextlib.ExitStack) -> dict[PartInfo, IO[bytes]]:
    """The parts as files; or their contents, where this process may not open so many. Raises FileNotFoundError."""
    if len(parts) * _EACH + _OTHERS <= _free_descriptors():
        return {part: opened.enter_context(labels.open(part)) for part in parts}
    files: dict[PartInfo, IO[bytes]] = {}
    for part in parts:
        with labels.open(part) as file:
            files[part] = io.BytesIO(file.read())
    return files


def _free_descriptors() -> int:
    """How many files this process may open beside those that it has open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _UNLIMITED if limit == resource.RLIM_INFINITY else limit - sum(1 for _ in Path("/dev/fd").iterdir())


def collect_facts(labels: Log, query: Query, batches: Sequence[str] | None = None) -> pl.DataFrame | None:
    """What `query` selects of the labels that were ingested, or of these batches; None where there are none.

    Raises:
        StorageError, FileNotFoundError: as `open_facts`.
    """
    with open_facts(labels, batches) as facts:
        return None if facts is None else facts.collect(lambda rows: query(rows.drop(FACT)))


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
    for _ in range(LISTINGS):
        parts = [part for day in days for part in current_parts(log, day, day)]
        with contextlib.suppress(FileNotFoundError):
            frames = [_scan_parts(log, some, query) for some in _read_at_once(_sized(parts), _AT_ONCE, _OPEN)]
            return pl.concat(frames) if frames else None
    raise vanishing_parts_error(log)


def scan_part(log: Log, part: PartInfo, query: Query) -> pl.DataFrame:
    """What `query` selects of the `COLUMNS` of a part of the prediction log. Raises FileNotFoundError, StorageError."""
    return _scan_parts(log, [part], query)


def _scan_parts(log: Log, parts: Sequence[PartInfo], query: Query) -> pl.DataFrame:
    """Raises FileNotFoundError, StorageError."""
    log.prefetch(parts)
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


def _is_readable(file: IO[bytes]) -> bool:
    try:
        file.seek(0)
        pl.scan_parquet(file, glob=False).collect()
    except (OSError, pl.exceptions.PolarsError):
        return False
    return True
