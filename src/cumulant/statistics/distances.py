"""Distances of two distributions, as effect sizes: they do not grow with the number of rows."""

from __future__ import annotations

import numpy as np

from cumulant.statistics.rows import Floats


def _shares(counts: Floats) -> Floats:
    total = counts.sum()
    if total <= 0:
        raise ValueError("a distribution needs at least one row")
    shares: Floats = counts / total
    return shares


def total_variation(reference: Floats, current: Floats) -> float:
    """Half the sum of absolute differences of the shares of two counts [bins]: 0 equal, 1 disjoint."""
    return float(np.abs(_shares(reference) - _shares(current)).sum() / 2)


def jensen_shannon(reference: Floats, current: Floats) -> float:
    """Jensen-Shannon distance, base 2, of two counts [bins]: 0 equal, 1 disjoint."""
    p, q = _shares(reference), _shares(current)
    middle = (p + q) / 2

    def divergence(part: Floats) -> float:
        positive = part > 0
        return float((part[positive] * np.log2(part[positive] / middle[positive])).sum())

    return float(np.sqrt(max(0.0, (divergence(p) + divergence(q)) / 2)))


def population_stability(reference: Floats, current: Floats, *, prior: float = 0.5) -> float:
    """Population stability index of two counts [bins]; `prior` rows are added to each bin, so that it is finite."""
    p, q = _shares(reference + prior), _shares(current + prior)
    return float(((q - p) * np.log(q / p)).sum())


def wasserstein(reference: Floats, current: Floats) -> float:
    """The earth mover's distance of two samples over the standard deviation of the first.

    Infinite where the reference does not vary and the samples differ.
    """
    from scipy.stats import wasserstein_distance

    moved = float(wasserstein_distance(reference, current))
    spread = float(np.std(reference))
    if spread > 0:
        return moved / spread
    return 0.0 if moved == 0 else float("inf")
