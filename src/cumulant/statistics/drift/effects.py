"""Effect sizes of drift, from counts of the same cells. They do not grow with the number of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cumulant.statistics import distances as of_counts
from cumulant.statistics.drift.bins import Grid
from cumulant.statistics.rows import Codes, Floats


@dataclass(frozen=True, kw_only=True)
class DistributionDistances:
    """Distances of two distributions, each 0 for equal ones.

    `wasserstein` is in standard deviations of the reference; None for categories, as is `kolmogorov_smirnov`.
    """

    jensen_shannon: float
    psi: float
    kolmogorov_smirnov: float | None = None
    wasserstein: float | None = None


def distances(
    reference: Floats, current: Floats, group: Codes, *, grid: Grid | None = None, spread: float = 0.0
) -> DistributionDistances:
    """All distances of two counts [cells], `group` [cells] being where each belongs for Jensen-Shannon and PSI.

    With a `grid` they are a number's, whose reference has the standard deviation `spread`.
    """
    before, after = sum_groups(reference, group), sum_groups(current, group)
    distance = of_counts.jensen_shannon(before, after)
    stability = of_counts.population_stability(before, after)
    if grid is None:
        return DistributionDistances(jensen_shannon=distance, psi=stability)
    return DistributionDistances(
        jensen_shannon=distance,
        psi=stability,
        kolmogorov_smirnov=kolmogorov_smirnov(reference, current),
        wasserstein=wasserstein_of_cells(reference, current, grid, spread),
    )


def sum_groups(counts: Floats, group: Codes) -> Floats:
    """Counts [..., cells] summed over the cells of each group [..., groups]."""
    codes, cells = np.asarray(group, dtype=np.int64), np.asarray(counts, dtype=np.float64)
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    summed: Floats = np.zeros((*cells.shape[:-1], int(ordered[-1]) + 1))
    summed[..., ordered[starts]] = np.add.reduceat(cells[..., order], starts, axis=-1)
    return summed


def excess(squared: float, *, cells: int, rows: float) -> float:
    """A squared Jensen-Shannon distance less what chance alone adds to it, at least 0.

    `rows` is n m / (n + m) of the two samples, over the design effect. To second order the distance in bits is the
    two-sample Pearson statistic over 8 ln 2 n m / (n + m) (Lin 1991; Osterreicher and Vajda 2003), whose mean under no
    change is the number of cells less 1.
    """
    chance = (cells - 1) / (8 * math.log(2) * rows) if rows > 0 else 1.0
    return max(squared - chance, 0.0)


def kolmogorov_smirnov(reference: Floats, current: Floats) -> float:
    """The greatest difference of cumulated shares at the edges of cells [k]: a lower bound of the statistic."""
    before, after = (np.cumsum(counts) / max(float(np.sum(counts)), 1.0) for counts in (reference, current))
    return float(np.abs(before - after).max())


def wasserstein_of_cells(reference: Floats, current: Floats, grid: Grid, spread: float) -> float:
    """The earth mover's distance over `spread`, from counts [k + 1] of the cells of `grid`.

    Within a cell values are taken as spread evenly, so it is right to the width of a cell; what lies far outside
    counts as lying at the edge, a lower bound. Infinite where the reference does not vary and the samples differ.
    """
    before, after = (np.cumsum(counts) / max(float(np.sum(counts)), 1.0) for counts in (reference, current))
    apart = np.abs(before - after)[:-1]  # at each edge
    between = (before - after)[:-1]
    first, second = between[:-1], between[1:]
    widths = np.diff(grid.edges)
    same = np.sign(first) * np.sign(second) >= 0
    total = apart[:-1] + apart[1:]
    # The difference is linear within a cell; where it changes its sign the area is two triangles.
    crossing = (first**2 + second**2) / np.where(total > 0, 2 * total, 1.0)
    moved = float((widths * np.where(same, total / 2, crossing)).sum())
    if spread > 0:
        return moved / spread
    return 0.0 if moved == 0 else math.inf
