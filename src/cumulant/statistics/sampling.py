"""Figures of a whole population from rows that were drawn with known probabilities.

Horvitz & Thompson (1952); Hájek (1971) divides by the sum of the weights. Särndal, Swensson & Wretman (1992), 5.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cumulant.statistics.rows import Floats

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A figure of the population with its interval. `effective`: as many evenly drawn rows have its error."""

    value: float
    low: float
    high: float
    rows: int
    effective: float
    level: float = LEVEL


def hajek(values: Floats, chances: Floats, *, level: float = LEVEL) -> Weighted:
    """The mean over the population, of drawn `values` [n] with inclusion probabilities [n], and its interval.

    Rows that were sure to be drawn are known and add no error; the mean of the others has the error. Of values that are
    0 or 1 its interval is Clopper & Pearson's at the effective number of rows (Korn & Graubard 1998), which holds for
    rare values too; of others that of t about the linearised variance for rows drawn independently. Fewer than two
    uncertain rows of values that are no flags do not show their spread: the interval is infinite.

    Raises:
        ValueError: a chance is not in (0, 1], or there is no row.
    """
    if not bool(((chances > 0) & (chances <= 1)).all()):
        raise ValueError("the chance of being drawn lies above 0 and at most at 1")
    if not len(values):
        raise ValueError("there is no row to take a mean of")
    weights, unsure = 1 / chances, chances < 1
    total = float(weights.sum())
    value = float((weights * values).sum() / total)
    low = high = value
    if unsure.any():
        sure = float(values[~unsure].sum())
        part = float(weights[unsure].sum())
        flags = bool(np.isin(values, (0.0, 1.0)).all())
        ends = (_of_flags if flags else _of_numbers)(values[unsure], chances[unsure], level)
        low, high = ((sure + part * end) / total for end in ends)
    return Weighted(value=value, low=low, high=high, rows=len(values), effective=effective(weights), level=level)


def effective(weights: Floats) -> float:
    """The effective number of rows: the squared sum over the sum of squares (Kish 1965). 0 for no row."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0


def _of_flags(values: Floats, chances: Floats, level: float) -> tuple[float, float]:
    from scipy.special import betaincinv

    weights = 1 / chances
    mean = float((weights * values).sum() / weights.sum())
    # Drawn without putting back: the nearer the chances are to 1, the less is left to err about.
    rows = effective(weights) / (1 - float(chances.mean()))
    outside, hits = (1 - level) / 2, mean * rows
    low = float(betaincinv(hits, rows - hits + 1, outside)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, rows - hits, 1 - outside)) if hits < rows else 1.0
    return low, high


def _of_numbers(values: Floats, chances: Floats, level: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    weights = 1 / chances
    rows = effective(weights)
    if rows < 2 - 1e-9:
        return -math.inf, math.inf
    mean = float((weights * values).sum() / weights.sum())
    terms = (1 - chances) * (weights * (values - mean)) ** 2
    spread = math.sqrt(float(terms.sum()) * rows / (rows - 1)) / float(weights.sum())
    wide = float(stdtrit(rows - 1, (1 + level) / 2)) * spread
    return mean - wide, mean + wide
