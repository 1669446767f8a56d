"""A sequential test of sample-ratio mismatch: whether each arm gets its declared share of keys.

Lindon and Malek 2022, Anytime-valid inference for multinomial count data (NeurIPS 35), equation 5: the
Dirichlet-multinomial mixture over the declared shares. Count units of assignment (a key once, when first seen):
requests of one key are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, StoredState


@dataclass(frozen=True)
class Shares(StoredState):
    """Counts [batch, arms] of units against declared `shares` [arms]; one stage, as weights differ between stages."""

    shares: tuple[float, ...]
    counts: Floats
    strength: float

    @classmethod
    def start(cls, shares: Sequence[float], *, strength: float = 1000.0, batch: tuple[int, ...] = ()) -> Shares:
        """No units yet.

        Args:
            shares: declared, each above 0, together 1.
            strength: how many units the prior around them is worth: large finds small mismatches, later.
            batch: leading axes, one entry a release.

        Raises:
            ValueError: shares do not add up to 1, one is not positive, or strength is not.
        """
        if len(shares) < 2 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9 or strength <= 0:
            raise ValueError(f"shares {tuple(shares)} are not two or more positive numbers that add up to 1")
        return cls(tuple(shares), np.zeros((*batch, len(shares))), strength)

    def add(self, counts: npt.ArrayLike) -> Shares:
        """With more units [batch, arms].

        Raises:
            ValueError: a count is negative or not finite.
        """
        more = np.asarray(counts, dtype=np.float64)
        if not (np.isfinite(more).all() and (more >= 0).all()):
            raise ValueError("counts of units are finite and 0 or more")
        return replace(self, counts=self.counts + more)

    def log_mismatch(self) -> Floats:
        """Log e-value [batch] against "each unit goes to an arm with the declared chance"."""
        from scipy.special import gammaln

        declared = np.array(self.shares)
        prior = self.strength * declared
        marginal = gammaln(prior + self.counts).sum(-1) - gammaln(prior).sum()
        total = gammaln(self.strength) - gammaln(self.strength + self.counts.sum(-1))
        return cast("Floats", marginal + total - self.counts @ np.log(declared))
