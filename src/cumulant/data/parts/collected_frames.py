"""Frames with different columns as one table, in memory or in a file. A column has the type that all frames share."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from polars.io.plugins import register_io_source

from cumulant.data.parts.spill import Spill

#: rows that stay in memory
_HELD = 262_144


class CollectedFrames:
    """The rows of frames in the order in which they are added; `spill`, `name`: where they are stored beyond memory."""

    def __init__(self, spill: Spill | None, name: str) -> None:
        self._spill, self._name = spill, name
        self._held: list[pl.DataFrame] = []
        self._rows = 0
        self._on_disk = False
        #: an empty frame of each schema, in the order in which they came
        self._schemas: dict[str, pl.DataFrame] = {}

    @property
    def is_empty(self) -> bool:
        return not self._rows and not self._on_disk

    @property
    def _frames(self) -> str:
        return f"{self._name}.frames"

    def add(self, frame: pl.DataFrame) -> None:
        """Raises StorageError: it cannot be set aside."""
        self._schemas.setdefault(repr(frame.schema), frame.clear())
        self._held.append(frame)
        self._rows += frame.height
        if self._spill is not None and self._rows > _HELD:
            self._set_aside(self._spill)

    def _set_aside(self, spill: Spill) -> None:
        for frame in self._held:
            spill.append(self._frames, frame)
        self._held, self._rows, self._on_disk = [], 0, True

    def rows(self) -> pl.LazyFrame:
        """All of them; no frame may be added afterwards.

        Raises:
            PolarsError: columns of one name have no type in common.
            StorageError: they cannot be stored.
        """
        if not self._on_disk or self._spill is None:
            return (pl.concat(self._held, how="diagonal_relaxed") if self._held else pl.DataFrame()).lazy()
        self._set_aside(self._spill)
        table = pl.concat(self._schemas.values(), how="diagonal_relaxed")
        collected = spill_frames(self._spill, self._name, self._as(table, self._spill), table.schema)
        self._spill.delete([self._frames])
        return collected

    def _as(self, table: pl.DataFrame, spill: Spill) -> Iterator[pl.DataFrame]:
        for frame in spill.appended(self._frames):
            yield pl.concat([table, frame], how="diagonal_relaxed")


def spill_frames(spill: Spill, name: str, frames: Iterator[pl.DataFrame], schema: pl.Schema) -> pl.LazyFrame:
    """The rows of frames of one schema from a file under `name`, of which columns and parts are read."""

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del columns, predicate, n_rows, batch_size  # a file takes all
        yield from frames

    spill.write_arrow(name, register_io_source(read, schema=schema))
    return spill.scan_arrow(name)
