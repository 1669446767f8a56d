"""The Parquet files of a table: written from frames, and scanned."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from cumulant.core.errors import DataError, not_found
from cumulant.core.ids import file_digest
from cumulant.core.system.disk_errors import disk_error
from cumulant.drivers.local.folders import storage_error
from cumulant.drivers.local.manifest import TableManifest, TablePart
from cumulant.ports.tables import PROTECT, UNPROTECTED, Protection

_ROW_GROUP = 131_072
# Frames from an iterator are merged into files of about this many rows, or bytes in memory. Tables with a common head
# share whole files.
FILE_ROWS, _FILE_BYTES = 262_144, 256 << 20
_POSITION = "__position"

Frames = pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]


def write(
    key: str,
    folder: Path,
    frames: Frames,
    *,
    partition_by: tuple[str, ...] = (),
    shared: Sequence[TablePart] = (),
    protect: Protection = UNPROTECTED,
) -> TableManifest:
    """Write the files of table `key` to a folder that has the `shared` ones already; returns the manifest of all.

    What is declared personal is in the manifest, and in the metadata of each file that is written.
    """
    first = len(shared)
    declared = {PROTECT: msgspec.json.encode(protect).decode()} if protect else None
    if partition_by:
        _write_partitions(folder, _as_lazy(key, frames), partition_by, declared)
    elif isinstance(frames, (pl.DataFrame, pl.LazyFrame)):
        _sink(frames.lazy(), folder / part_name(first), declared)
    else:
        for number, frame in enumerate(_merge_frames(key, frames), first):
            frame.write_parquet(folder / part_name(number), row_group_size=_ROW_GROUP, metadata=declared)
    manifest = _describe(key, folder, partition_by, {part.path: part for part in shared})
    return msgspec.structs.replace(manifest, protect=protect) if protect else manifest


def prepend_head(head: pl.LazyFrame, frames: Frames) -> Frames:
    """The rows of a head, which is not loaded at once, and then the frames."""
    if isinstance(frames, (pl.DataFrame, pl.LazyFrame)):
        frames = [frames.lazy().collect()]
    rows = head.select(pl.len()).collect().item()
    begins = range(0, max(rows, 1), _ROW_GROUP)
    return itertools.chain((head.slice(begin, _ROW_GROUP).collect() for begin in begins), frames)


def scan(paths: Sequence[Path], manifest: TableManifest) -> pl.LazyFrame:
    """The rows of a table's files, in their order."""
    frame = pl.scan_parquet(list(paths), glob=False, hive_partitioning=False)
    if manifest.sort:
        frame = frame.sort(_POSITION)
    return frame.drop(_POSITION) if manifest.positioned else frame


def part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _sink(frame: pl.LazyFrame, path: Path, metadata: dict[str, str] | None) -> None:
    frame.sink_parquet(path, compression="zstd", row_group_size=_ROW_GROUP, maintain_order=True, metadata=metadata)


def _as_lazy(key: str, frames: Frames) -> pl.LazyFrame:
    if isinstance(frames, (pl.DataFrame, pl.LazyFrame)):
        return frames.lazy()
    return pl.concat([_check_columns(key, *pair) for pair in _with_first(frames)]).lazy()


def _with_first(frames: Iterable[pl.DataFrame]) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    first = None
    for frame in frames:
        first = frame if first is None else first
        yield first, frame
    if first is None:
        yield pl.DataFrame(), pl.DataFrame()


def _check_columns(key: str, first: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    if frame.schema != first.schema:
        differing = sorted(set(frame.schema.items()) ^ set(first.schema.items()), key=str)
        raise DataError(
            f"the parts of table {key} do not have the same columns and types",
            subject=key,
            hint=f"they differ in {', '.join(dict.fromkeys(name for name, _ in differing))}" if differing else None,
        )
    return frame


def _merge_frames(key: str, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Merge frames into larger ones for one file each. Memory: the rows of one file."""
    pending: list[pl.DataFrame] = []
    rows, size, written = 0, 0, False
    for pair in _with_first(frames):
        pending.append(_check_columns(key, *pair))
        rows, size = rows + pending[-1].height, size + int(pending[-1].estimated_size())
        if rows >= FILE_ROWS or size >= _FILE_BYTES:
            yield pl.concat(pending)
            pending, rows, size, written = [], 0, 0, True
    if rows or not written:
        yield pl.concat(pending)


def _write_partitions(
    folder: Path, frame: pl.LazyFrame, columns: tuple[str, ...], metadata: dict[str, str] | None
) -> None:
    """Write files in `column=value` folders; each row has its number, from which a scan restores the order."""
    schema = frame.collect_schema()
    unknown = [column for column in columns if column not in schema]
    if unknown:
        raise not_found("column", unknown[0], schema.names())
    numbered = frame.with_row_index(_POSITION)
    target = pl.PartitionBy(folder, key=list(columns), include_key=True)
    numbered.sink_parquet(
        target,
        compression="zstd",
        row_group_size=_ROW_GROUP,
        maintain_order=True,
        mkdir=True,
        metadata=metadata,
    )
    if not any(folder.iterdir()):
        _sink(numbered, folder / part_name(0), metadata)


def _describe(key: str, folder: Path, partition_by: tuple[str, ...], shared: Mapping[str, TablePart]) -> TableManifest:
    parts: list[tuple[Any, Any, TablePart]] = []
    for path in sorted(folder.rglob("*.parquet")):
        name = path.relative_to(folder).as_posix()
        if name in shared:
            parts.append((None, None, shared[name]))
            continue
        scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        numbers = (pl.col(_POSITION).min(), pl.col(_POSITION).max()) if partition_by else (pl.lit(None), pl.lit(None))
        rows, first, last = scan.select(pl.len(), numbers[0].alias("first"), numbers[1].alias("last")).collect().row(0)
        parts.append((first, last, TablePart(name, rows, path.stat().st_size, file_digest(path))))
    if partition_by:
        parts.sort(key=lambda entry: (entry[0] is not None, entry[0]))
    overlap = any(
        before[1] is not None and before[1] > after[0] for before, after in itertools.pairwise(parts) if partition_by
    )
    return TableManifest(
        key=key,
        rows=sum(part.rows for *_, part in parts),
        bytes=sum(part.bytes for *_, part in parts),
        parts=tuple(part for *_, part in parts),
        partition_by=partition_by,
        positioned=bool(partition_by),
        sort=overlap,
    )


@contextmanager
def storage_errors(key: str, folder: Path) -> Iterator[None]:
    """Raise Polars' errors for a full disk or a missing permission as StorageError; others pass."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if (cause := disk_error(error)) is None:
            raise
        raise storage_error(cause, f"table {key} cannot be stored", folder) from error
