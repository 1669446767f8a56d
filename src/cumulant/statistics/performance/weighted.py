"""Metrics of rows that were labelled with known chances: each stands for 1 / chance rows.

Horvitz and Thompson 1952 (doi:10.1080/01621459.1952.10483446): weighted by the inverse of their chance, the sampled
rows stand for all.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cumulant.statistics.bootstrap import RESAMPLES, draw, interval, limit_clusters, with_jackknife
from cumulant.statistics.metrics import Metric
from cumulant.statistics.records import LEVEL, Estimate
from cumulant.statistics.rows import Floats, Rows

#: cells of weights held at a time
_CELLS = 4_000_000


def weighted_estimate(
    metric: Metric, rows: Rows, weight: Floats, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Estimate:
    """`metric` of `rows` of which each counts `weight` [n] times, with its interval over clusters.

    Raises:
        ValueError: a weight is not a positive finite number, or they are not as many as the rows.
    """
    if len(weight) != len(rows) or not (np.isfinite(weight).all() and (weight > 0).all()):
        raise ValueError("each row needs a weight above 0: the inverse of the chance that it was labelled")
    if not len(rows):
        return Estimate(value=None, level=level)
    grouped, clusters = limit_clusters(rows, seed=seed)
    cluster, count = grouped.clusters()
    pair, place = np.unique(np.stack([cluster.astype(np.float64), weight]), axis=1, return_inverse=True)
    measure = metric.prepare(replace(grouped, cluster=place.ravel().astype(np.int64)))
    owner, each = pair[0].astype(np.int64), pair[1]
    value = float(measure(each[None])[0])
    if count < 2 or math.isnan(value):
        return Estimate(value=None if math.isnan(value) else value, clusters=clusters, level=level)
    step = max(1, _CELLS // len(each))
    times = draw(count, resamples=resamples, seed=seed)

    def by_cluster(weights: Floats) -> Floats:
        """The metric [draws] of weights of clusters [draws, clusters]."""
        parts = range(0, len(weights), step)
        return np.concatenate([measure(weights[at : at + step, owner] * each) for at in parts])

    drawn = by_cluster(times)
    low, high = interval(drawn, clusters=clusters, level=level)
    if not math.isnan(low):
        low, high = with_jackknife(
            low, high, value, by_cluster, groups=count, clusters=clusters, level=level, seed=seed
        )
    if math.isnan(low):
        return Estimate(value=value, clusters=clusters, level=level)
    shift = float(np.nanmedian(drawn)) - value if metric.shifted else 0.0
    low, high = metric.possible(low - shift, high - shift)
    return Estimate(value=value, low=low, high=high, clusters=clusters, level=level)
