"""The dependence and skewness of successive values, and the evidence that these alone would show.

`Student` takes values for independent and near normal. `estimate_dependence` learns from the reference how far they are
not; `allowance` is the evidence that such values show by chance, which is subtracted.

**The rule.** Values of one window that vary together, by their sum's variance against that of independent ones, are one
value. Windows follow each other as an autoregression of first order, whose correlation stands for the sum of all
autocorrelations (1 + r) / (1 - r); its estimate is corrected for the bias of short series (Marriott and Pope 1954).
Fluctuations slower than the reference cannot be seen in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cumulant.statistics.sequential.arrays import Floats
from cumulant.statistics.sequential.student import Student, of_any_size

#: windows without which it is not known how they depend, and what is then assumed of them
FEWEST, ASSUMED = 12, 0.3
#: simulated runs, and the most values of one look that are simulated: sums of more are near normal
_RUNS, _VALUES = 600, 8
#: the size of change that evidence is made for, as in `Student.start`
_EFFECT = 0.5
#: correlations beyond this cannot be distinguished from a trend
_MOST = 0.95
#: skewness and correlation below which values show no more than normal ones, as the test of a rise is cautious
_SLIGHT = 1.0, 0.2
#: skewness of a sample below this is not distinguished from that of normal values; larger ones than the second are not
#: simulated
_STRAIGHT, _STEEP = 0.3, 8.0
#: by how much the skewness of a sample of a skewed gamma distribution falls short of its own
_LARGER = 1.5
#: beyond the first skewness a sample of the second number of values falls short by as much more for each 1, as a long
#: tail is met seldom; a sample of twice as many does not
_LONG, _MANY, _MORE = 2.0, 60, 0.5


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """whole: the values of a look vary together, and their mean is one value. correlation: of neighbouring looks, from
    0 on. skewness: of values. values: how many a look has.
    """

    whole: bool = False
    correlation: float = 0.0
    skewness: float = 0.0
    values: int = 1

    @property
    def factor(self) -> float:
        """By how much dependence widens the variance of a mean of looks: the sum of all autocorrelations."""
        return (1 + self.correlation) / (1 - self.correlation)


def estimate_dependence(history: Sequence[Floats]) -> Dependence:
    """The dependence of a reference's values [looks][values], oldest first, for values that come later."""
    looks = [np.asarray(look, dtype=np.float64) for look in history if len(look)]
    if not looks:
        return Dependence(correlation=ASSUMED)
    means = np.array([look.mean() for look in looks])
    sizes = np.array([len(look) for look in looks])
    together = _vary_together(looks, means, sizes)
    if len(means) >= FEWEST:
        correlation = _correlation(means)
    else:  # few windows of several values that do not vary together say that they do not depend on each other
        correlation = 0.0 if len(means) > 1 and float(np.median(sizes)) > 1 and not together else ASSUMED
    whole = together or (correlation > 0 and len(means) > 1)
    values = 1 if whole else int(np.median(sizes))
    return Dependence(
        whole=whole,
        correlation=correlation,
        skewness=_skewness(means if whole else np.concatenate(looks)),
        values=values,
    )


def _vary_together(looks: Sequence[Floats], means: Floats, sizes: Floats) -> bool:
    """Whether means of looks vary by more than those of independent values would, and surely so (99%)."""
    from scipy.stats import f

    within = sum(float(((look - mean) ** 2).sum()) for look, mean in zip(looks, means, strict=True))
    freedom, count = int(sizes.sum()) - len(looks), len(looks)
    if freedom < 1 or count < 2 or within <= 0:
        return False
    grand = float((sizes * means).sum() / sizes.sum())
    between = float((sizes * (means - grand) ** 2).sum()) / (count - 1)
    return bool(f.sf(between / (within / freedom), count - 1, freedom) < 0.01)


def _correlation(means: Floats) -> float:
    """Of neighbours; 0 where chance shows as much among independent ones."""
    n, around = len(means), means - means.mean()
    whole = float(around @ around)
    seen = float(around[1:] @ around[:-1]) / whole if whole > 0 else 0.0
    if seen <= 1 / math.sqrt(n):
        return 0.0
    return min(seen + (1 + 3 * seen) / n, _MOST)


def _skewness(values: Floats) -> float:
    """The standardised third moment, made larger: few values seldom show what is rare, and then too little of it."""
    spread = float(values.std())
    if len(values) < 3 or spread <= 0:
        return 0.0
    seen = float((((values - values.mean()) / spread) ** 3).mean())
    if abs(seen) < max(_STRAIGHT, math.sqrt(6 / len(values))):
        return 0.0
    fewer = _MANY / len(values)
    more = _MORE * max(abs(seen) - _LONG, 0.0) * min(max(2 * fewer - 1, 0.0), 1.0)
    short = (_LARGER + more) * max(math.sqrt(fewer), 1.0)
    return math.copysign(min(short * abs(seen), _STEEP), seen)


@dataclass(frozen=True)
class EvidenceAllowance:
    """Log evidence that is chance: of a rise since any look (`Risen.log_evidence`), and of the newest looks alone."""

    risen: float = 0.0
    recent: float = 0.0


def allowance(
    dependence: Dependence, *, horizon: int, recent: int, alpha: float, falling: bool = False
) -> EvidenceAllowance:
    """How much more log evidence than independent normal values, and than log(1 / alpha), values like these show with a
    chance of `alpha` within `horizon` looks although their mean is 0. `falling`: of the values with the other sign.

    It is the quantile of half of `alpha`, since what was learned of few looks errs.
    """
    skewness = min(-dependence.skewness if falling else dependence.skewness, 0.0)  # a long tail above only hides a rise
    if skewness > -_SLIGHT[0] and dependence.correlation < _SLIGHT[1]:
        return EvidenceAllowance()
    shape = _RUNS, horizon, min(dependence.values, _VALUES)
    greatest = _greatest_of_normal(shape, recent), _greatest_of_like(dependence.correlation, skewness, shape, recent)
    ends = [np.quantile(evidence, 1 - alpha / 2, axis=1) for evidence in greatest]
    bar = math.log(1 / alpha)
    risen, newest = (max(float(then) - max(float(now), bar), 0.0) for now, then in zip(*ends, strict=True))
    return EvidenceAllowance(risen, newest)


# The first is the same for all values of a policy; the second for a rise and a fall of values that are not skewed.
@lru_cache(maxsize=16)
def _greatest_of_normal(shape: tuple[int, int, int], recent: int) -> Floats:
    """`_greatest_evidence` of independent normal values [runs, looks, values]."""
    return _greatest_evidence(np.random.default_rng(0).standard_normal(shape), recent)


@lru_cache(maxsize=16)
def _greatest_of_like(correlation: float, skewness: float, shape: tuple[int, int, int], recent: int) -> Floats:
    """`_greatest_evidence` of values that are as dependent and skewed [runs, looks, values]."""
    generator = np.random.default_rng(0)
    generator.standard_normal(shape)  # those that `_greatest_of_normal` draws
    return _greatest_evidence(_simulate_values(correlation, skewness, shape, generator), recent)


def _simulate_values(
    correlation: float, skewness: float, shape: tuple[int, int, int], generator: np.random.Generator
) -> Floats:
    """Values with mean 0 that follow each other so [runs, looks, values]; skewed ones are of a gamma distribution."""
    runs, looks, values = shape
    before = 0 if not correlation else math.ceil(3 / (1 - correlation))
    # The sum of skewed innovations is less skewed than they are.
    own = skewness * (1 - correlation**3) / (1 - correlation**2) ** 1.5
    size = (runs, looks + before, values)
    if own:
        k = 4 / own**2
        drawn = math.copysign(1.0, own) * (generator.standard_gamma(k, size) - k) / math.sqrt(k)
    else:
        drawn = generator.standard_normal(size)
    for place in range(1, looks + before if correlation else 1):
        drawn[:, place] = correlation * drawn[:, place - 1] + math.sqrt(1 - correlation**2) * drawn[:, place]
    simulated: Floats = drawn[:, before:]
    return simulated


def _greatest_evidence(values: Floats, recent: int) -> Floats:
    """The greatest log evidence [2, runs] at any look: since any look, and of the newest looks alone."""
    runs, looks, _ = values.shape
    sums = (np.full(values.shape[:2], float(values.shape[2])), values.sum(axis=2), (values**2).sum(axis=2))
    totals = [np.cumsum(total, axis=1) for total in sums]
    greatest = np.full((2, runs), -np.inf)
    for look in range(looks):
        begun = [total[:, [look]] - np.hstack([np.zeros((runs, 1)), total[:, :look]]) for total in totals]
        evidence = of_any_size(Student(_EFFECT, *begun))
        risen = np.logaddexp.reduce(evidence, axis=1) - math.log(looks)
        newest = np.logaddexp.reduce(evidence[:, -recent:], axis=1) - math.log(recent)
        greatest = np.maximum(greatest, np.stack([risen, newest]))
    return greatest
