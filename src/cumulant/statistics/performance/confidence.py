"""A classifier's metrics without labels, from calibrated probabilities (confidence-based estimation, CBPE).

Bialek, Kuberski, Perrakis and Bifet 2024, arXiv:2401.08348, section 3. Holds while P(truth | score) is unchanged;
`assumptions` has the checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np

from cumulant.statistics.performance.calibration import Calibrator, summed
from cumulant.statistics.records import LEVEL
from cumulant.statistics.rows import Codes, Flags, Floats
from cumulant.statistics.sums import CLIP

FIGURES = (
    "accuracy",
    "precision",
    "recall",
    "f1",
    "specificity",
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
)
#: an interval is drawn from at most this many groups of neighbouring scores
_GROUPS = 400


def expected(
    probability: Floats, score: Floats, decision: Flags, *, ties: Literal["together", "apart"] = "together"
) -> dict[str, float]:
    """Each of FIGURES that labels would be expected to show.

    Args:
        probability: [n] calibrated, of being positive.
        score: [n] as the model gave it: what rows are ranked by, and what log loss and Brier score judge.
        decision: [n] whether the model decides for the positive class.
        ties: average precision of equal scores that enter `together`, as `average_precision` measures it, or one
            by one (`apart`), as NannyML does. Without equal scores both are the same.

    Returns:
        NaN where a figure is not defined, such as a precision without a row decided yes.
    """
    level = np.unique(score, return_inverse=True)[1]
    groups, place = _groups(level.astype(np.int64), decision)
    positive = summed(place, probability)
    rows = np.bincount(place).astype(np.float64)
    mean_scores = np.zeros(len(rows))
    mean_scores[place] = score
    figures = _figures(positive[None], rows, mean_scores, groups)
    if ties == "apart":
        figures["average_precision"] = np.array([_precision_apart(probability, score)])
    return {name: float(figures[name][0]) for name in FIGURES}


def expected_intervals(
    calibrator: Calibrator,
    maps: Sequence[Calibrator],
    score: Floats,
    decision: Flags,
    *,
    middle: Mapping[str, float] | None = None,
    level: float = LEVEL,
    spread: float = 1.0,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Where each of FIGURES is found, with probability `level`, when the labels of these rows come.

    Uncertain are the calibration map (`maps`, from `calibrator.drawn`) and which rows turn out positive; `spread`
    widens the interval where the reference showed that rows depend on each other. `middle`: `expected` of these rows,
    where it is known already.

    Raises:
        ValueError: `spread` is below 1.
    """
    if not spread >= 1:
        raise ValueError(f"an interval is widened by a factor of 1 or more, not {spread}")
    generator = np.random.default_rng(seed)
    rows, mean_scores, groups = _group_scores(score, decision)
    probability = np.stack([calibration(mean_scores) for calibration in maps])
    positive = generator.binomial(rows.astype(np.int64), np.clip(probability, 0, 1)).astype(np.float64)
    figures = _figures(positive, rows, mean_scores, groups)
    middle = expected(calibrator(score), score, decision) if middle is None else middle
    ends = {}
    for name in FIGURES:
        values = figures[name][np.isfinite(figures[name])]
        if len(values) < 0.8 * len(maps) or not np.isfinite(middle[name]):
            ends[name] = (float("nan"), float("nan"))
            continue
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        centre = float(np.median(values))
        ends[name] = (middle[name] - spread * (centre - float(low)), middle[name] + spread * (float(high) - centre))
    return {name: _clip_interval(name, *pair) for name, pair in ends.items()}


def _clip_interval(name: str, low: float, high: float) -> tuple[float, float]:
    top = float("inf") if name == "log_loss" else 1.0
    return (max(low, 0.0), min(high, top)) if np.isfinite(low) else (low, high)


def _groups(level: Codes, decision: Flags) -> tuple[tuple[Codes, Flags], Codes]:
    """The level and decision of each group of rows that share both, and the group of each row."""
    pair, place = np.unique(level * 2 + decision, return_inverse=True)
    return (pair // 2, (pair % 2).astype(bool)), place.astype(np.int64)


def _group_scores(score: Floats, decision: Flags) -> tuple[Floats, Floats, tuple[Codes, Flags]]:
    points, place = np.unique(score, return_inverse=True)
    share = (np.cumsum(np.bincount(place)) - 1) / len(score)
    level = (share * _GROUPS).astype(np.int64)[place] if len(points) > _GROUPS else place.astype(np.int64)
    groups, code = _groups(level, decision)
    rows = np.bincount(code).astype(np.float64)
    return rows, summed(code, score) / rows, groups


def _figures(positive: Floats, rows: Floats, score: Floats, groups: tuple[Codes, Flags]) -> dict[str, Floats]:
    """FIGURES of `positive` [draws, groups] of `rows` [groups] with `score` [groups]; each [draws]."""
    level, yes = groups
    negative = rows - positive
    tp, fp = positive[:, yes].sum(1), negative[:, yes].sum(1)
    fn, tn = positive[:, ~yes].sum(1), negative[:, ~yes].sum(1)
    safe = np.clip(score, CLIP, 1 - CLIP)
    total = rows.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = {
            "accuracy": (tp + tn) / total,
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "specificity": tn / (tn + fp),
            "log_loss": -(positive @ np.log(safe) + negative @ np.log1p(-safe)) / total,
            "brier": (positive @ (1 - score) ** 2 + negative @ score**2) / total,
        }
        return figures | _ranking(_by_level(positive, level), _by_level(negative, level))


def _by_level(values: Floats, level: Codes) -> Floats:
    """[draws, groups] summed over the groups of a level, with the highest level first."""
    starts = np.flatnonzero(np.r_[True, level[1:] != level[:-1]])
    return cast("Floats", np.add.reduceat(values, starts, axis=1))[:, ::-1]


def _ranking(positive: Floats, negative: Floats) -> dict[str, Floats]:
    """ROC AUC and average precision of counts [draws, levels] by falling score; equal scores enter together."""
    true, false = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    pairs = true[:, -1] * false[:, -1]
    precision = np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)
    above = (positive * (false - negative / 2)).sum(1)
    return {
        "roc_auc": np.where(pairs > 0, 1 - above / pairs, np.nan),
        "average_precision": (positive * precision).sum(1) / true[:, -1],
    }


def _precision_apart(probability: Floats, score: Floats) -> float:
    ranked = probability[np.argsort(-score, kind="stable")]
    true = np.cumsum(ranked)
    return float((ranked * true / np.arange(1, len(ranked) + 1)).sum() / true[-1]) if true[-1] > 0 else float("nan")
