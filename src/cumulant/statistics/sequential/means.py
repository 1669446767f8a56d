"""Bounded means under repeated looks, by betting: one mean, and paired differences.

Source: Waudby-Smith and Ramdas 2023, Estimating means of bounded random variables by betting
(doi:10.1093/jrsssb/qkad009), section 4.

**Assumption.** The conditional mean of each value given those before is the same number. Values that depend on each
other (one key, one burst) are first averaged to one value a key or a block, which is bounded as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, StoredState, check_range


@dataclass(frozen=True)
class Betting(StoredState):
    """Evidence that the mean of values in [0, 1] is above `boundary`: the capital of bets spread over many sizes.

    A bet of size b multiplies its capital by 1 + b (value - boundary); the mean of all capitals is an e-process under
    "mean <= boundary".
    """

    boundary: float
    capital: Floats

    @classmethod
    def start(cls, boundary: float, *, bets: int = 24, batch: tuple[int, ...] = ()) -> Betting:
        """Capital 1 on each of `bets` sizes.

        Raises:
            ValueError: the boundary is not between 0 and 1.
        """
        if not 0 < boundary < 1:
            raise ValueError(f"the boundary {boundary} of a mean of values in [0, 1] lies between 0 and 1")
        return cls(boundary, np.zeros((*batch, bets)))

    def add(self, values: npt.ArrayLike) -> Betting:
        """With more values [batch, n] in [0, 1], in whatever order.

        Raises:
            ValueError: a value is outside [0, 1].
        """
        gain = check_range(values, 0, 1) - self.boundary
        return replace(self, capital=self.capital + np.log1p(gain[..., None] * self.bets).sum(-2))

    def log_evidence(self) -> Floats:
        """Log e-value [batch] against "mean <= boundary"; reject when it reaches log(1 / alpha), at whatever moment."""
        from scipy.special import logsumexp

        return cast("Floats", logsumexp(self.capital, axis=-1) - math.log(self.capital.shape[-1]))

    @property
    def bets(self) -> Floats:
        """Sizes [bets] from a thousandth of the boldest upwards, evenly on a logarithmic scale."""
        boldest = 0.9 / self.boundary
        return np.geomspace(boldest / 1000, boldest, self.capital.shape[-1])


@dataclass(frozen=True)
class Paired(StoredState):
    """Whether a candidate's loss exceeds the champion's by more than a margin, on the same requests.

    A pair's difference (candidate's loss - champion's, such as Brier on a mirrored request) lies in [-scale, scale].
    Pairs of one key in one block are averaged before they are added. Labels may come late and in any order, as long
    as when a label comes does not depend on which arm was right.
    """

    scale: float
    worse: Betting
    better: Betting

    @classmethod
    def start(cls, *, margin: float, scale: float = 1.0, batch: tuple[int, ...] = ()) -> Paired:
        """No pairs yet. `harm` tests whether the difference is above 0, `not_worse` whether it is below `margin`.

        Raises:
            ValueError: not 0 < margin < scale.
        """
        if not 0 < margin < scale:
            raise ValueError(f"a paired comparison needs 0 < margin < scale; these are {margin} and {scale}")
        inside = (1 - margin / scale) / 2
        return cls(scale, Betting.start(0.5, batch=batch), Betting.start(inside, batch=batch))

    def add(self, differences: npt.ArrayLike) -> Paired:
        """With more pairs [batch, n].

        Raises:
            ValueError: a difference is outside [-scale, scale].
        """
        x = check_range(differences, -self.scale, self.scale) / self.scale
        return replace(self, worse=self.worse.add((1 + x) / 2), better=self.better.add((1 - x) / 2))

    def log_harm(self) -> Floats:
        """Log e-value [batch] against "the candidate's mean loss is at most the champion's"."""
        return self.worse.log_evidence()

    def log_not_worse(self) -> Floats:
        """Log e-value [batch] against "the candidate's mean loss is the champion's plus the margin, or more"."""
        return self.better.log_evidence()
