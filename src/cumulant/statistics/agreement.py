"""The agreement of two raters beyond chance: Cohen's kappa with its interval.

Cohen (1960); standard errors of Fleiss, Cohen & Everitt (1969), as in Fleiss, Levin & Paik (2003), chapter 18.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cumulant.statistics.rows import Floats

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """`observed` and `expected` are shares of cases on which both agree; `kappa` is 1 where they always do.

    `kappa` is None where chance alone would give full agreement (both use one and the same category), `low` and
    `high` also where fewer than two cases were judged. Where both agree on all cases, or on none, the interval is
    Clopper & Pearson's of `observed`, with `expected` as it is.
    """

    cases: int
    observed: float | None
    expected: float | None
    kappa: float | None
    low: float | None = None
    high: float | None = None
    level: float = LEVEL


def cohen_kappa(counts: Floats, *, level: float = LEVEL) -> Agreement:
    """Kappa of a table of counts [k, k]: the first rater's categories by the second one's.

    Raises:
        ValueError: the table is not square, or a count is negative.
    """
    from scipy.special import ndtri

    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or bool((counts < 0).any()):
        raise ValueError("agreement is counted in a square table of counts")
    total = float(counts.sum())
    if total == 0:
        return Agreement(cases=0, observed=None, expected=None, kappa=None, level=level)
    shares = counts / total
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed, expected = float(np.trace(shares)), float(rows @ columns)
    if expected >= 1 - 1e-12:
        return Agreement(cases=round(total), observed=observed, expected=expected, kappa=None, level=level)
    kappa = (observed - expected) / (1 - expected)
    low = high = None
    if total > 1 and 0 < observed < 1 - 1e-12:
        wide = float(ndtri((1 + level) / 2)) * _standard_error(shares, kappa, expected, total)
        low, high = max(-1.0, kappa - wide), min(1.0, kappa + wide)
    elif total > 1:
        # Its standard error is 0, though two cases show little: the share of agreement has exact ends here.
        apart = 1 - ((1 - level) / 2) ** (1 / total)
        ends = (1 - apart, 1.0) if observed else (0.0, apart)
        low, high = (max(-1.0, (end - expected) / (1 - expected)) for end in ends)
    return Agreement(
        cases=round(total), observed=observed, expected=expected, kappa=kappa, low=low, high=high, level=level
    )


def _standard_error(shares: Floats, kappa: float, expected: float, total: float) -> float:
    """The standard error of an estimated kappa, not of one under chance: Fleiss, Levin & Paik (2003), 18.15."""
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    same = np.diag(shares)
    a = float((same * (1 - (rows + columns) * (1 - kappa)) ** 2).sum())
    crossed = (columns[:, None] + rows[None, :]) ** 2 * shares
    b = (1 - kappa) ** 2 * float(crossed.sum() - np.trace(crossed))
    c = (kappa - expected * (1 - kappa)) ** 2
    return math.sqrt(max(0.0, a + b - c) / total) / (1 - expected)


def contingency_table(first: Sequence[object], second: Sequence[object]) -> Floats:
    """The table of `cohen_kappa` of two raters' categories [n], in the order in which they first come."""
    places = {name: place for place, name in enumerate(dict.fromkeys([*first, *second]))}
    table = np.zeros((len(places), len(places)))
    for category, other in zip(first, second, strict=True):
        table[places[category], places[other]] += 1
    return table
