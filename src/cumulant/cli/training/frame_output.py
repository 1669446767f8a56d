"""Frames on the terminal and in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cumulant.core.errors import StorageError, UsageError
from cumulant.flows.reports.terminal import cell, table

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console


class RowTable(Protocol):
    """Rows by column, as operations return them."""

    @property
    def columns(self) -> list[str]: ...

    @property
    def rows(self) -> list[dict[str, Any]]: ...


LEAST_WIDTH = 11
FORMATS = (".csv", ".parquet", ".jsonl")


def frame_of(rows: RowTable) -> pl.DataFrame:
    """The rows of a response as a frame."""
    import polars as pl

    return pl.DataFrame(rows.rows, schema=rows.columns, infer_schema_length=None)


def show_frame(console: Console, frame: pl.DataFrame) -> None:
    """The frame as a table where its columns fit side by side, else one row after another."""
    if frame.width * LEAST_WIDTH <= console.width:
        console.print(table(frame.columns, frame.iter_rows()))
        return
    room = max(1, console.width // (2 * LEAST_WIDTH))
    rows = [(name, *map(cell, frame.get_column(name).head(room).to_list())) for name in frame.columns]
    console.print(table(["column", *[f"row {index + 1}" for index in range(min(room, frame.height))]], rows))


def check_out(path: Path | None) -> None:
    """Refuse a file that `write_frame` could not write, before anything is computed for it.

    Raises:
        UsageError: another suffix than .csv, .parquet, .jsonl, or no such folder.
    """
    if path is None:
        return
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f'"{path.name}" names no format', subject=str(path), hint="end it in .csv, .parquet or .jsonl")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", subject=str(path), hint="make it, or name another")


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Write the frame in the format of the file's suffix.

    Raises:
        UsageError: as `check_out`.
        StorageError: the file cannot be written.
    """
    writers: dict[str, Callable[[Path], object]] = {
        ".csv": frame.write_csv,
        ".parquet": frame.write_parquet,
        ".jsonl": frame.write_ndjson,
    }
    check_out(path)
    try:
        writers[path.suffix.lower()](path)
    except OSError as error:
        raise StorageError(f"{path.name} could not be written: {error.strerror or error}", subject=str(path)) from None
