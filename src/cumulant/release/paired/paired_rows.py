"""The paired evaluation of two versions, worked out of their scores and losses on the same labelled rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from cumulant.core.units import from_micros
from cumulant.release.paired.paired_records import DayDifference, PairedEvaluation
from cumulant.release.paired.segments import unlike_segment, worst_segments
from cumulant.statistics.sequential.arrays import Floats

_DAY = 86_400_000_000
#: blocks of rows that have no time
_BLOCKS = 40
#: one-sided level of the upper limits
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class PairedRows:
    """Labelled rows that both versions scored.

    Attributes:
        champion, candidate: [n] scores: of the positive class, or the predicted number. NaN: no answer.
        champion_loss, candidate_loss: [n]; NaN: no answer.
        baseline_loss: mean loss of the best constant answer.
        loss: its name.
        usual_loss: the champion's in the evaluation of its own training, if known.
        differs: [n] whether decisions differ; None where answers are numbers.
        at: [n] microseconds since 1970 UTC; None where rows have no time.
        segments: feature -> [n] the value (or range) of it that a row has.
        seen_by: arms that may have learned from these rows.
    """

    champion: Floats
    candidate: Floats
    champion_loss: Floats
    candidate_loss: Floats
    baseline_loss: float
    loss: str
    usual_loss: float | None = None
    differs: npt.NDArray[np.bool_] | None = None
    at: npt.NDArray[np.int64] | None = None
    segments: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)
    seen_by: tuple[str, ...] = ()


def paired_evaluation(rows: PairedRows) -> PairedEvaluation | None:
    """What the rows show; None where the champion answered none of them, or the candidate none."""
    answered = np.isfinite(rows.champion) & np.isfinite(rows.champion_loss)
    both = answered & np.isfinite(rows.candidate) & np.isfinite(rows.candidate_loss)
    if both.sum() < 2:
        return None
    block = _blocks(rows, both)
    loss = (rows.candidate_loss - rows.champion_loss)[both]
    apart = (rows.candidate - rows.champion)[both]
    at = None if rows.at is None else rows.at[both]
    disagreement = None if rows.differs is None else rows.differs[both].astype(np.float64)
    segments = {name: values[both] for name, values in rows.segments.items()}
    shift_low, shift_high = _limit(-apart, block), _limit(apart, block)
    return PairedEvaluation(
        rows=int(answered.sum()),
        failed=int((answered & ~both).sum()),
        first=None if at is None else from_micros(int(at.min())),
        last=None if at is None else from_micros(int(at.max())),
        loss=rows.loss,
        days=_days(loss, block, at),
        champion_loss=float(rows.champion_loss[both].mean()),
        candidate_loss=float(rows.candidate_loss[both].mean()),
        baseline_loss=rows.baseline_loss,
        usual_loss=rows.usual_loss,
        deviation=float(loss.std(ddof=1)),
        skewness=_skewness(loss),
        disagreement=None if disagreement is None else float(disagreement.mean()),
        disagreement_high=None if disagreement is None else min(1.0, _limit(disagreement, block, share=True)),
        champion_score=float(rows.champion[both].mean()),
        candidate_score=float(rows.candidate[both].mean()),
        shift=float(apart.mean()),
        shift_high=max(abs(shift_low), abs(shift_high)),
        distance=float(np.abs(apart).mean()),
        distance_high=_limit(np.abs(apart), block),
        segments=worst_segments(rows.champion_loss[both], rows.candidate_loss[both], block, segments),
        unlike=unlike_segment(rows.champion[both], rows.candidate[both], block, segments),
        seen_by=rows.seen_by,
    )


def _blocks(rows: PairedRows, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The block [n] of each row, from 0, in order of time: its day, or its place among rows without a time."""
    count = int(chosen.sum())
    place = np.arange(count) * min(_BLOCKS, count) // count if rows.at is None else rows.at[chosen] // _DAY
    _, block = np.unique(place, return_inverse=True)
    return np.asarray(block, dtype=np.int64)


def _days(loss: Floats, block: npt.NDArray[np.int64], at: npt.NDArray[np.int64] | None) -> tuple[DayDifference, ...]:
    counts = np.bincount(block)
    means = np.bincount(block, weights=loss) / counts
    starts: list[datetime | None] = [None] * len(counts)
    if at is not None:
        starts = [datetime.fromtimestamp(int(day) * 86_400, UTC) for day in np.unique(at // _DAY)]
    return tuple(
        DayDifference(rows=int(count), difference=float(mean), start=start)
        for count, mean, start in zip(counts, means, starts, strict=True)
    )


def _skewness(values: Floats) -> float:
    deviation = float(values.std())
    return float(((values - values.mean()) ** 3).mean() / deviation**3) if deviation > 0 else 0.0


def _limit(values: Floats, block: npt.NDArray[np.int64], *, share: bool = False) -> float:
    """Upper limit of the mean of one more block; of a `share`, at least the exact limit over all rows."""
    from scipy import stats

    counts = np.bincount(block).astype(np.float64)
    mean, blocks = float(values.mean()), len(counts)
    limit = mean
    if blocks > 1:
        means = np.bincount(block, weights=values) / counts
        spread = math.sqrt(float(counts @ (means - mean) ** 2) / float(counts.sum()) * blocks / (blocks - 1))
        limit = mean + float(stats.t.ppf(_LEVEL, blocks - 1)) * spread * math.sqrt(1 + 1 / blocks)
    if share:
        hits = round(float(values.sum()))
        exact = 1.0 if hits >= len(values) else float(stats.beta.ppf(_LEVEL, hits + 1, len(values) - hits))
        return max(limit, exact)
    return limit
