"""Clustered bootstrap: intervals of metrics and of paired differences.

Whole clusters are drawn with replacement, as weights (multinomial counts). Percentiles are widened for few clusters
(Hesterberg 2015, What Teachers Should Know About the Bootstrap: t(k-1) sqrt(k/(k-1)) replaces the normal z), extended
to the jackknife's interval (Efron & Tibshirani 1993, chapter 11) with the first skewness term (Johnson 1978, Modified t
Tests), and widened by 1.5 / k with k clusters, which was chosen by simulation (`bench/gate/worlds.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from cumulant.statistics.metrics import Metric
from cumulant.statistics.records import LEVEL, Estimate
from cumulant.statistics.rows import Floats, Rows

RESAMPLES = 1000
#: more clusters than this are gathered into as many groups: sums of independent clusters stay independent
MOST_GROUPS = 2000
#: parts that the jackknife leaves out, one after the other: clusters, or random groups of them
_PARTS = 200
#: over the number of clusters: by how much the jackknife's interval is widened, as few clusters show no long tail
_UNSEEN_TAIL = 1.5
#: draws that lie beyond an end, at least; a rarer end is worked out from the one that has so many
_LEAST_BEYOND = 5
#: below this share of defined resamples (a resample without a positive has no average precision) there is no interval
_LEAST_DEFINED = 0.8


@lru_cache(maxsize=1)  # a model is measured by a dozen metrics under the same draws, which took most of the time
def draw(clusters: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Weights [resamples, clusters]: how often each cluster came when as many as there are were drawn. Read-only."""
    chances = np.full(clusters, 1 / clusters)
    weights = np.random.default_rng(seed).multinomial(clusters, chances, size=resamples).astype(np.float64)
    weights.flags.writeable = False
    return weights


def estimate(
    metric: Metric, rows: Rows, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Estimate:
    """`metric` of `rows` with its interval over clusters."""
    if not len(rows):
        return Estimate(value=None, level=level)
    grouped, clusters = limit_clusters(rows, seed=seed)
    measure = metric.prepare(grouped)
    value = float(measure(np.ones((1, grouped.clusters()[1])))[0])
    if grouped.clusters()[1] < 2 or math.isnan(value):
        return Estimate(value=_none_if_nan(value), clusters=clusters, level=level)
    drawn = measure(draw(grouped.clusters()[1], resamples=resamples, seed=seed))
    low, high = interval(drawn, clusters=clusters, level=level)
    low, high = with_jackknife(
        low, high, value, measure, groups=grouped.clusters()[1], clusters=clusters, level=level, seed=seed
    )
    if metric.shifted and not math.isnan(low):
        shift = float(np.nanmedian(drawn)) - value
        low, high = low - shift, high - shift
    low, high = metric.possible(low, high)
    return Estimate(value=value, low=_none_if_nan(low), high=_none_if_nan(high), clusters=clusters, level=level)


def difference(
    metric: Metric,
    candidate: Rows,
    reference: Rows,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """How much better `candidate` is than `reference` on the same rows: above 0 it is better, for every metric.

    Both are measured under the same draws, so what the rows have in common cancels out.

    Raises:
        ValueError: the two are not the same rows.
    """
    if not (len(candidate) == len(reference) and np.array_equal(candidate.truth, reference.truth)):
        raise ValueError("a paired difference needs both predictions on the same rows, in the same order")
    if not len(candidate):
        return Estimate(value=None, level=level)
    (ours, clusters), (theirs, _) = limit_clusters(candidate, seed=seed), limit_clusters(reference, seed=seed)
    sign = 1.0 if metric.larger_is_better else -1.0
    first, second = metric.prepare(ours), metric.prepare(theirs)
    groups = ours.clusters()[1]

    def measure(weights: Floats) -> Floats:
        return 0.0 + sign * (first(weights) - second(weights))  # 0.0: no minus zero

    value = float(measure(np.ones((1, groups)))[0])
    if groups < 2 or math.isnan(value):
        return Estimate(value=_none_if_nan(value), clusters=clusters, level=level)
    drawn = measure(draw(groups, resamples=resamples, seed=seed))
    low, high = interval(drawn, clusters=clusters, level=level)
    low, high = with_jackknife(low, high, value, measure, groups=groups, clusters=clusters, level=level, seed=seed)
    return Estimate(value=value, low=_none_if_nan(low), high=_none_if_nan(high), clusters=clusters, level=level)


def interval(drawn: Floats, *, clusters: int, level: float = LEVEL) -> tuple[float, float]:
    """The ends of resampled values [resamples]; NaN where too few of them are defined."""
    from scipy.stats import norm, t

    defined = drawn[np.isfinite(drawn)]
    if clusters < 2 or len(defined) < max(_LEAST_DEFINED * len(drawn), 2):
        return math.nan, math.nan
    wide = t.ppf((1 + level) / 2, clusters - 1) * math.sqrt(clusters / (clusters - 1))
    tail = float(norm.cdf(-wide))
    inner_tail = max(tail, min(0.25, _LEAST_BEYOND / len(defined)))
    low, centre, high = np.quantile(defined, [inner_tail, 0.5, 1 - inner_tail])
    beyond = wide / float(norm.ppf(1 - inner_tail)) if inner_tail > tail else 1.0
    return float(centre - beyond * (centre - low)), float(centre + beyond * (high - centre))


def with_jackknife(
    low: float,
    high: float,
    value: float,
    measure: Callable[[Floats], Floats],
    *,
    groups: int,
    clusters: int,
    level: float,
    seed: int,
) -> tuple[float, float]:
    """The ends of an interval moved out to those of the jackknife; NaN where a part cannot be left out.

    `measure` gives the metric [draws] of weights of clusters [draws, groups].
    """
    from scipy.stats import t

    if math.isnan(low):
        return low, high
    parts = min(groups, _PARTS)
    part = np.arange(groups) if parts == groups else np.random.default_rng(seed).permutation(groups) % parts
    left_out = measure((part[None, :] != np.arange(parts)[:, None]).astype(np.float64))
    if not np.isfinite(left_out).all():
        return (low, high) if clusters >= _PARTS else (math.nan, math.nan)
    off = left_out - left_out.mean()
    spread = math.sqrt((parts - 1) * float(np.mean(off**2)))
    if spread <= 0:
        return low, high
    skew = -float(np.mean(off**3) / np.mean(off**2) ** 1.5)
    wide = float(t.ppf((1 + level) / 2, clusters - 1)) * (1 + _UNSEEN_TAIL / clusters)
    bent = skew * (2 * wide**2 + 1) / (6 * math.sqrt(parts))
    return min(low, value - spread * (wide + max(0.0, -bent))), max(high, value + spread * (wide + max(0.0, bent)))


def limit_clusters(rows: Rows, *, seed: int = 0) -> tuple[Rows, int]:
    """`rows` with at most MOST_GROUPS clusters, each a random group of whole clusters, and the number before."""
    codes, count = rows.clusters()
    if count <= MOST_GROUPS:
        return rows, count
    place = np.random.default_rng(seed).permutation(count) % MOST_GROUPS
    return replace(rows, cluster=place[codes].astype(np.int64)), count


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
