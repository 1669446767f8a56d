"""Corrected or deleted rows of a history: each version counts while it is in force.

Versions have the moments from which (`FROM`) and until which (`UNTIL`) they are in force. They divide the time of a key
into epochs, in each of which its events stay as they are; events and queries are grouped by key and epoch instead of
key.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from cumulant.core.errors import DataError
from cumulant.core.plan import PredictAt, Source
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.features.offline.frames import numbers, valid
from cumulant.features.offline.groups import MeasureGroup
from cumulant.features.offline.kernel.timeline import Ints

#: events with their repetitions that one group of windows may have
_MOST = 200_000_000
#: the largest number that stands for a key and a moment
_MOST_PACKED = 2**62


def has_versions(frame: pl.DataFrame) -> bool:
    return FROM in frame.columns


def as_predicted(frame: pl.LazyFrame, source: Source, predict_at: PredictAt | None) -> pl.LazyFrame:
    """The rows in force at the end, each with the values that it had at its own prediction.

    These are of the last version in force by then, else of the first. Only versions of corrected rows are in memory.
    """
    columns = frame.collect_schema().names()
    if FROM not in columns:
        return frame
    rows, key = frame.filter(pl.col(UNTIL).is_null()), list(source.key)
    if predict_at is None or not key:
        return rows
    corrected = rows.filter(pl.col(FROM).is_not_null()).select(ROW, *key).collect()
    if not corrected.height:
        return rows
    moment = pl.col(predict_at.column).cast(pl.Int64) + predict_at.offset_us
    by_then = pl.col(FROM).is_null() | (pl.col(FROM) <= moment).fill_null(value=False)
    versions = frame.join(corrected.lazy().select(key), on=key, how="semi").filter(by_then).collect()
    values = [name for name in columns if name != ROW]
    last = versions.sort(FROM, nulls_last=False).group_by(key).agg(pl.col(*set(values) - set(key)).last())
    then = corrected.join(last, on=key).select(ROW, *(pl.col(name).alias(_then(name)) for name in values))
    joined = rows.join(then.lazy().with_columns(__then=True), on=ROW, how="left", maintain_order="left")
    chosen = (pl.when("__then").then(_then(name)).otherwise(name).alias(name) for name in values)
    return joined.with_columns(chosen).select(columns)


def _then(name: str) -> str:
    return f"__then {name}"


class Epochs:
    """The epochs of the keys of some events, which are numbered from 0. `frame` holds the events."""

    def __init__(self, frame: pl.DataFrame, codes: Ints, top: int) -> None:
        self._from, self._until = frame[FROM], frame[UNTIL]
        ends = pl.concat(
            [pl.DataFrame({"code": codes, "moment": moments}).drop_nulls() for moments in (self._from, self._until)]
        ).unique()
        moments = ends["moment"].to_numpy()
        #: where packed numbers begin, and how many there are of one key
        first, last = (int(moments.min()), int(moments.max())) if len(moments) else (0, 0)
        self._begin, self._width = first, last - first + 2
        #: all ends in order, where the numbers of all keys would not fit 64 bits
        self._moments: Ints | None = None
        if (top + 1) * self._width > _MOST_PACKED:
            self._moments = np.unique(moments)
            self._width = len(self._moments) + 1
        #: the ends of epochs by key, as one number for key and moment
        self._ends = np.sort(self._packed(ends["code"].to_numpy(), moments))
        counts = np.bincount(ends["code"].to_numpy(), minlength=top + 1) + 1
        self._counts: Ints = counts.astype(np.int64)
        self._first: Ints = np.cumsum(self._counts) - self._counts
        self._codes = codes

    def of(self, codes: Ints, moments: Ints) -> Ints:
        """A number for the key and epoch of each query."""
        return self._first[codes] + self._past(codes, moments)

    def _past(self, codes: Ints, moments: Ints) -> Ints:
        """How many epochs of the key have ended by the moment."""
        before = self._first[codes] - codes  # ends of earlier keys: each has one fewer than epochs
        return np.searchsorted(self._ends, self._packed(codes, moments), side="right") - before

    def _packed(self, codes: Ints, moments: Ints) -> Ints:
        """A number for each key and moment: in order, and 0 of a key where no end has come by the moment."""
        if self._moments is not None:
            return codes * self._width + np.searchsorted(self._moments, moments, side="right")
        # The difference of two moments may not fit: what is outside is moved to the ends first.
        inside = np.clip(moments, self._begin - 1, self._begin + self._width - 2)
        return codes * self._width + (inside - (self._begin - 1))

    def copies(self, times: Ints, group: MeasureGroup) -> tuple[Ints, Ints]:
        """In how many epochs, with a query that covers it, each event counts, and the first of them."""
        codes = self._codes
        first = np.maximum(self._past(codes, times), self._bounds(self._from, np.zeros_like(codes)))
        end = self._bounds(self._until, self._counts[codes])
        if not group.unlimited:
            end = np.minimum(end, self._past(codes, times + (group.span_us - 1)) + 1)
        return np.maximum(end - first, 0), first

    def spread(self, times: Ints, group: MeasureGroup) -> tuple[Ints, Ints]:
        """Which events count in which epochs: the number of the event, and of the key and epoch, for each.

        Raises:
            DataError: corrections are so many that the events would not fit into memory.
        """
        codes = self._codes
        copies, first = self.copies(times, group)
        total = int(copies.sum())
        if total > _MOST:
            raise _too_many(group, total)
        events = np.repeat(np.arange(len(codes), dtype=np.int64), copies)
        offsets = np.arange(total, dtype=np.int64) - np.repeat(np.cumsum(copies) - copies, copies)
        return events, self._first[codes[events]] + first[events] + offsets

    def _bounds(self, moments: pl.Series, without: Ints) -> Ints:
        """The epoch that begins at each moment; `without` for null."""
        known = valid(moments)
        if known is None:
            return self._past(self._codes, numbers(moments))
        places = np.flatnonzero(known)  # few: rows that were never corrected have none
        bounds = without.copy()
        bounds[places] = self._past(self._codes[places], numbers(moments)[places])
        return bounds


def _too_many(group: MeasureGroup, total: int) -> DataError:
    by, names = ", ".join(group.by), ", ".join(list(group.measures)[:3])
    return DataError(
        f"{group.source} has so many corrections that its windows by {by} ({names}) need {total:,} events",
        subject=group.source,
        hint="shorten these windows, or deliver corrections together, or correct the files themselves: rows that a "
        "changed file no longer holds have no versions",
    )


def latest_changes(frame: pl.DataFrame, codes: Ints, as_of: int | None) -> dict[int, int]:
    """By the number of a key: when its rows were corrected or deleted last, up to `as_of`, in microseconds."""
    if not has_versions(frame):
        return {}
    known = [pl.col(name) if as_of is None else pl.col(name).filter(pl.col(name) <= as_of) for name in (FROM, UNTIL)]
    ends = frame.with_columns(pl.Series("__code", codes)).group_by("__code")
    changes = ends.agg(pl.max_horizontal(moments.max() for moments in known).alias("moment")).drop_nulls()
    return dict(changes.iter_rows())
