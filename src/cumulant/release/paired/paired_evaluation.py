"""What both versions of a release showed on the same labelled rows of the recent past, and what follows from it.

Both packaged versions score rows that are labelled already; their losses are compared in pairs, a day a block.

**Assumption.** The rows of the recent past are like those of the release. What changes with serving (a feature that is
stale online, a value that no row had) does not show in them: mirrored pairs show it, and the margins of `disagreement`
and `prediction` are therefore what the two versions differ by here, not what a project could accept at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.release.paired.paired_records import DayDifference, PairedEvaluation
from cumulant.statistics.sequential.arrays import Floats
from cumulant.statistics.sequential.symmetric import FEWEST_PAIRS, PairedBlocks

#: skewness of a block's mean up to which its evidence keeps its error rate
_SKEWNESS = 0.3
#: margins by default: what the versions differ by on the same rows, times this, plus a point of disagreement
_TIMES, _POINT = 1.5, 0.01
#: disagreement that no default allows: above it a project has to declare that a change is meant
DISAGREEMENT_CAP = 0.2
#: how often a candidate that is no worse than what is accepted may be refused, by any one rule
REFUSAL_ALPHA = 0.01
#: part of the champion's gain over the best constant answer that a candidate may lose, and of its loss, at most
_SKILL, _LOSS = 0.2, 0.02
#: lags of daily means that are summed, and what they may sum to
_LAGS, _BOUND = 7, 0.2
_DAY = 86_400.0
#: part of the margin by which days may differ of their own before a day is one block
_LOOKED_THROUGH = 0.25
#: blocks below which the evidence of days is not merged further
_FEWEST_BLOCKS = 6


def fewest_pairs(evaluation: PairedEvaluation) -> int:
    """Pairs in a block of `quality` so that its mean is hardly skewed: rare, large losses need many."""
    return max(FEWEST_PAIRS, math.ceil((evaluation.skewness / _SKEWNESS) ** 2))


def block_days(evaluation: PairedEvaluation) -> int:
    """Days in one block of `quality`: the least power of two at which neighbours hardly depend on each other.

    The criterion is the long-run variance (Newey and West 1987): the weighted sum of autocorrelations of blocks' means
    is at most a fifth of their variance, and what chance adds (one standard error) where blocks are few.
    """
    means = np.array([day.difference for day in evaluation.days])
    days = 1
    while len(means) // (days * 2) >= _FEWEST_BLOCKS and not _independent(_merged_means(means, days)):
        days *= 2
    return days


def block_seconds(evaluation: PairedEvaluation, *, margin: float) -> float | None:
    """How long pairs of `quality` depend on each other; 0: not at all. None: unknown.

    Days may be looked through where, at 95%, they differ by less than a quarter of the margin beyond what sampling of
    their rows adds (a limit of the variance by chi squared). Otherwise a block is as many days as depend on each other.
    """
    from scipy import stats

    days = len(evaluation.days)
    if days < 2 or any(day.start is None for day in evaluation.days):
        return None
    means = np.array([day.difference for day in evaluation.days])
    sampling = evaluation.deviation**2 * days / max(1, sum(day.rows for day in evaluation.days))
    highest = float(means.var(ddof=1)) * (days - 1) / float(stats.chi2.ppf(0.05, days - 1)) - sampling
    length = block_days(evaluation)
    if length == 1 and highest <= (_LOOKED_THROUGH * margin) ** 2:
        return 0.0
    return length * _DAY


def evidence(evaluation: PairedEvaluation, *, margin: float, edge: float = 0.0) -> PairedBlocks:
    """The paired test after the evaluation's blocks; blocks of too few rows are merged with their neighbours."""
    test = PairedBlocks.start(margin=margin, edge=edge)
    for difference, rows in _blocks(evaluation):
        test = test.add(difference, rows)
    return test


def log_harm(evaluation: PairedEvaluation, *, margin: float, edge: float = 0.0) -> float:
    """Log e-value against "the candidate's mean loss is at most the champion's plus `edge`".

    0 where the champion may have learned from the rows.
    """
    if CHAMPION in evaluation.seen_by:
        return 0.0
    return float(evidence(evaluation, margin=margin, edge=edge).log_harm())


def prior_evidence(evaluation: PairedEvaluation, *, margin: float, bar: float) -> float:
    """Log e-value that labelled rows of the past add to a release's own evidence of no harm, at most `bar` + log 2.

    The rows are looked at once, so that a test of fixed size does: Student's t of blocks' means, at half of the error
    rate that `bar` stands for. It is all or nothing: 1 over its level where it rejects, else 0 (as a logarithm, so
    that nothing is added). Both halves together keep the rate.
    """
    from scipy import stats

    if CANDIDATE in evaluation.seen_by:
        return 0.0
    blocks = list(_blocks(evaluation))
    if len(blocks) < _FEWEST_BLOCKS:
        return 0.0
    means, rows = (np.array(column, dtype=np.float64) for column in zip(*blocks, strict=True))
    mean, count = float(means @ rows / rows.sum()), len(blocks)
    error = math.sqrt(float((rows**2) @ (means - mean) ** 2) * count / (count - 1)) / float(rows.sum())
    level = math.exp(-bar) / 2
    shown = margin - mean > float(stats.t.isf(level, count - 1)) * error
    return -math.log(level) if shown else 0.0


def log_gain(evaluation: PairedEvaluation, *, edge: float) -> float:
    """Log e-value against "the candidate's mean loss is at least the champion's less `edge`"."""
    test = PairedBlocks.start(margin=edge, edge=edge)
    for difference, rows in _blocks(evaluation):
        test = test.add(-difference, rows)
    return float(test.log_harm())


def quality_margin(evaluation: PairedEvaluation, *, most: float) -> float:
    """The default margin of `quality` in the unit of the loss.

    A fifth of what the champion gains over the best constant answer, and at least a fiftieth of its loss: an absolute
    margin alone would be wider than all that a model of rare events knows. `most` binds losses of probabilities, whose
    unit is known; a squared error has the project's own unit.
    """
    gain = max(0.0, evaluation.baseline_loss - evaluation.champion_loss)
    margin = max(_SKILL * gain, _LOSS * evaluation.champion_loss)
    if evaluation.loss in ("brier", "zero_one"):
        return min(most, margin) or most
    return margin or most


def disagreement_margin(evaluation: PairedEvaluation, *, better: bool = False) -> float | None:
    """The default margin of `disagreement`; None where answers are numbers, which hold no decision.

    A candidate that is shown to be better may decide otherwise as often as that takes: a champion that fails is no
    measure.
    """
    if evaluation.disagreement_high is None:
        return None
    margin = _TIMES * evaluation.disagreement_high + _POINT
    return min(1.0 if better else DISAGREEMENT_CAP, margin)


def shown_better(evaluation: PairedEvaluation, *, margin: float) -> bool:
    """Whether rows that neither version learned from show the candidate to be better by more than the margin."""
    return not evaluation.seen_by and log_gain(evaluation, edge=margin) >= -math.log(REFUSAL_ALPHA)


def prediction_margin(evaluation: PairedEvaluation) -> float:
    """The default margin of `prediction`: how far mean scores may move apart, in the unit of the score.

    It cannot be below a hundredth of the scores' own distance to nothing: equal versions have some margin too.
    """
    floor = 0.01 * max(abs(evaluation.champion_score), 1e-9)
    return max(_TIMES * evaluation.shift_high, floor)


def distance_margin(evaluation: PairedEvaluation) -> float:
    """How far single scores may lie apart on average: what catches answers that are wrong in both directions."""
    floor = 0.01 * max(abs(evaluation.champion_score), 1e-9)
    return max(_TIMES * evaluation.distance_high, floor)


def _blocks(evaluation: PairedEvaluation) -> Iterator[tuple[float, int]]:
    """Mean difference and rows of each block of evidence, in order of time; the rest joins the last one."""
    fewest, days = fewest_pairs(evaluation), block_days(evaluation)
    blocks: list[list[DayDifference]] = []
    open_: list[DayDifference] = []
    for difference in evaluation.days:
        open_.append(difference)
        if len(open_) >= days and sum(day.rows for day in open_) >= fewest:
            blocks.append(open_)
            open_ = []
    if open_ and blocks:
        blocks[-1] = blocks[-1] + open_
    for block in blocks:
        yield _mean(block)


def _mean(block: Sequence[DayDifference]) -> tuple[float, int]:
    rows = sum(day.rows for day in block)
    return sum(day.difference * day.rows for day in block) / rows, rows


def _merged_means(means: Floats, days: int) -> Floats:
    whole = len(means) // days * days
    return np.asarray(means[:whole].reshape(-1, days).mean(axis=1), dtype=np.float64)


def _independent(means: Floats) -> bool:
    """Whether the weighted sum of autocorrelations of `means` [blocks] is small, but for chance."""
    centred = means - means.mean()
    whole = float(centred @ centred)
    lags = min(_LAGS, len(means) // 4)
    if whole <= 0 or not lags:
        return True
    weights = 1 - np.arange(1, lags + 1) / (lags + 1)
    rho = np.array([float(centred[lag:] @ centred[:-lag]) / whole for lag in range(1, lags + 1)])
    chance = 2 * math.sqrt(float(weights @ weights) / len(means))
    return 2 * float(weights @ rho) <= _BOUND + chance
