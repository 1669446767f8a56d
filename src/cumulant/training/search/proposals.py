"""Which parameters a trial tries, and when it is given up: functions of the finished trials and its number.

Nothing else is remembered between trials, so a search that was killed and resumes proposes what it would
have proposed undisturbed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cumulant.core.ids import digest
from cumulant.training.records import TrialRecord
from cumulant.training.spec import Parameter

#: trials drawn at random (or given) before the sampler learns from them
_STARTUP = 8
#: finished trials needed before one is given up
_JUDGES = 3

#: parameters from something that suggests as an Optuna trial does
Space = Callable[[Any], dict[str, Parameter]]


def propose(
    number: int,
    *,
    finished: Sequence[TrialRecord],
    first: Sequence[Mapping[str, Parameter]],
    space: Space,
    larger_is_better: bool,
    seed: int,
) -> dict[str, Parameter]:
    """The parameters of the searched trial `number` (from 0), given the finished ones in order.

    The first ones are given; then Optuna's tree-structured Parzen estimator, seeded by `number`.
    """
    import optuna

    if number < len(first):
        return _inside(first[number], space)
    sampler_seed = int(digest([seed, number])[:8], 16)
    sampler = optuna.samplers.TPESampler(seed=sampler_seed, n_startup_trials=_STARTUP, multivariate=True)
    study = optuna.create_study(sampler=sampler, direction="maximize" if larger_is_better else "minimize")
    study.add_trials([_as_trial(record, space) for record in finished if record.scores])
    return space(study.ask())


def _as_trial(record: TrialRecord, space: Space) -> Any:
    import optuna

    fixed = optuna.trial.FixedTrial(_inside(record.params, space))
    space(fixed)
    pruned = record.state != "complete"
    running = [statistics.fmean(record.scores[: step + 1]) for step in range(len(record.scores))]
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE,
        value=None if pruned else record.score,
        params=fixed.params,
        distributions=fixed.distributions,
        intermediate_values=dict(enumerate(running)),
    )


def _inside(params: Mapping[str, Parameter], space: Space) -> dict[str, Parameter]:
    """`params` moved into the space: unknown names dropped, absent ones in the middle, numbers at the nearest bound."""
    return space(_Nearest(params))


class _Nearest:
    """Stands for a trial that answers with given values, moved to the nearest allowed."""

    def __init__(self, wanted: Mapping[str, Parameter]) -> None:
        self._wanted = wanted

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        middle = (low * high) ** 0.5 if log else (low + high) / 2
        return min(high, max(low, float(self._wanted.get(name, middle))))  # type: ignore[arg-type]

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return round(self.suggest_float(name, low, high, log=log))

    def suggest_categorical(self, name: str, choices: Sequence[Parameter]) -> Parameter:
        wanted = self._wanted.get(name, choices[0])
        if wanted in choices:
            return wanted
        numbers = [choice for choice in choices if isinstance(choice, (int, float))]
        return min(numbers, key=lambda choice: abs(choice - wanted)) if numbers else choices[0]  # type: ignore[operator]


def hopeless(scores: Sequence[float], finished: Sequence[TrialRecord], *, larger_is_better: bool) -> bool:
    """Whether a trial with these fold scores so far does worse than the median of finished ones did then."""
    step = len(scores)
    others = [statistics.fmean(record.scores[:step]) for record in finished if len(record.scores) >= step]
    if len(others) < _JUDGES:
        return False
    mine, middle = statistics.fmean(scores), statistics.median(others)
    return mine < middle if larger_is_better else mine > middle
