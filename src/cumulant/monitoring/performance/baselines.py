"""What a loss monitor begins with: what counts as harm, and the reference with which windows are compared."""

from __future__ import annotations

import math
from datetime import timedelta

import msgspec
import numpy as np

from cumulant.core.errors import DataError
from cumulant.monitoring.performance.blocks import Loss, base_loss, block_codes, loss_of, means_by
from cumulant.monitoring.performance.kinds import Question
from cumulant.monitoring.performance.recalibration import (
    CalibrationSums,
    Task,
    apply_calibration,
    combine_sums,
    learn_calibration,
    sum_window,
)
from cumulant.monitoring.performance.rows import PredictionRows, check_task, class_shares, windows
from cumulant.monitoring.policy import PerformancePolicy
from cumulant.statistics.rows import Floats
from cumulant.statistics.sequential.dependence import FEWEST, Dependence
from cumulant.statistics.sequential.dependence import estimate_dependence as dependence

QUESTIONS: tuple[Question, ...] = ("refit", "calibration", "skill")


class HarmPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as harm.

    Args:
        loss: of one row. `brier` for probabilities, `squared_error` for numbers.
        margin: part of the reference's loss that may be lost without harm.
        horizon: windows of a count, which then begins anew.
        recent: windows of the present, at most `horizon`.
        block: least rows of a block, made of whole clusters.
        refit: whether a refit's scores will be there.
        calibration: whether scores are recalibrated, which is for two classes and for numbers.
        independent: windows are taken as independent and near normal, whatever the reference shows.
        reference_calibration: the reference's own miscalibration is no harm.
    """

    loss: Loss = "brier"
    margin: float = 0.05
    horizon: int = 30
    recent: int = 5
    block: int = 50
    refit: bool = True
    calibration: bool = True
    independent: bool = False
    reference_calibration: bool = True

    def __post_init__(self) -> None:
        if self.margin < 0 or min(self.horizon, self.recent, self.block) < 1:
            raise DataError("harm needs a margin of 0 or more, and whole numbers of windows and rows", subject="harm")
        if self.recent > self.horizon:
            raise DataError(
                f"harm is of the {self.recent} most recent windows, but only {self.horizon} are kept",
                subject="harm",
                hint="let recent be at most horizon",
            )

    @property
    def questions(self) -> tuple[Question, ...]:
        left_out = {"refit"} if not self.refit else set()
        left_out |= {"calibration"} if not self.calibration else set()
        return tuple(question for question in QUESTIONS if question not in left_out)


def harm_policy(
    policy: PerformancePolicy, *, loss: Loss, horizon: int, recent: int, refit: bool, calibration: bool
) -> HarmPolicy:
    """The policy that a project declares, for a model and windows of its kind."""
    return HarmPolicy(
        loss=loss,
        margin=policy.margin,
        horizon=horizon,
        recent=recent,
        refit=refit,
        calibration=calibration,
        independent=policy.independent,
        reference_calibration=policy.reference_calibration,
    )


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The reference: labelled rows of a time when the model was good.

    loss, base: mean loss of the model, and of each window's own constant. ratio: the first over the second (1 less the
    skill), with its standard error. rate: mean of the truth; of several classes the share of the most frequent.
    miscalibration: loss that recalibration of the reference would save. shapes: dependence and skewness of its windows'
    excess losses, by question; empty: unknown.
    """

    task: Task
    loss: float
    base: float
    ratio: float
    ratio_error: float
    rate: float
    rows: int
    past: CalibrationSums
    miscalibration: float = 0.0
    shapes: dict[Question, Dependence] = {}

    @property
    def skill(self) -> float:
        """The part of the constant's loss that the model saved."""
        return 1 - self.ratio


def learn_baseline(reference: PredictionRows, *, task: Task, policy: HarmPolicy, every: timedelta) -> Baseline:
    """The reference in windows of the length of later ones; rows without a label are left out.

    Raises:
        DataError: fewer than two blocks have labels, a constant would never be wrong, the scores are not those of the
            task, or calibration of several classes is required.
    """
    check_task(reference, task)
    if task == "multiclass" and policy.calibration:
        raise DataError(
            "calibration of several classes is not tested",
            subject="harm",
            hint="HarmPolicy(calibration=False, ...)",
        )
    classes = reference.score.shape[1] if reference.several else None
    losses, bases, rates = [], [], []
    known = reference.where(reference.labelled)
    for _, part in windows(known, every):
        means = means_by(block_codes(part, policy.block), part.weight)
        losses.append(means(loss_of(policy.loss, part.truth, part.score)))
        bases.append(means(base_loss(policy.loss, part.truth, part.weight, classes)))
        rates.append(means(part.truth))
    loss, base, rate = (np.concatenate(values) if values else np.zeros(0) for values in (losses, bases, rates))
    if len(loss) < 2 or not base.mean() > 0:
        raise DataError(
            f"a reference of {len(known)} labelled predictions has no skill to be held to",
            subject="reference",
            hint=f"give at least {2 * policy.block} rows with labels of both kinds",
        )
    ratio = float(loss.mean() / base.mean())
    rest = loss - ratio * base
    here = sum_window(task, known.truth, known.score, known.weight, rate)
    return Baseline(
        task=task,
        loss=float(loss.mean()),
        base=float(base.mean()),
        ratio=ratio,
        ratio_error=float(rest.std(ddof=1) / math.sqrt(len(rest)) / base.mean()),
        rate=float(class_shares(known).max() if known.several else np.average(known.truth, weights=known.weight)),
        rows=len(known),
        past=here,
        miscalibration=_miscalibration(known, here, task, policy),
        shapes={} if policy.independent else _shapes(known, every, task, policy, ratio),
    )


def _miscalibration(known: PredictionRows, history: CalibrationSums, task: Task, policy: HarmPolicy) -> float:
    """What of the loss a calibration of these very rows saves."""
    if not policy.calibration:
        return 0.0
    anew = apply_calibration(task, learn_calibration(task, history), known.score)
    saved = loss_of(policy.loss, known.truth, known.score) - loss_of(policy.loss, known.truth, anew)
    return float(np.average(saved, weights=known.weight))


def _shapes(
    known: PredictionRows, every: timedelta, task: Task, policy: HarmPolicy, ratio: float
) -> dict[Question, Dependence]:
    """From the reference's windows, watched as later ones will be. A refit follows the world as a calibration does."""
    classes = known.score.shape[1] if known.several else None
    skill: list[Floats] = []
    calibration: list[Floats] = []
    pasts: list[CalibrationSums] = []
    for _, part in windows(known, every):
        means = means_by(block_codes(part, policy.block), part.weight)
        lost = means(loss_of(policy.loss, part.truth, part.score))
        skill.append(lost - ratio * means(base_loss(policy.loss, part.truth, part.weight, classes)))
        if policy.calibration:
            if len(pasts) == policy.recent:
                anew = apply_calibration(task, learn_calibration(task, combine_sums(pasts)), part.score)
                calibration.append(lost - means(loss_of(policy.loss, part.truth, anew)))
            pasts = [*pasts, sum_window(task, part.truth, part.score, part.weight, means(part.truth))][-policy.recent :]
    of_skill = dependence(skill)
    of_change = dependence(calibration) if len(calibration) >= FEWEST else of_skill
    shapes: dict[Question, Dependence] = {"skill": of_skill, "calibration": of_change, "refit": of_change}
    return {question: shapes[question] for question in policy.questions}
