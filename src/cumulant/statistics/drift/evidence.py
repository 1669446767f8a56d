"""Could the difference be chance: two-sample tests on counts, whose rows may depend on each other within blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cumulant.statistics.rows import Floats


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """`p`: the chance of a difference like this or larger without change. `design`: by how much dependence widens the
    statistic (1: rows are independent). `blocks`: of the reference, that this was learned from; 1: it was assumed.
    """

    statistic: float
    p: float
    design: float = 1.0
    blocks: int = 1


def two_samples(reference: Floats, current: Floats) -> Evidence:
    """Pearson's two-sample statistic of counts [blocks, cells] each; both samples' error counts.

    Rows of a block may depend on each other in any way; blocks are independent, and the current ones vary like those
    of the reference. The statistic is a weighted sum of chi-squares, whose weights are the eigenvalues of the
    covariance of the shares between blocks over the multinomial one; it is referred to F by the first two moments
    (Rao and Scott 1981, 1984; Thomas and Rao 1987). The p-value is the larger of that and the one for independent
    rows, so that blocks that happened to be calm promise nothing.
    """
    from scipy import special

    left, right = reference.sum(axis=0), current.sum(axis=0)
    n, m = float(left.sum()), float(right.sum())
    pooled = (left + right) / max(n + m, 1.0)
    held = pooled > 0
    kinds = int(held.sum())
    blocks = int((reference.sum(axis=1) > 0).sum())
    if n == 0 or m == 0 or kinds < 2:
        return Evidence(statistic=0.0, p=1.0, blocks=blocks)
    scale = n * m / (n + m)
    gap = right[held] / m - left[held] / n
    statistic = float(scale * (gap**2 / pooled[held]).sum())
    alone = float(special.chdtrc(kinds - 1, statistic))
    if blocks < 2:
        return Evidence(statistic=statistic, p=alone)
    first, second = _moments(reference[:, held], current[:, held], pooled[held], scale)
    if first <= 0:
        return Evidence(statistic=statistic, p=alone, blocks=blocks)
    freedom = first**2 / second
    within = float(special.fdtrc(freedom, freedom * (blocks - 1), statistic / first))
    return Evidence(statistic=statistic, p=max(alone, within), design=max(first / (kinds - 1), 1.0), blocks=blocks)


def _moments(reference: Floats, current: Floats, pooled: Floats, scale: float) -> tuple[float, float]:
    """The sum of the eigenvalues and of their squares, from what the reference's blocks show."""
    sizes = reference.sum(axis=1)
    rows = reference[sizes > 0]
    sizes = sizes[sizes > 0]
    n, blocks = float(sizes.sum()), len(sizes)
    around = rows - np.outer(sizes, rows.sum(axis=0) / n)
    # The variance of the reference's shares as that of a ratio of block totals, in units of the multinomial one.
    residuals = around / n / np.sqrt(pooled)
    spread = blocks / (blocks - 1) * (residuals @ residuals.T)  # the same non-zero eigenvalues as cells x cells
    few = current.sum(axis=1)
    ours, theirs = n**2 / float((sizes**2).sum()), float(few.sum()) ** 2 / float((few**2).sum())
    factor = scale * (1 + ours / theirs)
    return factor * float(np.trace(spread)), factor**2 * float((spread**2).sum())


def increase(before: float, rows_before: float, now: float, rows_now: float, *, design: float = 1.0) -> float:
    """The chance of `now` of `rows_now` or more, given `before` of `rows_before` and no change: Fisher's exact test.

    Counts are taken over `design`, as if there were so many fewer rows (Rao and Scott 1992).
    """
    from scipy.stats import hypergeom

    ours, all_ours, theirs, all_theirs = (round(one / design) for one in (before, rows_before, now, rows_now))
    if theirs == 0 or all_theirs == 0:
        return 1.0
    return float(hypergeom.sf(theirs - 1, all_ours + all_theirs, ours + theirs, all_theirs))
