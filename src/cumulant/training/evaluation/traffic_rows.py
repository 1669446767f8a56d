"""Rows that a model would have scored and that judge nothing: a capacity or a rate counts them all the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Micros = NDArray[np.int64]

DAY = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class TrafficRows:
    """Rows without a label of their own, in the order given.

    features: [m] frame, of the columns that the labelled rows have.
    at: [m] microseconds since 1970 UTC of the prediction; or None.
    sampling_weight: [m] how many rows of the traffic each stands for, by the chance with which it was drawn.
    """

    features: pl.DataFrame
    at: Micros | None
    sampling_weight: Floats

    def __len__(self) -> int:
        return len(self.sampling_weight)

    def take(self, index: NDArray[Any]) -> TrafficRows:
        """The rows at positions `index`, or where it is true."""
        chosen = np.flatnonzero(index) if index.dtype == bool else index
        return replace(
            self,
            features=self.features[chosen],
            at=None if self.at is None else self.at[chosen],
            sampling_weight=self.sampling_weight[chosen],
        )

    def before(self, moment: int) -> TrafficRows:
        """The rows predicted before `moment`; all where rows have no time."""
        return self if self.at is None else self.take(self.at < moment)

    @property
    def end(self) -> int:
        """Just after the last row; 0 where there is none, or rows have no time."""
        return 0 if self.at is None or not len(self.at) else int(self.at.max()) + 1

    def at_most(self, most: int, *, seed: int) -> TrafficRows:
        """All rows, or `most` of them at random in their order, each standing for as many more."""
        if len(self) <= most:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False))
        part = self.take(chosen)
        return replace(part, sampling_weight=part.sampling_weight * (len(self) / most))

    @staticmethod
    def none() -> TrafficRows:
        """No rows at all."""
        return TrafficRows(features=pl.DataFrame(), at=None, sampling_weight=np.zeros(0))

    @staticmethod
    def joined(parts: Sequence[TrafficRows]) -> TrafficRows:
        """The rows of several, one after the other; at least one part."""
        times = [part.at for part in parts if part.at is not None]
        return TrafficRows(
            features=pl.concat([part.features for part in parts], how="vertical_relaxed"),
            at=np.concatenate(times) if len(times) == len(parts) else None,
            sampling_weight=np.concatenate([part.sampling_weight for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class ScoredTraffic:
    """All rows of some spans of time with out-of-fold scores: what a capacity or a rate is a part of.

    scores, sampling_weight: [m]. at: [m] microseconds, or None. spans: begin and end of the times in microseconds.
    unlabelled: how many of the rows judge nothing, as they have no label of their own or were left out of a sample.
    """

    scores: Floats
    sampling_weight: Floats
    at: Micros | None = None
    spans: tuple[tuple[int, int], ...] = ()
    unlabelled: int = 0

    @property
    def rows(self) -> float:
        """How many rows of the traffic there were."""
        return float(self.sampling_weight.sum())

    def newest(self) -> ScoredTraffic | None:
        """The rows of the whole days of the newest of several spans; None where there are not several, or no day."""
        if self.at is None or len(self.spans) < 2:
            return None
        begin, end = max(self.spans)
        begin, end = -(-begin // DAY) * DAY, end // DAY * DAY
        if end <= begin:
            return None
        inside = (self.at >= begin) & (self.at < end)
        return ScoredTraffic(
            scores=self.scores[inside],
            sampling_weight=self.sampling_weight[inside],
            at=self.at[inside],
            spans=((begin, end),),
        )

    def by_day(self, chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Of each day with rows: how many rows there were, and how many of those `chosen`."""
        assert self.at is not None
        _, day = np.unique(self.at // DAY, return_inverse=True)
        rows: Floats = np.bincount(day, self.sampling_weight).astype(np.float64)
        reached: Floats = np.bincount(day, self.sampling_weight * chosen).astype(np.float64)
        return rows, reached

    def periods(self, length: int) -> float:
        """How many periods of `length` microseconds the rows fill: those that hold rows, but no more than the spans
        are long, so that a week of which two days were seen is two sevenths of one.
        """
        assert self.at is not None
        periods = len(np.unique(self.at // length))
        spanned = sum(end - begin for begin, end in self.spans) / length
        return min(float(periods), spanned) if self.spans else float(periods)
