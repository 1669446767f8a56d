"""Where a candidate is worse than the champion: values and ranges of features, all looked at together.

A model that is broken for a twentieth of the rows hardly moves a mean over all of them. Each segment's difference of
losses gets a lower limit that holds for all segments at once (Bonferroni), over blocks of rows that depend on each
other. Segments are those of at least `_LEAST` rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
from scipy import stats

from cumulant.release.paired import PairedEvaluation, SegmentDifference
from cumulant.statistics.sequential.arrays import Floats

#: rows of a segment, at least, and blocks in which it has some
_LEAST, _BLOCKS = 100, 5
#: how often any segment at all may be called worse where none is
_ALPHA = 0.01
#: segments that are kept
_KEPT = 5
#: how much more than the champion's own loss in a segment the candidate may lose there
_WORSE = 0.25


def worst_segments(
    champion: Floats, candidate: Floats, block: npt.NDArray[np.int64], features: Mapping[str, npt.NDArray[np.str_]]
) -> tuple[SegmentDifference, ...]:
    """Those with the highest lower limits; of losses [n] of rows in `block` [n], and the `features`' values [n]."""
    chosen = list(_segments(block, features))
    found = [
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
    return tuple(sorted(found, key=lambda one: -one.low)[:_KEPT])


def broken_segment(evaluation: PairedEvaluation, *, margin: float) -> SegmentDifference | None:
    """The worst segment in which the candidate is shown to lose more than the margin and more than can be accepted."""
    for one in evaluation.segments:
        if one.low > max(margin, _WORSE * one.champion_loss):
            return one
    return None


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
    _, codes = np.unique(block, return_inverse=True)
    blocks, mean = int(codes.max()) + 1, float(values.mean())
    residual = np.bincount(codes, weights=values - mean)
    error = float(np.sqrt((residual**2).sum() * blocks / (blocks - 1))) / len(values)
    return mean - float(stats.t.ppf(1 - alpha, blocks - 1)) * error
