"""Quantiles under continuous watching, from histograms of blocks.

`Quantiles` keeps, for each edge of a fixed histogram, the confidence sequence (`means.Bernstein`) of the share of
values at or below it, one share a block. A quantile is then between the edges that the shares cannot exclude.
**Assumption:** the expected share is the same in every block given those before; values within a block may depend on
each other in any way (keys, queues). Autocorrelated blocks are merged first, by `LongRunVariance`. Blocks count
alike, however many values they hold.

`howard_ramdas_ranks` is for independent values: Howard and Ramdas 2022, Sequential estimation of quantiles with
applications to A/B testing and best-arm identification (doi:10.3150/21-BEJ1388), equations 8 and 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, StoredState, check_alpha
from cumulant.statistics.sequential.means import Bernstein, difference


@dataclass(frozen=True)
class Quantiles(StoredState):
    """The shares at or below each of `edges` [edges], rising; `shares` has the batch's axes before that of edges."""

    edges: Floats
    shares: Bernstein

    @classmethod
    def start(cls, edges: npt.ArrayLike, *, alpha: float = 0.05, batch: tuple[int, ...] = ()) -> Quantiles:
        """No blocks yet. `edges` in the unit of the values, such as seconds; geometric spacing suits latencies.

        Raises:
            ValueError: edges do not rise, or alpha is not between 0 and 1.
        """
        at = np.asarray(edges, dtype=np.float64)
        if at.ndim != 1 or len(at) < 2 or not (np.diff(at) > 0).all():
            raise ValueError("the edges of a histogram are two or more numbers that rise")
        return cls(at, Bernstein.start(alpha, batch=(*batch, len(at))))

    def add(self, histogram: npt.ArrayLike) -> Quantiles:
        """With one block of counts [batch, edges + 1]: up to the first edge, up to the next, ..., above the last.

        Raises:
            ValueError: counts are negative, of another number of bins, or a block holds no value (leave it out).
        """
        counts = np.asarray(histogram, dtype=np.float64)
        if counts.shape[-1] != len(self.edges) + 1 or not (counts >= 0).all() or not (counts.sum(-1) > 0).all():
            raise ValueError(f"a block is {len(self.edges) + 1} counts of 0 or more, not all 0; leave empty blocks out")
        shares = np.cumsum(counts, axis=-1)[..., :-1] / counts.sum(-1)[..., None]
        return replace(self, shares=self.shares.add(np.clip(shares, 0, 1)))

    def interval(self, quantile: float) -> tuple[Floats, Floats]:
        """Ends [batch], [batch] of the quantile in the unit of the edges; infinite beyond the outermost edges.

        Each quantile alone holds at level 1 - alpha: the two sides of one share are never both needed.

        Raises:
            ValueError: the quantile is not between 0 and 1.
        """
        if not 0 < quantile < 1:
            raise ValueError(f"quantile {quantile} is not between 0 and 1")
        low, high = self.shares.interval()
        padded = np.concatenate([[-math.inf], self.edges, [math.inf]])
        # the quantile is above an edge whose share is surely below, and at or below one whose share is surely enough
        below = (np.maximum.accumulate(high[..., ::-1] < quantile, axis=-1)).sum(-1)
        reached = np.maximum.accumulate(low >= quantile, axis=-1).sum(-1)
        return padded[below], padded[len(self.edges) + 1 - reached]


def histogram(values: npt.ArrayLike, edges: npt.ArrayLike) -> Floats:
    """Counts [..., edges + 1] of `values` [..., n] as `Quantiles.add` takes them: a value on an edge is below it."""
    x, at = np.asarray(values, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    place = np.searchsorted(at, x, side="left")
    rows = place.reshape(-1, x.shape[-1]) + (len(at) + 1) * np.arange(math.prod(x.shape[:-1]))[:, None]
    counts = np.bincount(rows.ravel(), minlength=(len(at) + 1) * math.prod(x.shape[:-1]))
    return counts.reshape((*x.shape[:-1], len(at) + 1)).astype(np.float64)


def quantile_difference(candidate: Quantiles, champion: Quantiles, quantile: float) -> tuple[Floats, Floats]:
    """Confidence sequence [batch], [batch] of candidate's quantile minus champion's; the alphas of the two add up.

    Harm is shown when the lower end is above the margin, non-inferiority when the upper end is below it.

    Raises:
        ValueError: the quantile is not between 0 and 1.
    """
    return difference(candidate.interval(quantile), champion.interval(quantile))


def howard_ramdas_ranks(count: int, quantile: float, *, alpha: float = 0.05) -> tuple[float, float]:
    """Sample quantiles that bound the true one at every `count` of **independent** values: (lower, upper) in [0, 1].

    0 and 1 stand for minus and plus infinity.

    Raises:
        ValueError: count is below 1, or quantile or alpha is not between 0 and 1.
    """
    if count < 1 or not 0 < quantile < 1:
        raise ValueError(f"ranks need count >= 1 and 0 < quantile < 1; these are {count} and {quantile}")
    grown = (1.4 * math.log(math.log(2.1 * count)) + math.log(10 / check_alpha(alpha))) / count
    radius = 1.5 * math.sqrt(quantile * (1 - quantile) * grown) + 0.8 * grown
    return max(0.0, quantile - radius), min(1.0, quantile + radius)
