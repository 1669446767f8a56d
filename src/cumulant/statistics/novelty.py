"""The novelty of a row: its mean distance to the nearest known rows, over numbers and categories.

Numbers are divided by their spread, and a category that differs counts as one such unit (HEOM of Wilson & Martinez
1997, Improved Heterogeneous Distance Functions); a number is at most `MOST_SPREADS` from the centre.

A row is called far by a conformal p-value: the share of known rows, held out from the neighbours, that lie at least as
far (Laxhammar & Falkman 2011; Bates et al. 2023, Testing for Outliers with Conformal p-Values).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cumulant.statistics.conformal import p_values
from cumulant.statistics.rows import Floats

NEAREST = 5
#: rows whose distances are worked out at once
_CHUNK = 2048
#: two one-hot columns differ where a category does, and together they are one unit apart
_HALF = 0.5**0.5
#: beyond so many spreads from the centre numbers are equally far: their squares stay finite
MOST_SPREADS = 1e6


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The scale that maps columns to coordinates: centre and spread of a number, the values of a category."""

    numbers: Mapping[str, tuple[float, float]]
    categories: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, numbers: Mapping[str, Floats], categories: Mapping[str, Sequence[str | None]]) -> Scale:
        """The scale of columns [n] each; a missing number is NaN, a missing category None."""
        spread = {name: _centre(values) for name, values in numbers.items()}
        return cls(numbers=spread, categories={name: _values(column) for name, column in categories.items()})

    def coordinates(self, numbers: Mapping[str, Floats], categories: Mapping[str, Sequence[str | None]]) -> Floats:
        """[n, m]; a missing or never seen value is one unit from all others. A column that is not given is missing."""
        given = [*numbers.values(), *categories.values()]
        rows = len(given[0]) if given else 0
        nothing = np.full(rows, np.nan)
        parts = [_number(numbers.get(name, nothing), *scale) for name, scale in self.numbers.items()]
        parts += [_category(categories.get(name, [None] * rows), known) for name, known in self.categories.items()]
        return np.concatenate(parts, axis=1) if parts else np.zeros((rows, 0))


@dataclass(frozen=True)
class Known:
    """Known rows as coordinates [n, m]: every second one is a neighbour, the others say how far is far."""

    points: Floats
    nearest: int = NEAREST

    def distances(self, points: Floats) -> Floats:
        """[n] mean distance to the nearest neighbours."""
        if not len(points):
            return np.zeros(0)
        parts = np.array_split(points, -(-len(points) // _CHUNK))
        return np.concatenate([_nearest(part, self.points[::2], self._k)[0].mean(axis=1) for part in parts])

    def p_values(self, points: Floats) -> Floats:
        """[n] the share of known rows at least as far out; a row as far as none of them has the least."""
        return p_values(self._held_out, self.distances(points))

    def limit(self, share: float) -> float:
        """The distance beyond which at most `share` of the known rows lie."""
        return float(np.quantile(self._held_out, 1 - share)) if len(self._held_out) else float("inf")

    def neighbours(self, points: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
        """Distances and positions [n, count] of the nearest of all known rows."""
        return _nearest(points, self.points, min(count, len(self.points)))

    @property
    def _k(self) -> int:
        return max(1, min(self.nearest, len(self.points[::2])))

    @cached_property
    def _held_out(self) -> Floats:
        return self.distances(self.points[1::2]) if len(self.points) > 1 else np.zeros(0)


def _nearest(points: Floats, known: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
    """Distances and positions [n, count], nearest first. With as many coordinates as rows have, no tree is faster."""
    squared = (points**2).sum(axis=1)[:, None] + (known**2).sum(axis=1) - 2 * points @ known.T
    place = np.argpartition(squared, count - 1, axis=1)[:, :count]
    # Exactly, for the few: the difference of large squares has lost the digits of small distances.
    exact = np.sqrt(((points[:, None, :] - known[place]) ** 2).sum(axis=2))
    order = np.argsort(exact, axis=1, kind="stable")
    distances: Floats = np.take_along_axis(exact, order, axis=1)
    return distances, np.take_along_axis(place, order, axis=1)


def _centre(values: Floats) -> tuple[float, float]:
    """Median and standard deviation without missing values; a column that does not vary has the spread 1."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(finite.std()) or 1.0
    return float(np.median(finite)), spread if np.isfinite(spread) else float(np.finfo(np.float64).max)


def _values(column: Sequence[str | None]) -> tuple[str, ...]:
    return tuple(sorted({value for value in column if value is not None}))


def _number(values: Floats, centre: float, spread: float) -> Floats:
    missing = ~np.isfinite(values)
    with np.errstate(over="ignore"):
        scaled = (np.where(missing, centre, values) - centre) / spread
    scaled = np.where(missing, 0.0, scaled.clip(-MOST_SPREADS, MOST_SPREADS))
    return np.stack([scaled, missing.astype(np.float64)], axis=1)


def _category(column: Sequence[str | None], known: Sequence[str]) -> Floats:
    """One column a known value, one for missing and one for any other."""
    places = {value: place for place, value in enumerate(known)}
    encoded = np.zeros((len(column), len(known) + 2))
    for row, value in enumerate(column):
        encoded[row, len(known) if value is None else places.get(value, len(known) + 1)] = _HALF
    return encoded
