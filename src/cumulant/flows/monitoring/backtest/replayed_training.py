"""Fits and drift checks of a replay, each computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from cumulant.core.errors import DataError
from cumulant.flows.monitoring.backtest.labelled_windows import WindowedRows, WindowPlaces
from cumulant.training.spec import SEARCHED, Parameter

if TYPE_CHECKING:
    from cumulant.flows.registry.model_record import ModelRecord
    from cumulant.monitoring.drift.profiles import DriftProfile
    from cumulant.monitoring.performance.refits import Scorer
    from cumulant.monitoring.policy import DriftPolicy
    from cumulant.statistics.rows import Floats
    from cumulant.training.dataset import TrainingSet
    from cumulant.training.policy import TrainingPolicy

#: rows of one fit: a replay fits some hundred times
MOST_ROWS = 50_000
_MONTH = timedelta(days=30)


class Learner(msgspec.Struct, frozen=True, kw_only=True):
    """What is fitted: a trainer and its parameters, without search and calibration. `of`: the version that has them."""

    trainer: str
    params: dict[str, Parameter]
    of: str | None = None


def learner_of(spec: TrainingPolicy, record: ModelRecord | None, uri: str | None) -> Learner:
    """The champion's trainer and parameters (of a blend the largest weight), else the project's first real one."""
    if record is not None and record.fitted.summary.trainer != "naive":
        summary = record.fitted.summary
        trainer = summary.parts[0].trainer if summary.parts else summary.trainer
        params = dict(summary.params_of(trainer) or {})
        rounds = next((trial.rounds for trial in record.fitted.trials if trial.number == summary.best_trial), ())
        if trainer in SEARCHED and rounds:
            params["rounds"] = max(1, round(sum(rounds) / len(rounds)))
        return Learner(trainer=trainer, params=params, of=uri)
    name = next((name for name in spec.trainers if name != "naive"), "linear")
    return Learner(trainer=name, params=dict(spec.parameters.get(name, {})))


@dataclass(frozen=True, kw_only=True)
class Fits:
    """Fits on windows of `cut`, of rows whose label was known then; each window is fitted and scored once."""

    cut: WindowedRows
    spec: TrainingPolicy
    learner: Learner
    root: Path
    models: dict[tuple[object, ...], Scorer[WindowPlaces]] = field(default_factory=dict)

    def plain(self, inputs: Sequence[WindowPlaces], truths: Sequence[Floats]) -> Scorer[WindowPlaces]:
        """All rows weigh the same."""
        del truths
        return self._scorer((inputs[0].number, inputs[-1].number), inputs, None)

    def weighted(
        self, inputs: Sequence[WindowPlaces], truths: Sequence[Floats], weights: Sequence[Floats]
    ) -> Scorer[WindowPlaces]:
        """Each row has its weight; their mean is made 1, as in a training."""
        del truths
        weight = np.concatenate(weights)
        named = hashlib.blake2b(weight.tobytes(), digest_size=16).digest()
        return self._scorer((inputs[0].number, inputs[-1].number, named), inputs, weight)

    def _scorer(
        self, key: tuple[object, ...], inputs: Sequence[WindowPlaces], weight: Floats | None
    ) -> Scorer[WindowPlaces]:
        if key not in self.models:
            self.models[key] = self._fitted(inputs, weight)
        return self.models[key]

    def _fitted(self, inputs: Sequence[WindowPlaces], weight: Floats | None) -> Scorer[WindowPlaces]:
        from cumulant.training.search.fixed_fit import fit_once

        whole, places = self.cut.rows, np.concatenate([part.places for part in inputs])
        if whole.known is not None:
            in_time = whole.known[places] <= self.cut.known_by(inputs[-1].number)
            places, weight = places[in_time], None if weight is None else weight[in_time]
        rows = whole.take(places)
        if not len(rows):
            raise DataError(
                f"windows {inputs[0].number + 1} to {inputs[-1].number + 1} have no row to learn from",
                subject="history",
                hint="begin after the gap with --since, or give longer windows with --every",
            )
        if weight is not None:
            rows = replace(rows, weight=weight / weight.mean())
        if len(rows) > MOST_ROWS:
            rows = rows.sample(MOST_ROWS / len(rows), seed=self.spec.seed)
        model = fit_once(rows, self.spec, self.learner.trainer, self.learner.params, root=self.root)
        answers: dict[int, Floats] = {}

        def score(part: WindowPlaces) -> Floats:
            if part.number not in answers:
                features = whole.features[part.places]
                answers[part.number] = model.predict_frame(features) if len(part.places) else np.zeros(0)
            return answers[part.number]

        return score


@dataclass(frozen=True, kw_only=True)
class Drifts:
    """Drift of one window after the other from the rows that the model learned."""

    rows: TrainingSet
    policy: DriftPolicy
    every: timedelta
    references: dict[tuple[int, int], DriftProfile] = field(default_factory=dict)
    results: dict[tuple[int, int, int], bool] = field(default_factory=dict)

    def __call__(self, known: Sequence[WindowPlaces], window: WindowPlaces) -> bool:
        ends = (known[0].number, known[-1].number)
        key = (*ends, window.number)
        if key not in self.results:
            self.results[key] = len(window.places) > 0 and self._moved(ends, known, window)
        return self.results[key]

    def _moved(self, ends: tuple[int, int], known: Sequence[WindowPlaces], window: WindowPlaces) -> bool:
        from cumulant.monitoring.drift.comparing import compare
        from cumulant.monitoring.drift.profiling import profile

        if ends not in self.references:
            self.references[ends] = self._reference(known)
        reference, policy = self.references[ends], msgspec.structs.replace(self.policy, window=self.every)
        now = profile(self.rows.features[window.places], {}, like=reference)
        # A look is one window, and a month's looks share one rate of false alarms, as in `monitor run`.
        findings = compare(reference, now, policy, looks=max(round(_MONTH / self.every), 1))
        return any(findings.alarming)

    def _reference(self, known: Sequence[WindowPlaces]) -> DriftProfile:
        from cumulant.monitoring.drift.blocks import by_time
        from cumulant.monitoring.drift.profiling import profile

        places = np.concatenate([part.places for part in known])
        names = [name for name in self.rows.features.columns if name not in self.policy.ignore]
        assert self.rows.at is not None
        blocks = by_time(pl.Series("at", self.rows.at[places]).cast(pl.Datetime("us")), self.every)
        return profile(self.rows.features[places].select(names), dict.fromkeys(names, "feature"), cut=blocks)
