"""Means under continuous watching: bounded by betting, sub-Gaussian, paired, and (marked so) asymptotic.

Sources: Waudby-Smith and Ramdas 2023, Estimating means of bounded random variables by betting
(doi:10.1093/jrsssb/qkad009): theorem 2 for `Bernstein`, theorem 3 for `hedged_interval`, section 4 for `Betting`;
Howard, Ramdas, McAuliffe, Sekhon 2021, Time-uniform, nonparametric, nonasymptotic confidence sequences
(doi:10.1214/20-AOS1991), equation 14 for `normal_mixture_radius`; Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024,
Time-uniform central limit theory (doi:10.1214/24-AOS2408), theorem 2.2 for `asymptotic_radius`.

**Assumption.** The conditional mean of each value given those before is the same number. Values that depend on each
other (one key, one burst) are first averaged to one value a key or a block, which is bounded as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, StoredState, check_alpha, check_range

#: the largest bet, as a part of the one that could lose everything
_BOLDEST = 0.5


@dataclass(frozen=True)
class Bernstein(StoredState):
    """Empirical-Bernstein confidence sequence of a mean of values in [0, 1] (predictable plug-in); O(1) state.

    All fields but `count` and `alpha` have the shape of the batch: the leading axes of what is added.
    """

    alpha: float
    count: int
    total: Floats
    squares: Floats
    bet: Floats
    bet_values: Floats
    penalty: Floats

    @classmethod
    def start(cls, alpha: float = 0.05, *, batch: tuple[int, ...] = ()) -> Bernstein:
        """No values yet.

        Raises:
            ValueError: alpha is not between 0 and 1.
        """
        zeros = np.zeros(batch)
        return cls(check_alpha(alpha), 0, zeros, zeros, zeros, zeros, zeros)

    def add(self, value: npt.ArrayLike) -> Bernstein:
        """With one more value [batch] in [0, 1].

        Raises:
            ValueError: a value is outside [0, 1].
        """
        x, n = check_range(value, 0, 1), self.count + 1
        before = (0.5 + self.total) / n
        variance = (0.25 + self.squares) / n
        bet = np.minimum(np.sqrt(2 * math.log(2 / self.alpha) / (variance * n * math.log1p(n))), _BOLDEST)
        total = self.total + x
        surprise = 4 * (x - before) ** 2
        return replace(
            self,
            count=n,
            total=total,
            squares=self.squares + (x - (0.5 + total) / (n + 1)) ** 2,
            bet=self.bet + bet,
            bet_values=self.bet_values + bet * x,
            penalty=self.penalty + surprise * (-np.log1p(-bet) - bet) / 4,
        )

    def interval(self) -> tuple[Floats, Floats]:
        """The mean's ends [batch], [batch] at level 1 - alpha, at all moments together; [0, 1] before any value."""
        if not self.count:
            return np.zeros_like(self.total), np.ones_like(self.total)
        radius = (math.log(2 / self.alpha) + self.penalty) / self.bet
        middle = self.bet_values / self.bet
        return np.clip(middle - radius, 0, 1), np.clip(middle + radius, 0, 1)


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


def hedged_interval(
    values: npt.ArrayLike, *, alpha: float = 0.05, points: int = 400, ends: Literal["last", "running"] = "last"
) -> tuple[float, float]:
    """Confidence sequence, at its last moment, of the mean of `values` [n] in [0, 1] by hedged capital.

    Tighter than `Bernstein` and O(n x points): for reports, not for state. "running" intersects all moments.

    Raises:
        ValueError: a value is outside [0, 1], there are none, or alpha is not between 0 and 1.
    """
    x = check_range(values, 0, 1)
    if not len(x):
        raise ValueError("an interval of a mean needs at least one value")
    place = (np.arange(points) + 0.5) / points
    not_rejected = hedged_capital(x, place, alpha=alpha) < math.log(1 / alpha)
    here = not_rejected.all(0) if ends == "running" else not_rejected[-1]
    if not here.any():
        middle = float(x.mean())
        return middle, middle
    low, high = place[here][0] - 0.5 / points, place[here][-1] + 0.5 / points
    return max(0.0, float(low)), min(1.0, float(high))


def hedged_capital(values: npt.ArrayLike, means: npt.ArrayLike, *, alpha: float = 0.05) -> Floats:
    """Logarithm [n, means] of the hedged capital against each of `means` after each of `values` [n] in [0, 1].

    The larger of two halves, one that bets on a mean above and one on a mean below.

    Raises:
        ValueError: a value is outside [0, 1], or alpha is not between 0 and 1.
    """
    x, place = check_range(values, 0, 1), np.asarray(means, dtype=np.float64)
    bet = _plug_in_bets(x, check_alpha(alpha))[:, None]
    up = np.cumsum(np.log1p(np.minimum(bet, _BOLDEST / place) * (x[:, None] - place)), axis=0)
    down = np.cumsum(np.log1p(-np.minimum(bet, _BOLDEST / (1 - place)) * (x[:, None] - place)), axis=0)
    return cast("Floats", np.maximum(up, down) - math.log(2))


def normal_mixture_radius(variance: npt.ArrayLike, *, alpha: float = 0.05, rho: float = 1.0) -> Floats:
    """How far a sum of independent sub-Gaussian terms strays from its mean, ever, with probability at most alpha.

    Args:
        variance: intrinsic time, the sum of the terms' variance proxies, in squared units of the sum.
        alpha: both sides together.
        rho: where the bound is tight, in units of `variance`; see `best_rho`.

    Raises:
        ValueError: alpha is not between 0 and 1, or rho is not positive.
    """
    if rho <= 0:
        raise ValueError(f"rho is {rho}; it is an intrinsic time above 0")
    v = np.asarray(variance, dtype=np.float64) + rho
    return cast("Floats", np.sqrt(v * (np.log(v / rho) - 2 * math.log(check_alpha(alpha)))))


def best_rho(variance: float, *, alpha: float = 0.05) -> float:
    """The `rho` that makes `normal_mixture_radius` smallest at intrinsic time `variance`.

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    from scipy.special import lambertw

    return variance / float(-lambertw(-(check_alpha(alpha) ** 2) / math.e, -1).real - 1)


def asymptotic_radius(count: npt.ArrayLike, deviation: npt.ArrayLike, *, alpha: float, rho: float = 0.1) -> Floats:
    """**Asymptotic** confidence sequence's half width of a mean of `count` block means with standard `deviation`.

    Holds as blocks grow many, not at each sample size; blocks must be independent (`LongRunVariance`). For values
    without a bound only; never the basis of a rollback. Tight near count = 2 log(1/alpha) / rho^2, roughly.

    Raises:
        ValueError: alpha is not between 0 and 1, or rho is not positive.
    """
    if rho <= 0:
        raise ValueError(f"rho is {rho}; it is above 0")
    n = np.asarray(count, dtype=np.float64)
    grown = n * rho**2 + 1
    spread = np.asarray(deviation, dtype=np.float64)
    radius: Floats = spread * np.sqrt(2 * grown / (n * rho) ** 2 * np.log(np.sqrt(grown) / check_alpha(alpha)))
    return radius


def difference(candidate: tuple[Floats, Floats], champion: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Candidate minus champion from an interval of each, whose alphas add up: independent arms are not needed."""
    return candidate[0] - champion[1], candidate[1] - champion[0]


def _plug_in_bets(x: Floats, alpha: float) -> Floats:
    """[n]: each from the values before it only."""
    n = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (n + 1)
    variance = np.concatenate([[0.25], (0.25 + np.cumsum((x - mean) ** 2)) / (n + 1)])[:-1]
    return cast("Floats", np.sqrt(2 * math.log(2 / alpha) / (variance * n * np.log1p(n))))
