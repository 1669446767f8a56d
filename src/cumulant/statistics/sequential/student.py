"""Means of near-normal values of unknown spread under continuous watching, and when a mean has risen.

Source: Wang and Ramdas 2025, Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance
(doi:10.1080/07474946.2024.2428245), the scale-invariant mixture after Lai 1976, here over positive effects only: with S
and V the sums of n values and of their squares, c = 1 / effect and A = V - S^2 / (n + c^2), the e-process against "the
mean is 0 or less" is 2 T_n(S sqrt(n / (A (n + c^2)))) sqrt(c^2 / (n + c^2)) (V / A)^(n/2), T_n being the distribution
function of Student's t. A change is found as in Shin, Ramdas and Rinaldo 2024, E-detectors (doi:10.51387/23-NEJSDS51):
an e-process begins at each look, and their sum is watched.

**Assumption.** Values are independent and near normal: means of blocks, such as a day's rows, not losses of single
rows. `dependence` learns by how much windows are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, StoredState

#: a rise that is tested for in addition to small ones, in standard deviations of a value
LARGE = 2.0
#: a sum of squares up to this is that of zeros: ratios of smaller ones lose their digits, or overflow
_LEAST = 1e-290


@dataclass(frozen=True)
class Student(StoredState):
    """Evidence that the mean of near-normal values is above 0; `effect` is the size to detect, in deviations.

    count, total, squares: [batch] of the values added.
    """

    effect: float
    count: Floats
    total: Floats
    squares: Floats

    @classmethod
    def start(cls, *, effect: float = 0.5, batch: tuple[int, ...] = ()) -> Student:
        """No values yet.

        Raises:
            ValueError: `effect` is not positive.
        """
        if not effect > 0:
            raise ValueError(f"effect is {effect}; it is a mean above 0 in standard deviations of a value")
        zeros = np.zeros(batch)
        return cls(effect, zeros, zeros, zeros)

    def add(self, values: npt.ArrayLike) -> Student:
        """With more values [batch, n].

        Raises:
            ValueError: a value is not finite.
        """
        x = np.asarray(values, dtype=np.float64)
        if not np.isfinite(x).all():
            raise ValueError("a value is not finite; leave a block out that has no mean")
        return replace(
            self,
            count=self.count + x.shape[-1],
            total=self.total + x.sum(-1),
            squares=self.squares + (x**2).sum(-1),
        )

    def log_evidence(self) -> Floats:
        """Log e-value [batch] against "the mean is 0 or less"; 0 before any value and while all values are 0."""
        from scipy.special import stdtr

        n, c = self.count, 1 / self.effect**2
        nonzero = self.squares > _LEAST
        squares = np.where(nonzero, self.squares, 1.0)
        total = np.where(nonzero, self.total, 0.0)
        rest = squares - total**2 / (n + c)
        freedom = np.maximum(n, 1)
        with np.errstate(divide="ignore"):  # far below 0 there is no evidence at all
            side = np.log(stdtr(freedom, total * np.sqrt(freedom / (rest * (n + c)))))
        evidence = math.log(2) + side + (np.log(c / (n + c)) + n * np.log(squares / rest)) / 2
        return np.where(nonzero, evidence, 0.0)


def of_any_size(sums: Student) -> Floats:
    """Log e-value [batch]: the mean of those of `Student.log_evidence` at `effect` and at LARGE deviations."""
    return np.logaddexp(sums.log_evidence(), replace(sums, effect=LARGE).log_evidence()) - math.log(2)


@dataclass(frozen=True)
class Risen(StoredState):
    """Whether the mean of near-normal values has risen above 0 since some look; a `Student` begins at each.

    With every look before the change alike, an alarm at evidence log(1 / alpha) comes with probability alpha at most
    within the first `horizon` looks, and on average not before `horizon` / alpha of them. The last `horizon` starts
    are kept: earlier changes are not detected. `allowed`: log evidence that is taken off, since values that
    depend on each other or are skewed show as much by chance (`dependence.allowance`).
    """

    horizon: int
    looks: int
    starts: Student
    allowed: float = 0.0

    @classmethod
    def start(cls, *, horizon: int, effect: float = 0.5, allowed: float = 0.0) -> Risen:
        """No looks yet.

        Raises:
            ValueError: `horizon` is not positive, or `effect` is not.
        """
        if horizon < 1:
            raise ValueError(f"horizon is {horizon}; it is a number of looks, 1 or more")
        return cls(horizon, 0, Student.start(effect=effect, batch=(0,)), allowed)

    def add(self, values: npt.ArrayLike) -> Risen:
        """One more look with its values [n], which count for every start.

        Raises:
            ValueError: a value is not finite.
        """
        x = np.asarray(values, dtype=np.float64)
        sums = (np.append(getattr(self.starts, name), 0.0)[-self.horizon :] for name in ("count", "total", "squares"))
        begun = Student(self.starts.effect, *sums)
        return replace(self, looks=self.looks + 1, starts=begun.add(np.broadcast_to(x, (len(begun.count), len(x)))))

    def log_evidence(self) -> float:
        """Of the sum over all starts, against "no rise at any look"; alarm at log(1 / alpha)."""
        if not self.looks:
            return 0.0
        return float(np.logaddexp.reduce(of_any_size(self.starts))) - math.log(self.horizon) - self.allowed

    def recent(self, looks: int) -> float:
        """Log evidence from the last `looks` looks only: the mean of as many e-values, one for each start."""
        evidence = of_any_size(self.starts)[-looks:]
        return float(np.logaddexp.reduce(evidence)) - math.log(looks) - self.allowed if len(evidence) else 0.0

    def since(self) -> int | None:
        """The look, counted from 0, whose start has the most evidence; None before any."""
        if not self.looks:
            return None
        return self.looks - len(self.starts.count) + int(np.argmax(of_any_size(self.starts)))

    def mean_since(self, look: int) -> float:
        """The mean of all values from that look on; NaN where it is not kept or brought none."""
        place = look - (self.looks - len(self.starts.count))
        if not 0 <= place < len(self.starts.count) or not self.starts.count[place]:
            return math.nan
        return float(self.starts.total[place] / self.starts.count[place])

    def radius_since(self, look: int, *, level: float = 0.95) -> float:
        """Half the width of the plain interval of that mean, as if looked at once; NaN with fewer than two values."""
        from scipy.special import stdtrit

        place = look - (self.looks - len(self.starts.count))
        if not 0 <= place < len(self.starts.count) or self.starts.count[place] < 2:
            return math.nan
        n, mean = float(self.starts.count[place]), self.mean_since(look)
        spread = max(0.0, float(self.starts.squares[place]) - n * mean**2) / (n - 1)
        return float(stdtrit(n - 1, (1 + level) / 2)) * math.sqrt(spread / n)
