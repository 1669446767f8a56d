"""Corrections for multiple tests, and for repeated looks."""

from __future__ import annotations

import numpy as np

from cumulant.statistics.rows import Flags, Floats


def benjamini_hochberg(p: Floats, level: float, *, weights: Floats | None = None) -> tuple[Flags, float]:
    """Which hypotheses are rejected [n] at the false discovery rate `level`, and the largest weighted p-value that is.

    Weights are scaled to a mean of 1 and divide the p-values, so that what matters more needs less evidence; 0 is
    never rejected (Benjamini and Hochberg 1995; Genovese, Roeder and Wasserman 2006). If nothing has changed, any
    rejection has a chance of at most `level`, for independent tests and for positive dependence (Benjamini and
    Yekutieli 2001).
    The bound is `level` / n where nothing is rejected: what one test alone would have had to reach.
    """
    count = len(p)
    if not count:
        return np.zeros(0, dtype=np.bool_), level
    scaled = np.ones(count) if weights is None else weights * count / max(float(weights.sum()), 1e-300)
    weighted = np.divide(p, scaled, out=np.full(count, np.inf), where=scaled > 0)
    reached = np.flatnonzero(np.sort(weighted) <= level * np.arange(1, count + 1) / count)
    bound = level * (int(reached[-1]) + 1 if len(reached) else 1) / count
    rejected: Flags = weighted <= bound
    return rejected, bound


def level_of_look(level: float, *, looks: int, spans: int = 1) -> float:
    """The level of one look, so that `looks` together raise a false alarm with a chance of at most `level`."""
    return level / (looks * spans)
