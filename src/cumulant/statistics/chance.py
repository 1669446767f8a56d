"""The value of a metric by chance: a model's answers exchanged between rows.

Independent rows are permuted (Phipson & Smyth 2010, Permutation P-values Should Never Be Zero); rows of clusters are
rotated in the clusters' order (Theiler & Prichard 1996, Constrained-realization Monte-Carlo method).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cumulant.statistics.metrics import Metric
from cumulant.statistics.records import LEVEL, Estimate
from cumulant.statistics.rows import Codes, Floats, Rows

EXCHANGES = 399
#: exchanges after which a value that lies this many standard deviations above them needs no more: by Cantelli's
#: inequality less than one in sixty values lies there by chance, whatever the distribution
_FIRST, _CLEAR = 49, 8.0
#: relative to the value: differences below this are rounding
_ROUNDING = 1e-12


def above_chance(metric: Metric, rows: Rows, *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """How much better the answers do on their own rows than on others: above 0 they hold information.

    The interval is that of the values which the test of exchange does not refuse at `level`.
    """
    value = metric.value(rows) if len(rows) else math.nan
    clusters = rows.clusters()[1]
    if clusters < 2 or math.isnan(value):
        return Estimate(value=None, clusters=clusters, level=level)
    sign = 1.0 if metric.larger_is_better else -1.0
    drawn = sign * exchanged_values(metric, rows, count=_FIRST, seed=seed)
    if not _is_clear(sign * value, drawn):
        drawn = np.concatenate([drawn, sign * exchanged_values(metric, rows, count=EXCHANGES - _FIRST, seed=seed + 1)])
    if not np.isfinite(drawn).all():
        return Estimate(value=None, clusters=clusters, level=level)
    low, high = _tails(drawn, (1 - level) / 2)
    own = sign * value
    ends = [_rounded(own - end, value) for end in (float(drawn.mean()), high, low)]
    return Estimate(value=ends[0], low=ends[1], high=ends[2], clusters=clusters, level=level)


def exchanged_values(metric: Metric, rows: Rows, *, count: int = EXCHANGES, seed: int = 0) -> Floats:
    """[count] values of `metric` where the answers are those of other rows."""
    generator = np.random.default_rng(seed)
    ordered = _sort_by_cluster(rows)
    # Rows by their answers: what is exchanged is the truth, so that a metric that sorts finds them sorted.
    order = np.arange(len(rows)) if rows.prediction.ndim == 2 else np.argsort(-ordered.prediction, kind="stable")
    values = np.empty(count)
    for number in range(count):
        values[number] = metric.value(_exchange(ordered, order, _exchange_positions(rows, generator)[order]))
    return values


def _sort_by_cluster(rows: Rows) -> Rows:
    if rows.cluster is None:
        return rows
    order = np.argsort(rows.cluster, kind="stable")
    return _exchange(rows, order, order)


def _exchange_positions(rows: Rows, generator: np.random.Generator) -> Codes:
    """[n] whose truth each row gets."""
    if rows.cluster is None:
        return generator.permutation(len(rows))
    return np.roll(np.arange(len(rows)), int(generator.integers(1, len(rows))))


def _exchange(rows: Rows, answers: Codes, truths: Codes) -> Rows:
    miss, alarm = rows.cost_false_negative, rows.cost_false_positive
    return replace(
        rows,
        truth=rows.truth[truths],
        prediction=rows.prediction[answers],
        cluster=np.zeros(len(answers), dtype=np.int64),
        decision=None if rows.decision is None else rows.decision[answers],
        cost_false_negative=None if miss is None else miss[truths],
        cost_false_positive=None if alarm is None else alarm[truths],
    )


def _is_clear(value: float, drawn: Floats) -> bool:
    spread = float(drawn.std(ddof=1))
    return spread > 0 and value > float(drawn.mean()) + _CLEAR * spread


def _tails(drawn: Floats, tail: float) -> tuple[float, float]:
    """The values that `tail` of the exchanged ones lie below, and above."""
    return -_upper(-drawn, tail), _upper(drawn, tail)


def _upper(drawn: Floats, tail: float) -> float:
    """The upper end: the order statistic that makes the test exact; beyond the largest, by three moments."""
    from scipy.stats import pearson3, skew

    place = math.ceil((1 - tail) * (len(drawn) + 1)) - 1
    if place < len(drawn):
        return float(np.sort(drawn)[place])
    spread = float(drawn.std(ddof=1))
    if spread <= _ROUNDING * abs(float(drawn.mean())):
        return float(drawn.max())
    bent = max(0.0, float(skew(drawn)))
    return max(float(drawn.max()), float(drawn.mean()) + spread * float(pearson3.ppf(1 - tail, bent)))


def _rounded(difference: float, value: float) -> float:
    return 0.0 if abs(difference) <= _ROUNDING * max(abs(value), 1e-300) else difference
