"""Two-sample tests on counts, whose rows may depend on each other within blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cumulant.statistics.distances import jensen_shannon
from cumulant.statistics.rows import Floats

_Cumulants = tuple[float, float, float]
#: of the error that chance makes: runs that vary more by this show that blocks depend on those before them
_DOUBT = 0.5


@dataclass(frozen=True, kw_only=True)
class DriftEvidence:
    """The result of a two-sample test.

    `p`: the chance of a difference like this or larger without change. `design`: by how much dependence widens the
    statistic (1: rows are independent). `blocks`: the reference blocks from which it was estimated; 1: it was assumed.
    """

    statistic: float
    p: float
    design: float = 1.0
    blocks: int = 1


def two_samples(reference: Floats, current: Floats, *, leverage: float = 1.0) -> DriftEvidence:
    """Pearson's two-sample statistic of counts [blocks, cells] each; both samples' error counts.

    Rows of a block may depend on each other in any way, and blocks on those shortly before them; the current blocks
    follow each other and vary like those of the reference, which are in order of time. The statistic is a weighted sum
    of chi-squares, whose weights are the eigenvalues of the covariance of the shares between blocks over the
    multinomial one (Rao and Scott 1981). It is referred to a chi-square by its first three cumulants (Buckley and
    Eagleson 1988), and that to F, since the weights are themselves estimated from some blocks (Thomas and Rao 1987).

    What is referred to F is the Jensen-Shannon distance, equal to Pearson's statistic to second order and less
    sensitive to extreme days (Osterreicher and Vajda 2003). The p-value is the larger of that and Pearson's for
    independent rows.

    `leverage`: the variance of the reference's level over that of the mean of its blocks.
    """
    from scipy import special

    before, after = reference.sum(axis=0), current.sum(axis=0)
    n, m = float(before.sum()), float(after.sum())
    pooled = (before + after) / max(n + m, 1.0)
    nonempty = pooled > 0
    kinds = int(nonempty.sum())
    blocks = int((reference.sum(axis=1) > 0).sum())
    if n == 0 or m == 0 or kinds < 2:
        return DriftEvidence(statistic=0.0, p=1.0, blocks=blocks)
    scale = n * m / (n + m)
    gap = after[nonempty] / m - before[nonempty] / n
    statistic = float(scale * (gap**2 / pooled[nonempty]).sum())
    alone = float(special.chdtrc(kinds - 1, statistic))
    if blocks < 2:
        return DriftEvidence(statistic=statistic, p=alone)
    (mean, variance, third), known = _null_cumulants(
        reference[:, nonempty], current[:, nonempty], pooled[nonempty], scale, leverage
    )
    if mean <= 0:
        return DriftEvidence(statistic=statistic, p=alone, blocks=blocks)
    apart = scale * 8 * math.log(2) * jensen_shannon(before, after) ** 2
    freedom = 8 * variance**3 / third**2
    like = freedom + (apart - mean) / variance**0.5 * (2 * freedom) ** 0.5
    within = float(special.fdtrc(freedom, known, like / freedom)) if like > 0 else 1.0
    return DriftEvidence(statistic=statistic, p=max(alone, within), design=max(mean / (kinds - 1), 1.0), blocks=blocks)


def _null_cumulants(
    reference: Floats, current: Floats, pooled: Floats, scale: float, leverage: float
) -> tuple[_Cumulants, float]:
    """The statistic's cumulants without change, and the degrees of freedom with which they were learned."""
    blocks = int((reference.sum(axis=1) > 0).sum())
    independent = mean, variance, _ = _cumulants(reference, current, pooled, scale, leverage=leverage)
    if mean <= 0:
        return independent, 1.0
    directions = 2 * mean**2 / variance
    span = min(int((current.sum(axis=1) > 0).sum()), blocks // 2)
    if span > 1:
        shares = 1 - np.arange(1, span) / span
        chance = 2 * math.sqrt(float((shares**2).sum()) / (blocks * directions))
        following = _cumulants(reference, current, pooled, scale, span=span, leverage=leverage)
        if following[0] / mean - 1 > _DOUBT * chance:
            # Bartlett's window at frequency 0 has so many degrees of freedom a block (Priestley 1981, 6.2).
            free = 3 * span / (2 * span**2 + 1)
            return following, 2 * following[0] ** 2 / following[1] * (blocks * free - 1)
    return independent, directions * (blocks - 1)


def _cumulants(
    reference: Floats, current: Floats, pooled: Floats, scale: float, *, span: int = 1, leverage: float = 1.0
) -> _Cumulants:
    """Mean, variance and third cumulant of the statistic without change, from what the reference's blocks show.

    A mean of `span` blocks that follow each other varies as moving runs of as many do (Kunsch 1989), which is the sum
    of the autocovariances with Bartlett's weights (Newey and West 1987).
    """
    sizes = reference.sum(axis=1)
    rows = reference[sizes > 0]
    sizes = sizes[sizes > 0]
    n, blocks = float(sizes.sum()), len(sizes)
    around = (rows - np.outer(sizes, rows.sum(axis=0) / n)) / np.sqrt(pooled)
    runs = _moving_sums(around, span)
    # The variance of the reference's shares as that of a ratio of block totals, in units of the multinomial one. The
    # mean that was taken off is itself of these blocks: that makes runs look calmer by a part that is known.
    calm = span / blocks - (span**2 - 1) / (3 * blocks**2)
    side = runs.T if runs.shape[0] > runs.shape[1] else runs  # the same non-zero eigenvalues either way
    spread = side @ side.T / (span * (1 - calm) * n**2)
    few = current.sum(axis=1)
    ours, theirs = n**2 / float((sizes**2).sum()), float(few.sum()) ** 2 / float((few**2).sum())
    mean = scale * (leverage + ours / theirs) * float(np.trace(spread))
    if mean <= 0:
        return 0.0, 0.0, 0.0
    spread /= float(np.trace(spread))
    squares = spread @ spread
    variance, third = 2 * float(np.trace(squares)), 8 * float((squares * spread).sum())
    lengths = ((around / sizes[:, None]) ** 2).sum(axis=1)
    strayed = lengths / lengths.mean() - 1
    variance += max(float((strayed**2).mean()) - variance, 0.0) / theirs
    third += max(float((strayed**3).mean()) - third, 0.0) / theirs**2
    return mean, mean**2 * variance, mean**3 * third


def _moving_sums(blocks: Floats, span: int) -> Floats:
    """Sums of `span` blocks that follow each other [blocks + span - 1, cells], those cut off at either end too."""
    if span == 1:
        return blocks
    total = np.concatenate([np.zeros((1, blocks.shape[1])), np.cumsum(blocks, axis=0)])
    ends = np.arange(1, len(blocks) + span)
    sums: Floats = total[np.minimum(ends, len(blocks))] - total[np.maximum(ends - span, 0)]
    return sums


def increase(before: float, rows_before: float, now: float, rows_now: float, *, design: float = 1.0) -> float:
    """The chance of `now` of `rows_now` or more, given `before` of `rows_before` and no change: Fisher's exact test.

    Counts are taken over `design`, as if there were so many fewer rows (Rao and Scott 1992).
    """
    from scipy.stats import hypergeom

    ours, all_ours, theirs, all_theirs = (round(count / design) for count in (before, rows_before, now, rows_now))
    if theirs == 0 or all_theirs == 0:
        return 1.0
    return float(hypergeom.sf(theirs - 1, all_ours + all_theirs, ours + theirs, all_theirs))
