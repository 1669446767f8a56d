"""Cells of a number's values, made once from the reference: counts of later days are counts of the same cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cumulant.statistics.rows import Codes, Flags, Floats

#: quantiles of the reference that are kept; distances are read off these, tests off about ten groups of them
FINE = 100
GROUPS = 10
#: how far beyond the reference, in widths of its range, a value is no longer a shift but a fault
FAR = 0.5
#: fewest rows that a cell is expected to hold in the smaller sample (Cochran 1954)
LEAST = 5.0


@dataclass(frozen=True)
class Grid:
    """Rising edges [k]; cell i holds values in (edges[i - 1], edges[i]], the first and last are open.

    The first and last two cells lie outside of the reference: far below, below, ..., above, far above.
    """

    edges: Floats

    @property
    def low(self) -> float:
        return float(np.nextafter(self.edges[1], np.inf))

    @property
    def high(self) -> float:
        return float(self.edges[-2])


def grid(ordered: Floats, *, declared: Floats | None = None, within: tuple[float, float] | None = None) -> Grid:
    """Cells of the sorted finite values [n] of a reference; what is not `within` its ends lies far outside.

    Raises:
        ValueError: there is no value.
    """
    if not len(ordered):
        raise ValueError("cells need at least one value")
    low, high = float(ordered[0]), float(ordered[-1])
    if declared is None:
        inner = ordered[(np.arange(1, FINE) * len(ordered)) // FINE]
    else:
        inner = np.asarray(declared, dtype=np.float64)
    reach = FAR * (high - low or abs(high) or 1.0)
    # Cells are closed above, so the edge below the least value is the number before it.
    before = np.nextafter(low, -np.inf)
    inside = inner[(inner > before) & (inner < high)]
    ends = low - reach, high + reach
    if within is not None and within[0] <= low and high <= within[1]:
        ends = float(np.nextafter(within[0], -np.inf)), within[1]
    far = min(ends[0], np.nextafter(before, -np.inf)), max(ends[1], np.nextafter(high, np.inf))
    return Grid(np.unique(np.concatenate(([far[0], before], inside, [high, far[1]]))))


def cells(values: Floats, grid: Grid, *, block: Codes | None = None, blocks: int = 1) -> Codes:
    """How many of `values` [n] lie in each cell: [blocks, k + 1]. None is NaN; infinities lie in the far cells.

    `block` [n]: the block of each, from 0; None: all are of one. Sorted values are counted several times faster.
    """
    places = np.searchsorted(grid.edges, values)
    width = len(grid.edges) + 1
    if block is not None:
        places += block * width
    return np.bincount(places, minlength=blocks * width).reshape(blocks, width)


def groups(pooled: NDArray[Any], smaller: float, *, ordered: bool) -> Codes:
    """The group of each cell [k]: neighbours for numbers, the rare together for categories.

    Each group holds about a tenth of the rows where `ordered`, and at least LEAST rows are expected in the smaller of
    the samples, which has `smaller` rows.
    """
    shares = pooled / max(float(pooled.sum()), 1.0)
    least = LEAST / max(smaller, 1.0)
    if ordered:
        return _group_neighbours(shares, least)
    rare = shares < least
    return _group_rare(shares, rare, least)


def _group_neighbours(shares: Floats, least: float) -> Codes:
    """Cells gathered from the left until they hold a tenth, and `least`; what remains joins the last group."""
    full, enough = max(least, 1 / GROUPS) * (1 - 1e-9), max(least, 0.5 / GROUPS) * (1 - 1e-9)
    codes = np.zeros(len(shares), dtype=np.int64)
    group, total, rest = 0, 0.0, float(shares.sum())
    for place, share in enumerate(shares.tolist()):
        codes[place] = group
        total += share
        rest -= share
        if total >= full and rest >= enough:
            group, total = group + 1, 0.0
    return codes


def _group_rare(shares: Floats, rare: Flags, least: float) -> Codes:
    order = np.flatnonzero(~rare)
    if rare.any() and shares[rare].sum() < least and len(order):
        # Too little even together: it joins the rarest of the others.
        rarest = order[np.argmin(shares[order])]
        rare[rarest] = True
        order = order[order != rarest]
    codes = np.full(len(shares), len(order), dtype=np.int64)
    codes[order] = np.arange(len(order))
    return codes
