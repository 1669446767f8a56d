"""Frames written as the Parquet files of a table, and read again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from cumulant.core.errors import DataError, not_found
from cumulant.core.ids import file_digest
from cumulant.core.system.disk_errors import disk_error
from cumulant.drivers.local.folders import storage_error
from cumulant.drivers.local.manifest import Manifest, Part

_ROW_GROUP = 131_072
# Frames that come one by one are put together to files of about this many rows, or bytes in memory. A file is what
# tables with a common head share.
FILE_ROWS, _FILE_BYTES = 262_144, 256 << 20
_POSITION = "__position"

Frames = pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]


def write(
    key: str, folder: Path, frames: Frames, partition_by: tuple[str, ...], shared: Sequence[Part] = ()
) -> Manifest:
    """Write the files of table `key` into a folder that holds the `shared` ones already, and describe all."""
    first = len(shared)
    if partition_by:
        _write_partitions(folder, _lazy(key, frames), partition_by)
    elif isinstance(frames, (pl.DataFrame, pl.LazyFrame)):
        _sink(frames.lazy(), folder / part_name(first))
    else:
        for number, frame in enumerate(_gather(key, frames), first):
            frame.write_parquet(folder / part_name(number), row_group_size=_ROW_GROUP)
    return _describe(key, folder, partition_by, {part.path: part for part in shared})


def following(head: pl.LazyFrame, frames: Frames) -> Frames:
    """The frames after the rows of a head, which is not held in memory."""
    if isinstance(frames, (pl.DataFrame, pl.LazyFrame)):
        frames = [frames.lazy().collect()]
    rows = head.select(pl.len()).collect().item()
    begins = range(0, max(rows, 1), _ROW_GROUP)
    return itertools.chain((head.slice(begin, _ROW_GROUP).collect() for begin in begins), frames)


def scan(paths: Sequence[Path], manifest: Manifest) -> pl.LazyFrame:
    """The rows of a table's files, in their order."""
    frame = pl.scan_parquet(list(paths), glob=False, hive_partitioning=False)
    if manifest.sort:
        frame = frame.sort(_POSITION)
    return frame.drop(_POSITION) if manifest.positioned else frame


def part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _sink(frame: pl.LazyFrame, path: Path) -> None:
    frame.sink_parquet(path, compression="zstd", row_group_size=_ROW_GROUP, maintain_order=True)


def _lazy(key: str, frames: Frames) -> pl.LazyFrame:
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
    rows, taken, written = 0, 0, False
    for pair in _with_first(frames):
        held.append(_same_columns(key, *pair))
        rows, taken = rows + held[-1].height, taken + int(held[-1].estimated_size())
        if rows >= FILE_ROWS or taken >= _FILE_BYTES:
            yield pl.concat(held)
            held, rows, taken, written = [], 0, 0, True
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
        _sink(numbered, folder / part_name(0))


def _describe(key: str, folder: Path, partition_by: tuple[str, ...], shared: Mapping[str, Part]) -> Manifest:
    found: list[tuple[Any, Any, Part]] = []
    for path in sorted(folder.rglob("*.parquet")):
        name = path.relative_to(folder).as_posix()
        if name in shared:
            found.append((None, None, shared[name]))
            continue
        scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        numbers = (pl.col(_POSITION).min(), pl.col(_POSITION).max()) if partition_by else (pl.lit(None), pl.lit(None))
        rows, first, last = scan.select(pl.len(), numbers[0].alias("first"), numbers[1].alias("last")).collect().row(0)
        found.append((first, last, Part(name, rows, path.stat().st_size, file_digest(path))))
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
def storage_errors(key: str, folder: Path) -> Iterator[None]:
    """Polars' errors for a full disk or a forbidden place as StorageError; all others pass."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if (cause := disk_error(error)) is None:
            raise
        raise storage_error(cause, f"table {key} cannot be stored", folder) from error
