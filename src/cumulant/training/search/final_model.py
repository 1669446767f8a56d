"""From the best trials to one model: averaged boosters, calibration, threshold."""

from __future__ import annotations

import statistics as averages
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import numpy as np

from cumulant.core.servable import Calibration
from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation import calibration, threshold
from cumulant.training.model import FittedModel, ModelCard
from cumulant.training.payloads.encoding import Matrix
from cumulant.training.payloads.payload import Averaged, Blend, Payload
from cumulant.training.payloads.widened import widened
from cumulant.training.policy import TrainingPolicy
from cumulant.training.records import FittedBooster, TrialRecord
from cumulant.training.search import sampling
from cumulant.training.search.budget import SearchBudget
from cumulant.training.search.choices import BlendChoice, ModelChoice
from cumulant.training.search.cross_validation import CrossValidation
from cumulant.training.trainers.lightgbm_trainer import expected_seconds, member_seed
from cumulant.training.trainers.trainer import FitResult, Params, Searched, Trainer, TrainingSample


class Finisher:
    """Fits what was chosen on all training rows, in the time that is left."""

    def __init__(
        self,
        rows: TrainingSet,
        matrix: Matrix,
        folds: CrossValidation,
        *,
        spec: TrainingPolicy,
        budget: SearchBudget,
        fits: Mapping[str, Sequence[tuple[int, int, float]]],
        refit: bool = False,
    ) -> None:
        """`fits`: those of the search, (rows, rounds, seconds) by trainer. `refit`: the same is fitted once more
        afterwards, in the time that is left.
        """
        wide, self._widening = folds.means.fit(TrainingSample.of(rows, matrix))
        self._rows, self._matrix, self._folds = rows, wide.matrix, folds
        self._spec, self._budget, self._fits = spec, budget, fits
        self._parts = 2 if refit else 1
        #: seconds kept for the first boosters of a blend's members that are fitted afterwards
        self._later = 0.0
        self.notes: list[str] = []
        #: what a person should not overlook
        self.warnings: tuple[str, ...] = ()
        #: by trainer, the boosters that were fitted
        self.boosters: dict[str, tuple[FittedBooster, ...]] = {}

    def model(
        self, choice: ModelChoice | BlendChoice, *, boosters: Mapping[str, Sequence[FittedBooster]] | None = None
    ) -> tuple[FittedModel, str]:
        """The fitted model, and how its threshold was found. `boosters`: of a trainer named there exactly these are
        fitted.
        """
        payload, importance = self.fit(choice, boosters or {})
        problem = self._folds.problem
        calibrated, limit, text = Calibration(), None, ""
        if problem.task == "binary":
            calibrated, limit, text = self._decision(choice)
            self.warnings = self._decision_warnings()
        card = ModelCard(
            kind=payload.kind,
            trainer=choice.name,
            task=problem.task,
            classes=problem.classes,
            inputs=self._folds.inputs,
            calibration=calibrated,
            threshold=limit,
            importance=importance,
            params={} if isinstance(choice, BlendChoice) else choice.members[0].params,
        )
        return FittedModel(card, payload), text

    def fit(
        self, choice: ModelChoice | BlendChoice, boosters: Mapping[str, Sequence[FittedBooster]]
    ) -> tuple[Payload, dict[str, float]]:
        """The payload, and the importance of each feature; `boosters` as in `model`."""
        if isinstance(choice, BlendChoice):
            payload, importance = self._blended(choice, boosters)
        else:
            payload, importance = self._alone(choice, boosters)
        return widened(payload, self._widening), self._folds.means.by_feature(importance)

    def _blended(
        self, choice: BlendChoice, boosters: Mapping[str, Sequence[FittedBooster]]
    ) -> tuple[Payload, dict[str, float]]:
        """The members one after the other; each leaves the later ones the time of one fit."""
        parts = []
        for place, member in enumerate(choice.members, start=1):
            self._later = sum(
                self._seconds(other.trainer, other.members[0], len(self._rows)) for other in choice.members[place:]
            )
            parts.append(self._alone(member, boosters))
        payload = Blend(members=tuple(part for part, _ in parts), weights=choice.weights)
        return payload, _weighted([shares for _, shares in parts], choice.weights)

    def _alone(
        self, choice: ModelChoice, boosters: Mapping[str, Sequence[FittedBooster]]
    ) -> tuple[Payload, dict[str, float]]:
        recorded = boosters.get(choice.name)
        payload = self._again(choice, recorded) if recorded else self._payload(choice)
        return payload, choice.trainer.importance(self._folds.problem, payload)

    def _decision(self, choice: ModelChoice | BlendChoice) -> tuple[Calibration, float, str]:
        """Calibration, threshold, and how it was found, from answers out of fold."""
        judged, calibrated = self._rows.take(self._folds.places), Calibration()
        if choice.name != "naive":  # a constant has no slope to correct
            own = self._folds.judged(choice.answers)
            calibrated = calibration.choose(self._spec.calibration, judged.target, own, self._folds.parts)
        scores = calibration.apply(calibrated, choice.answers)
        limit, text = threshold.decide(
            self._spec, judged, self._folds.judged(scores), traffic=self._folds.traffic(scores)
        )
        return calibrated, limit, text

    def _decision_warnings(self) -> tuple[str, ...]:
        """What the project file should say of decisions, and does not."""
        if self._spec.threshold is not None:
            text = threshold.uncounted(self._spec.threshold, self._rows)
        elif self._spec.cost is None:
            text = threshold.advice(self._rows.rate, timed=self._rows.at is not None)
        else:
            text = None
        return () if text is None else (text,)

    def _payload(self, choice: ModelChoice) -> Payload:
        if not choice.trainer.searched:
            params = choice.members[0].params
            return self._fit(choice.trainer, params, len(self._rows), seed=self._folds.problem.seed).payload
        rows = self._affordable(choice)
        members = self._members(choice)
        workers = max(1, min(self._folds.problem.threads, len(members)))
        plan = [
            FittedBooster(trial=record.number, place=place, rounds=self._rounds(choice.trainer, record), rows=rows)
            for place, record in enumerate(members)
        ]
        fits: list[FitResult] = []
        with ThreadPoolExecutor(workers) as pool, self._budget.ends_with():
            for first in range(0, len(members), workers):
                wave = range(first, min(first + workers, len(members)))
                if first and self._seconds(choice.trainer, members[first], rows) > self._left():
                    break
                # The first booster is the model: a few seconds late is better than cut off after a tenth of its rounds.
                fits += pool.map(
                    lambda place: self._member(
                        choice, plan[place], seconds_left=self._left if place else self._budget.forever
                    ),
                    wave,
                )
        whole = [(booster, fit) for booster, fit in zip(plan, fits, strict=False) if not fit.cut]
        if len(whole) < len(members):
            self.notes.append(
                f"the time was over after {len(whole)} of the {len(members)} boosters; the model averages these"
            )
        self.boosters[choice.name] = tuple(booster for booster, _ in whole)
        return _averaged([fit for _, fit in whole])

    def _again(self, choice: ModelChoice, boosters: Sequence[FittedBooster]) -> Payload:
        """The boosters that were fitted once, and no others."""
        workers = max(1, min(self._folds.problem.threads, len(boosters)))
        with ThreadPoolExecutor(workers) as pool, self._budget.ends_with():
            fits = list(
                pool.map(lambda booster: self._member(choice, booster, seconds_left=self._budget.forever), boosters)
            )
        self.boosters[choice.name] = tuple(boosters)
        return _averaged(fits)

    def _member(self, choice: ModelChoice, booster: FittedBooster, *, seconds_left: Callable[[], float]) -> FitResult:
        record = next(record for record in choice.members if record.number == booster.trial)
        seed = member_seed(self._folds.problem.seed, booster.place)
        return self._fit(
            choice.trainer,
            record.params | {"rounds": booster.rounds},
            booster.rows,
            seed=seed,
            seconds_left=seconds_left,
        )

    def _members(self, choice: ModelChoice) -> list[TrialRecord]:
        """The trials that are averaged; where there are fewer than wanted, those again with other seeds."""
        trainer = cast("Searched", choice.trainer)
        again = [record for record in choice.members if trainer.is_random(record.params)]
        missing = self._spec.ensemble - len(choice.members)
        return [*choice.members, *(again[number % len(again)] for number in range(missing if again else 0))]

    def _fit(
        self, trainer: Trainer, params: Params, rows: int, *, seed: int, seconds_left: Callable[[], float] | None = None
    ) -> FitResult:
        everything = np.arange(len(self._rows))
        if rows < len(self._rows):
            sample = sampling.learned(self._rows, self._matrix, everything, most=rows, seed=seed)
        else:
            sample = self._whole
        problem = replace(self._folds.problem, seed=seed, seconds_left=seconds_left or self._budget.left)
        return trainer.fit(problem, params, sample)

    @property
    def _whole(self) -> TrainingSample:
        return TrainingSample.of(self._rows, self._matrix)

    def _affordable(self, choice: ModelChoice) -> int:
        """How many rows the first booster may have; all of them unless the time is too short even for one."""
        everything = len(self._rows)
        needed, remaining = self._seconds(choice.trainer, choice.members[0], everything), max(self._left(), 1.0)
        if needed <= remaining:
            return everything
        rows = min(everything, max(sampling.SEARCH_ROWS, int(everything * remaining / needed)))
        if rows < everything:
            self.notes.append(f"the final fit took {rows:,} of {everything:,} rows: the time was over")
        return rows

    def _left(self) -> float:
        """Seconds left for this trainer."""
        return self._budget.left() / self._parts - self._later

    def _seconds(self, trainer: Trainer, record: TrialRecord, rows: int) -> float:
        if not self._budget.limited:
            return 0.0
        return expected_seconds(self._fits.get(trainer.name, ()), rows, self._rounds(trainer, record))

    def _rounds(self, trainer: Trainer, record: TrialRecord) -> int:
        return final_rounds(trainer, record, self._folds.growth)


def final_rounds(trainer: Trainer, record: TrialRecord, growth: float) -> int:
    """Rounds of a fit on all rows: of trees more than the folds took, by the `growth` of the rows."""
    grows = trainer.searched and cast("Searched", trainer).grows
    return max(1, round(averages.fmean(record.rounds) * (growth if grows else 1.0)))


def _weighted(importance: Sequence[Mapping[str, float]], weights: Sequence[float]) -> dict[str, float]:
    """The weighted mean of the importance of those members that tell one, largest first."""
    pairs = [(shares, weight) for shares, weight in zip(importance, weights, strict=True) if shares]
    whole = sum(weight for _, weight in pairs)
    mean: dict[str, float] = {}
    for shares, weight in pairs:
        for name, share in shares.items():
            mean[name] = mean.get(name, 0.0) + share * weight / whole
    return dict(sorted(mean.items(), key=lambda pair: (-pair[1], pair[0])))


def _averaged(fits: Sequence[FitResult]) -> Payload:
    kind = cast("type[Averaged]", type(fits[0].payload))
    return kind(tuple(text for fit in fits for text in cast("Averaged", fit.payload).texts))
