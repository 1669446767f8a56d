"""Where a candidate is worse than the champion: values and ranges of features, all tested together.

Each segment of at least `_LEAST` rows gets a lower limit of its difference of losses that holds for all at once
(Bonferroni), over blocks of rows that depend on each other. Where events are rare, scores are compared instead: two
models of the same rows are closer to each other than to a constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from cumulant.release.paired.paired_records import PairedEvaluation, SegmentDifference
from cumulant.statistics.sequential.arrays import Floats

#: rows of a segment, at least, and blocks in which it has some
_LEAST, _BLOCKS = 100, 5
#: how often any segment at all may be called worse where none is
_ALPHA = 0.01
#: segments that are kept
_KEPT = 5
#: how much more than the champion's own loss in a segment the candidate may lose there
_WORSE = 0.25
#: how far scores of a segment lie from the champion's, against a constant's and against all rows' distance
_UNLIKE, _FURTHER = 0.75, 1.25
#: the same of all rows, above which no segment is tested
_ALL = 0.5
#: part of the rows whose scores are the highest, rows of it that score alike, and how many a segment has at least
_HIGHEST, _ALIKE, _FEW = 0.01, 40, 8


def worst_segments(
    champion: Floats, candidate: Floats, block: npt.NDArray[np.int64], features: Mapping[str, npt.NDArray[np.str_]]
) -> tuple[SegmentDifference, ...]:
    """Those with the highest lower limits; of losses [n] of rows in `block` [n], and the `features`' values [n]."""
    chosen = list(_segments(block, features))
    differences = [
        SegmentDifference(
            feature=feature,
            value=value,
            rows=len(rows),
            champion_loss=float(champion[rows].mean()),
            candidate_loss=float(candidate[rows].mean()),
            low=_low((candidate - champion)[rows], block[rows], _ALPHA / len(chosen)),
        )
        for feature, value, rows in chosen
    ]
    return tuple(sorted(differences, key=lambda difference: -difference.low)[:_KEPT])


def broken_segment(evaluation: PairedEvaluation, *, margin: float) -> SegmentDifference | None:
    """The worst segment in which the candidate is shown to lose more than the margin and more than can be accepted."""
    for segment in evaluation.segments:
        if segment.low > max(margin, _WORSE * segment.champion_loss):
            return segment
    return None


def unlike_segment(
    champion: Floats, candidate: Floats, block: npt.NDArray[np.int64], features: Mapping[str, npt.NDArray[np.str_]]
) -> SegmentDifference | None:
    """Of segments in which the scores [n] are no closer to the champion's than a constant would be, the worst one.

    None where that holds of all rows, and where the scores lie no further apart than elsewhere.
    """
    apart = (candidate - champion) ** 2
    usual = float(apart.mean())
    if usual > _ALL * float(champion.var()):
        return None
    chosen, differences = list(_segments(block, features)), []
    ranks = _ranks(champion, candidate)
    for feature, value, rows in chosen:
        constant = (champion[rows] - champion[rows].mean()) ** 2
        if apart[rows].mean() < _FURTHER * usual or apart[rows].mean() < _UNLIKE * constant.mean():
            continue
        alpha = _ALPHA / len(chosen)
        low = _low(apart[rows] - _UNLIKE * constant, block[rows], alpha)
        high = rows[np.isfinite(ranks[rows])]
        if low > 0 or (
            _as_by_a_constant(champion, candidate, rows, high) and _further(ranks[high], block[high], alpha)
        ):
            difference = SegmentDifference(
                feature=feature,
                value=value,
                rows=len(rows),
                champion_loss=float(constant.mean()),
                candidate_loss=float(apart[rows].mean()),
                low=low,
            )
            differences.append(difference)
    return max(
        differences,
        key=lambda difference: difference.candidate_loss / max(difference.champion_loss, 1e-300),
        default=None,
    )


def _ranks(champion: Floats, candidate: Floats) -> Floats:
    """The rank, 0 to 1, of each row's distance [n] among rows with a score as high; NaN below the highest scores."""
    from scipy.stats import rankdata

    apart = np.abs(candidate - champion)
    sums, counts = np.zeros(len(apart)), np.zeros(len(apart))
    for scores in (champion, candidate):
        highest = np.argsort(-scores, kind="stable")[: round(_HIGHEST * len(scores))]
        for rows in np.array_split(highest, max(1, len(highest) // _ALIKE)):
            sums[rows] += (rankdata(apart[rows]) - 0.5) / max(len(rows), 1)
            counts[rows] += 1
    ranks: Floats = np.divide(sums, counts, out=np.full(len(apart), np.nan), where=counts > 0)
    return ranks


def _as_by_a_constant(
    champion: Floats, candidate: Floats, rows: npt.NDArray[np.int64], high: npt.NDArray[np.int64]
) -> bool:
    """Whether the scores of a segment's `high` rows lie as far apart as either model's from its mean in the segment."""
    farthest = np.maximum(*(scores[high] - scores[rows].mean() for scores in (champion, candidate)))
    return bool(((candidate - champion)[high] ** 2).sum() >= _UNLIKE * (farthest**2).sum())


def _further(ranks: Floats, block: npt.NDArray[np.int64], alpha: float) -> bool:
    """Whether `ranks` [n] are above 1/2 beyond chance; rows of a block may depend on each other."""
    from scipy.stats import norm

    above = ranks - 0.5
    if len(above) < _FEW:
        return False
    _, codes = np.unique(block, return_inverse=True)
    together = float((np.bincount(codes, weights=above - above.mean()) ** 2).sum())
    error = np.sqrt(max(together, len(above) / 12))
    return bool(above.sum() > norm.isf(alpha) * error)


def _segments(
    block: npt.NDArray[np.int64], features: Mapping[str, npt.NDArray[np.str_]]
) -> Iterator[tuple[str, str, npt.NDArray[np.int64]]]:
    for feature, values in features.items():
        names, codes = np.unique(values, return_inverse=True)
        if len(names) < 2:
            continue
        order = np.argsort(codes, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(codes))[:-1])
        for name, rows in zip(names, parts, strict=True):
            if len(rows) >= _LEAST and len(np.unique(block[rows])) >= _BLOCKS:
                yield feature, str(name), rows


def _low(values: Floats, block: npt.NDArray[np.int64], alpha: float) -> float:
    """Lower limit of the mean of `values` [n], whose rows depend on each other within a block."""
    from scipy import stats

    _, codes = np.unique(block, return_inverse=True)
    blocks, mean = int(codes.max()) + 1, float(values.mean())
    residual = np.bincount(codes, weights=values - mean)
    error = float(np.sqrt((residual**2).sum() * blocks / (blocks - 1))) / len(values)
    return mean - float(stats.t.ppf(1 - alpha, blocks - 1)) * error
