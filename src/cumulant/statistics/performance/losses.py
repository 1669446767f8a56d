"""A regression's loss without labels, from a model of the loss (direct loss estimation).

The interval holds the spread of the losses and the error of the loss model's mean; concept change stays invisible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cumulant.statistics.records import LEVEL, Estimate
from cumulant.statistics.rows import Codes, Floats

#: rows with labels that the loss model is judged on
LEAST_REFERENCE = 500


@dataclass(frozen=True, kw_only=True)
class LossReference:
    """The accuracy of the loss model on rows that it was not fitted on.

    bias: mean of the loss less its prediction, which is added to each estimate. error: its standard error.
    deviation: of one row's loss around its prediction. clusters: the number of independent groups of rows.
    spread: how much wider than independent rows the means of clusters vary.
    """

    bias: float
    error: float
    deviation: float
    clusters: int
    spread: float

    @classmethod
    def of(cls, loss: Floats, predicted: Floats, cluster: Codes | None = None) -> LossReference:
        """From `loss` [n] and its `predicted` values [n] for the same rows, by a model fitted on others.

        Raises:
            ValueError: there are fewer than LEAST_REFERENCE rows, or one is not finite.
        """
        if len(loss) < LEAST_REFERENCE or not (np.isfinite(loss).all() and np.isfinite(predicted).all()):
            raise ValueError(
                f"a loss model is judged on {LEAST_REFERENCE} rows or more with finite losses; these are {len(loss)}"
            )
        rest = loss - predicted
        deviation = float(rest.std(ddof=1))
        plain = deviation / math.sqrt(len(loss))
        clusters, error = _error_of_mean(rest, cluster)
        return cls(
            bias=float(rest.mean()),
            error=error,
            deviation=deviation,
            clusters=clusters,
            spread=max(1.0, error / plain) if plain > 0 else 1.0,
        )


def mean_loss(loss: Floats, cluster: Codes | None = None, *, level: float = LEVEL) -> Estimate:
    """The mean of `loss` [n], of the rows that an estimate is compared with."""
    value = float(loss.mean())
    clusters, error = _error_of_mean(loss, cluster)
    radius = _wide(clusters, level) * error
    return Estimate(value=value, low=max(0.0, value - radius), high=value + radius, clusters=clusters, level=level)


def expected_loss(reference: LossReference, predicted: Floats, *, level: float = LEVEL) -> Estimate:
    """The mean loss of rows with the loss model's values `predicted` [n], and the interval of the true mean loss.

    Raises:
        ValueError: there are no rows, or one is not finite.
    """
    if not len(predicted) or not np.isfinite(predicted).all():
        raise ValueError("a loss is estimated for one row or more, from finite numbers")
    value = float(predicted.mean()) + reference.bias
    sampling = reference.spread * reference.deviation / math.sqrt(len(predicted))
    radius = _wide(reference.clusters, level) * math.hypot(sampling, reference.error)
    low = max(0.0, value - radius)
    return Estimate(value=max(0.0, value), low=low, high=value + radius, clusters=reference.clusters, level=level)


def _error_of_mean(values: Floats, cluster: Codes | None) -> tuple[int, float]:
    """How many clusters there are, and the standard error of the mean of `values` [n]."""
    if cluster is None:
        return len(values), float(values.std(ddof=1)) / math.sqrt(len(values))
    clusters = int(cluster.max()) + 1
    sums = np.bincount(cluster, values - values.mean(), minlength=clusters)
    return clusters, math.sqrt(float((sums**2).sum()) * clusters / max(clusters - 1, 1)) / len(values)


def _wide(clusters: int, level: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, max(clusters - 1, 1)))
