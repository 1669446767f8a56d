"""The labels of one moment: few stay in memory, many are read for one window of predictions after another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import TypeVar

import polars as pl

from cumulant.outcomes import scanning
from cumulant.outcomes.matching import NAMED_BY_KEY, READ, VALID, is_known_by
from cumulant.ports.log import Log

#: labels that stay in memory; of more, only those that a window of predictions needs are read for it
MOST_IN_MEMORY = 500_000
#: predictions that are joined at once, and about the most bytes that they take
WINDOW, _BYTES = 65_536, 32 << 20
_COLUMNS = [scanning.FACT, *READ]
Part = TypeVar("Part")


class LabelSnapshot:
    """Labels that do not change while they are read, in memory or in files that stay open (`windowed`).

    Each has its number, in the order of the store, in the column `FACT`.
    """

    def __init__(self, source: pl.DataFrame | scanning.OpenFacts) -> None:
        self._source = source
        self.windowed = not isinstance(source, pl.DataFrame)

    def collect(self, query: scanning.Query) -> pl.DataFrame:
        """What `query` selects of the labels, in the order of the store.

        Raises:
            StorageError: a file cannot be read.
        """
        if isinstance(self._source, pl.DataFrame):
            return query(self._source.lazy()).collect()
        return self._source.collect(query)

    @cached_property
    def height(self) -> int:
        """The number of labels, also of those that cannot be used."""
        return int(self.collect(lambda rows: rows.select(pl.len())).item())

    def next_known(self, at: datetime) -> datetime | None:
        """When the first label becomes known after `at`."""
        later = VALID & ~is_known_by(at)
        moment = self.collect(lambda rows: rows.filter(later).select(pl.col("known_time").min())).item()
        assert moment is None or isinstance(moment, datetime)
        return moment

    def partitions(self) -> Iterator[pl.DataFrame]:
        """The labels that can be used, some time or other: all of one reference are in the same frame.

        Raises:
            StorageError: a file cannot be read.
        """
        parts = -(-self.height // MOST_IN_MEMORY) if self.windowed else 1
        for part in range(parts):
            yield self.selected(VALID if parts == 1 else VALID & (pl.col("ref").hash() % parts == part))

    def selected(self, wanted: pl.Expr) -> pl.DataFrame:
        """The labels for which `wanted` holds. Raises StorageError."""
        return self.collect(lambda rows: rows.filter(wanted).select(_COLUMNS))

    def naming(self, refs: pl.Series) -> pl.DataFrame:
        """The labels that have one of these references, and maybe others. Raises StorageError."""
        assert not isinstance(self._source, pl.DataFrame)
        numbers = self._hashes.is_in(refs.hash().implode()).arg_true()
        return self._source.numbered(numbers).select(_COLUMNS)

    @cached_property
    def _hashes(self) -> pl.Series:
        """Of each reference, 8 bytes: to find the labels of a window, not all of them are read again."""
        return self.collect(lambda rows: rows.select(pl.col("ref").hash()))["ref"]


class UsableLabels:
    """The labels of a snapshot that can be used and are known by `until`; without it, also those known later."""

    def __init__(self, snapshot: LabelSnapshot, until: datetime | None) -> None:
        self._snapshot, self.until = snapshot, until
        self._wanted = VALID if until is None else VALID & is_known_by(until)
        self.windowed = snapshot.windowed
        #: predictions that are put together before they are joined
        self.window = WINDOW if self.windowed else 0

    @cached_property
    def by_key(self) -> bool:
        """Whether any of them names its prediction by key and moment."""
        named = self._wanted & NAMED_BY_KEY
        return self._snapshot.collect(lambda rows: rows.filter(named).select(pl.len() > 0)).item() is True

    @cached_property
    def _all(self) -> pl.DataFrame:
        return self._snapshot.selected(self._wanted)

    @property
    def any(self) -> bool:
        """Whether there may be one."""
        return self.windowed or self._all.height > 0

    @cached_property
    def refs(self) -> pl.Series:
        """The predictions that they name, each once."""
        return self._snapshot.collect(lambda rows: rows.filter(self._wanted).select(pl.col("ref").unique()))["ref"]

    def of(self, predictions: pl.DataFrame) -> pl.DataFrame:
        """Those that `match_labels` needs for these predictions, and maybe others.

        Raises:
            StorageError: a file cannot be read.
        """
        if not self.windowed:
            return self._all
        refs = pl.concat([predictions["id_ref"], predictions["key_ref"]]).drop_nulls().unique()
        return self._snapshot.naming(refs).filter(self._wanted)

    def naming(self, predictions: pl.DataFrame) -> pl.Series:
        """By what they name these predictions, and maybe others, each once. Raises StorageError."""
        return self.of(predictions)["ref"].unique() if self.windowed else self.refs


@contextlib.contextmanager
def label_snapshot(labels: Log, batches: Sequence[str] | None = None) -> Iterator[LabelSnapshot]:
    """The labels in `labels` as they are now, or those of these batches; not what is ingested later.

    Raises:
        StorageError: a part cannot be read.
    """
    with scanning.open_facts(labels, batches) as facts:
        if facts is None:
            yield LabelSnapshot(pl.DataFrame(schema={scanning.FACT: pl.UInt32(), **READ}))
        elif facts.collect(lambda rows: rows.select(pl.len())).item() > MOST_IN_MEMORY:
            yield LabelSnapshot(facts)
        else:
            yield LabelSnapshot(facts.collect(lambda rows: rows.select(_COLUMNS)))


def window_parts(parts: Iterable[Part], rows: int, *, frame: Callable[[Part], pl.DataFrame]) -> Iterator[list[Part]]:
    """Parts put together until their frames have so many `rows`, or take about as many bytes as one of long answers."""
    gathered: list[Part] = []
    height = size = 0
    for part in parts:
        gathered.append(part)
        own = frame(part)
        height, size = height + own.height, size + int(own.estimated_size())
        if height >= rows or size >= _BYTES:
            yield gathered
            gathered, height, size = [], 0, 0
    if gathered:
        yield gathered


def same_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame itself, for `window_parts` of frames."""
    return frame
