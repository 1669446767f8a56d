"""Tables as folders of zstd Parquet files, immutable and visible whole."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import polars as pl

from cumulant.core.errors import DataError, StorageError, not_found
from cumulant.core.refs import TableRef
from cumulant.drivers.local.folders import Shelf, storage_error
from cumulant.drivers.local.location import locate

_MANIFEST = "_table.json"
_ROW_GROUP = 131_072
# Frames that come one by one are put together to files of about this many rows.
_FILE_ROWS = 1_048_576
_POSITION = "__position"
_SYSTEM_ERROR = re.compile(r"os error (\d+)")


class Part(msgspec.Struct, frozen=True):
    """One Parquet file of a table, relative to its folder."""

    path: str
    rows: int
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What `_table.json` holds. `positioned`: rows carry their number and are sorted by it when scanned."""

    key: str
    rows: int
    bytes: int
    parts: tuple[Part, ...]
    partition_by: tuple[str, ...] = ()
    positioned: bool = False
    sort: bool = False


class FileTables:
    """A table store in a folder: `file:///path/to/tables`.

    `a/b` lies in `a/b.parquet/`, which DuckDB, Spark and Polars read as it stands. With `partition_by` the files
    lie in `column=value` folders and keep the columns inside.
    """

    def __init__(self, url: str) -> None:
        self._shelf = Shelf(locate(url).path, suffix=".parquet", manifest=_MANIFEST, holds="table")

    def write(
        self,
        key: str,
        frames: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame],
        *,
        partition_by: Sequence[str] = (),
    ) -> TableRef:
        if standing := self.find(key):
            return standing
        with self._shelf.writing(key) as folder, _storage_errors(key, folder):
            if partition_by:
                _write_partitions(folder, _lazy(key, frames), tuple(partition_by))
            elif isinstance(frames, (pl.DataFrame, pl.LazyFrame)):
                _sink(frames.lazy(), folder / _part(0))
            else:
                for number, frame in enumerate(_gather(key, frames)):
                    frame.write_parquet(folder / _part(number), row_group_size=_ROW_GROUP)
            manifest = _describe(key, folder, tuple(partition_by))
            (folder / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        # Another writer may have been first.
        return self.find(key) or TableRef(key, manifest.rows, manifest.bytes)

    def scan(self, ref: TableRef | str) -> pl.LazyFrame:
        key = ref if isinstance(ref, str) else ref.key
        manifest = self._manifest(key)
        if manifest is None:
            raise not_found("table", key, self.keys())
        folder = self._shelf.folder(key)
        paths = [folder / part.path for part in manifest.parts]
        for path, part in zip(paths, manifest.parts, strict=True):
            if not path.is_file() or path.stat().st_size != part.bytes:
                raise StorageError(
                    f"table {key} is damaged: {part.path} is missing or has another size",
                    subject=str(path),
                    hint="delete the table and run again: it is made anew",
                )
        frame = pl.scan_parquet(paths, glob=False, hive_partitioning=False)
        if manifest.sort:
            frame = frame.sort(_POSITION)
        return frame.drop(_POSITION) if manifest.positioned else frame

    def find(self, key: str) -> TableRef | None:
        manifest = self._manifest(key)
        return TableRef(key, manifest.rows, manifest.bytes) if manifest else None

    def keys(self, prefix: str = "") -> list[str]:
        return self._shelf.keys(prefix)

    def delete(self, key: str) -> None:
        self._shelf.delete(key)

    def _manifest(self, key: str) -> Manifest | None:
        found = self._shelf.manifest(key)
        try:
            return msgspec.json.decode(found, type=Manifest) if found is not None else None
        except msgspec.MsgspecError as error:
            raise StorageError(
                f"table {key} is damaged: its {_MANIFEST} cannot be read", subject=key, hint="delete it and run again"
            ) from error


def _part(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _sink(frame: pl.LazyFrame, path: Path) -> None:
    frame.sink_parquet(path, compression="zstd", row_group_size=_ROW_GROUP, maintain_order=True)


def _lazy(key: str, frames: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]) -> pl.LazyFrame:
    if isinstance(frames, (pl.DataFrame, pl.LazyFrame)):
        return frames.lazy()
    return pl.concat([_same_columns(key, *pair) for pair in _with_first(frames)]).lazy()


def _with_first(frames: Iterable[pl.DataFrame]) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    first = None
    for frame in frames:
        first = frame if first is None else first
        yield first, frame
    if first is None:
        yield pl.DataFrame(), pl.DataFrame()


def _same_columns(key: str, first: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    if frame.schema != first.schema:
        differing = sorted(set(frame.schema.items()) ^ set(first.schema.items()), key=str)
        raise DataError(
            f"the parts of table {key} do not have the same columns and types",
            subject=key,
            hint=f"they differ in {', '.join(dict.fromkeys(name for name, _ in differing))}" if differing else None,
        )
    return frame


def _gather(key: str, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The frames, put together to some that are worth a file each. Holds one file's rows at a time."""
    held: list[pl.DataFrame] = []
    rows, written = 0, False
    for pair in _with_first(frames):
        held.append(_same_columns(key, *pair))
        rows += held[-1].height
        if rows >= _FILE_ROWS:
            yield pl.concat(held)
            held, rows, written = [], 0, True
    if rows or not written:
        yield pl.concat(held)


def _write_partitions(folder: Path, frame: pl.LazyFrame, columns: tuple[str, ...]) -> None:
    """Files in `column=value` folders; each row keeps its number, from which a scan restores the order."""
    schema = frame.collect_schema()
    unknown = [column for column in columns if column not in schema]
    if unknown:
        raise not_found("column", unknown[0], schema.names())
    numbered = frame.with_row_index(_POSITION)
    target = pl.PartitionBy(folder, key=list(columns), include_key=True)
    numbered.sink_parquet(target, compression="zstd", row_group_size=_ROW_GROUP, maintain_order=True, mkdir=True)
    if not any(folder.iterdir()):
        _sink(numbered, folder / _part(0))


def _describe(key: str, folder: Path, partition_by: tuple[str, ...]) -> Manifest:
    found = []
    for path in sorted(folder.rglob("*.parquet")):
        scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        numbers = (pl.col(_POSITION).min(), pl.col(_POSITION).max()) if partition_by else (pl.lit(None), pl.lit(None))
        rows, first, last = scan.select(pl.len(), numbers[0].alias("first"), numbers[1].alias("last")).collect().row(0)
        found.append((first, last, Part(path.relative_to(folder).as_posix(), rows, path.stat().st_size)))
    if partition_by:
        found.sort(key=lambda entry: (entry[0] is not None, entry[0]))
    overlap = any(
        before[1] is not None and before[1] > after[0] for before, after in itertools.pairwise(found) if partition_by
    )
    return Manifest(
        key=key,
        rows=sum(part.rows for *_, part in found),
        bytes=sum(part.bytes for *_, part in found),
        parts=tuple(part for *_, part in found),
        partition_by=partition_by,
        positioned=bool(partition_by),
        sort=overlap,
    )


@contextmanager
def _storage_errors(key: str, folder: Path) -> Iterator[None]:
    """Polars' errors for a full disk or a forbidden place as StorageError; all others pass."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if not (number := _SYSTEM_ERROR.search(str(error))):
            raise
        code = int(number[1])
        cause = OSError(code, os.strerror(code))
        raise storage_error(cause, f"table {key} cannot be stored", folder) from error
