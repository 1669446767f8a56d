"""The same rows as CSV, Parquet and ORC: bytes, monthly cost and read time, measured on a sample of each source."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import polars as pl

from cumulant.core.progress import Progress
from cumulant.data.snapshot import scan
from cumulant.data.storage.prices import GIB
from cumulant.flows.data.memory_budget import scratch_folder
from cumulant.flows.data.validate import newest_snapshot

if TYPE_CHECKING:
    from cumulant.project.project import Project

FileFormat = Literal["csv", "parquet", "orc"]
#: rows of a source that are written and read
SAMPLE_ROWS = 200_000
_READS = 3
#: as stored tables have them
_ROW_GROUP = 131_072


class FormatCost(msgspec.Struct, frozen=True, kw_only=True):
    """One source in one format. `sample_bytes` and `read_seconds` (the median of three reads of all columns, files in
    the page cache) are measured on `sample_rows` rows; `bytes` and `monthly` are in proportion for all `rows`.

    `error`: the format cannot hold a column; the figures are then 0.
    """

    source: str
    format: FileFormat
    compression: str
    rows: int
    sample_rows: int
    sample_bytes: int = 0
    read_seconds: float = 0.0
    bytes: int = 0
    monthly: float = 0.0
    error: str | None = None


class _Format(NamedTuple):
    name: FileFormat
    compression: str
    write: Callable[[pl.DataFrame, Path], object]
    read: Callable[[Path], pl.DataFrame]


def compare_formats(project: Project, *, price: float, progress: Progress) -> list[FormatCost]:
    """Each source's newest snapshot in each format; `price` of a GiB and month. The sample's files are deleted again.

    Raises:
        StorageError: no space for the sample.
    """
    compared = []
    folder = scratch_folder(project)
    folder.mkdir(parents=True, exist_ok=True)
    for source in project.policies.sources:
        snapshot = newest_snapshot(project, source)
        if snapshot is None or not snapshot.rows_passed:
            continue
        progress(f"write and read {source} in each format")
        sample = scan(snapshot, project.tables()).head(SAMPLE_ROWS).collect()
        with tempfile.TemporaryDirectory(dir=folder, prefix="formats-") as name:
            for each in _formats():
                cost = FormatCost(
                    source=source,
                    format=each.name,
                    compression=each.compression,
                    rows=snapshot.rows_passed,
                    sample_rows=sample.height,
                )
                compared.append(_measured(cost, each, sample, Path(name) / f"sample.{each.name}", price))
    return compared


def _measured(cost: FormatCost, each: _Format, sample: pl.DataFrame, path: Path, price: float) -> FormatCost:
    import pyarrow as pa

    try:
        each.write(sample, path)
        seconds = list(_read_times(each, path))
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        return msgspec.structs.replace(cost, error=str(error).partition("\n")[0])
    size = path.stat().st_size
    path.unlink()
    whole = round(size * cost.rows / cost.sample_rows)
    return msgspec.structs.replace(
        cost, sample_bytes=size, read_seconds=statistics.median(seconds), bytes=whole, monthly=whole / GIB * price
    )


def _read_times(each: _Format, path: Path) -> Iterator[float]:
    for _ in range(_READS):
        begun = time.perf_counter()
        each.read(path)
        yield time.perf_counter() - begun


def _formats() -> tuple[_Format, ...]:
    from pyarrow import orc

    def write_orc(frame: pl.DataFrame, path: Path) -> None:
        orc.write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), path, compression="zstd")

    def read_orc(path: Path) -> pl.DataFrame:
        return pl.DataFrame(orc.read_table(path))

    def write_parquet(frame: pl.DataFrame, path: Path) -> None:
        frame.write_parquet(path, row_group_size=_ROW_GROUP)

    def read_csv(path: Path) -> pl.DataFrame:
        return pl.read_csv(path, try_parse_dates=True)

    return (
        _Format("csv", "none", lambda frame, path: frame.write_csv(path), read_csv),
        _Format("parquet", "zstd", write_parquet, pl.read_parquet),
        _Format("orc", "zstd", write_orc, read_orc),
    )
