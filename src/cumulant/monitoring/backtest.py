"""History replayed under rules of retraining: what each would have cost in trainings, and what loss it would have had.

Nothing is known before its time: a model is judged on a window before it may learn from it, and labels come late as
they do in life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import DataError
from cumulant.monitoring.performance import (
    Harm,
    HarmTerms,
    Predictions,
    Watch,
    Window,
    baseline,
    begin,
    harm,
    recent_refits,
)
from cumulant.monitoring.performance.blocks import loss_of
from cumulant.monitoring.performance.recalibration import Task
from cumulant.monitoring.performance.refits import Fit, Scorer
from cumulant.monitoring.policy import Evidence, RetrainState, RetrainTerms, decide
from cumulant.statistics.rows import Floats

Inputs = TypeVar("Inputs")


class ReplayTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How history is replayed.

    Args:
        start: first window; windows are `every` long and follow each other.
        every: length of a window.
        task: what the model does.
        first: windows that the first model is trained on.
        memory: windows that a later training uses; None: all up to then (growing history).
        learn: windows after a training that become the reference of its harm.
        refit_memory: windows of the refit that harm is held against.
        delay: windows whose labels have not come yet.
        harm: what counts as harm.
    """

    start: datetime
    every: timedelta
    task: Task = "binary"
    first: int
    memory: int | None
    learn: int = 4
    refit_memory: int = 4
    delay: int = 0
    harm: HarmTerms = HarmTerms()


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule did. `loss` is the mean over all rows judged; `losses` of each window from the first on."""

    policy: str
    looks: int
    alarms: int
    trainings: tuple[datetime, ...]
    waits: int
    loss: float
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class History(Generic[Inputs]):
    """Windows of inputs and truths, oldest first, each of all rows; `times` [rows] of each window."""

    inputs: Sequence[Inputs]
    truths: Sequence[Floats]
    times: Sequence[NDArray[np.datetime64]]


def backtest(
    history: History[Inputs],
    fit: Fit[Inputs],
    policies: Mapping[str, RetrainTerms],
    terms: ReplayTerms,
    *,
    drifts: Callable[[Sequence[Inputs], Inputs], bool] | None = None,
) -> tuple[Replay, ...]:
    """Each of `policies` over the same history, in their order.

    Args:
        history: what happened.
        fit: from windows of inputs and truths to a scorer; the same for all.
        policies: rules by name. `RetrainTerms(on_harm=False)` never trains again.
        terms: how history is replayed.
        drifts: whether a window has drifted from the windows that the served model was trained on; None: never said.

    Raises:
        DataError: there are not more windows than the first model is trained on.
    """
    if len(history.inputs) <= terms.first + terms.delay or terms.first < 1:
        raise DataError(
            f"{len(history.inputs)} windows are too few: the first model is trained on {terms.first}",
            subject="history",
            hint="give a longer history or shorter windows",
        )
    refits = recent_refits(history.inputs, history.truths, fit, memory=terms.refit_memory, delay=terms.delay)
    run = _Run(history=history, fit=fit, refits=refits, terms=terms, drifts=drifts)
    return tuple(run.replay(name, policy) for name, policy in policies.items())


@dataclass
class _Served(Generic[Inputs]):
    """The model in service while history passes: its scores by window, and the watch over it.

    known: first window that it was trained on, and the one after the last.
    """

    scorer: Scorer[Inputs]
    known: tuple[int, int]
    scores: dict[int, Floats] = field(default_factory=dict)
    shown: list[Predictions] = field(default_factory=list)
    watch: Watch | None = None


@dataclass(frozen=True, kw_only=True)
class _Run(Generic[Inputs]):
    """What all rules share."""

    history: History[Inputs]
    fit: Fit[Inputs]
    refits: Sequence[Floats | None]
    terms: ReplayTerms
    drifts: Callable[[Sequence[Inputs], Inputs], bool] | None

    def replay(self, name: str, policy: RetrainTerms) -> Replay:
        """One rule over the history."""
        begun = self.terms.first + self.terms.delay
        served, state = self._trained(0, self.terms.first), RetrainState(trained=self._window(begun).start)
        losses, alarms, waits, trainings = [], 0, 0, []
        for number in range(begun, len(self.history.inputs)):
            score = np.asarray(served.scorer(self.history.inputs[number]), dtype=np.float64)
            served.scores[number] = score
            losses.append(loss_of(self.terms.harm.loss, self.history.truths[number], score))
            evidence = self._evidence(served, number)
            alarms += evidence.measured == "worse" or evidence.drift
            state, action = decide(state, evidence, policy)
            waits += action.do == "wait"
            if action.do == "train":
                last = number + 1 - self.terms.delay
                served = self._trained(0 if self.terms.memory is None else max(0, last - self.terms.memory), last)
                trainings.append(evidence.now)
        return Replay(
            policy=name,
            looks=len(losses),
            alarms=alarms,
            trainings=tuple(trainings),
            waits=waits,
            loss=float(np.concatenate(losses).mean()),
            losses=tuple(float(one.mean()) for one in losses),
        )

    def _trained(self, first: int, last: int) -> _Served[Inputs]:
        scorer = self.fit(self.history.inputs[first:last], self.history.truths[first:last])
        return _Served(scorer=scorer, known=(first, last))

    def _evidence(self, served: _Served[Inputs], number: int) -> Evidence:
        """What is known after window `number`, the labels of which come `delay` windows later."""
        told, (first, last) = self._look(served, number - self.terms.delay), served.known
        words = {} if told is None else {one.question: one.word for one in told.findings}
        return Evidence(
            now=self._window(number).end,
            new_labels=sum(len(truth) for truth in self.history.truths[last : number + 1 - self.terms.delay]),
            drift=self.drifts is not None and self.drifts(self.history.inputs[first:last], self.history.inputs[number]),
            kind=None if told is None else told.kind,
            measured=None if told is None else told.word,
            refit=words.get("refit"),
        )

    def _look(self, served: _Served[Inputs], number: int) -> Harm | None:
        """Harm after a window that the model has scored; None while its reference is being gathered."""
        if number not in served.scores:
            return None
        score, truth = served.scores.pop(number), self.history.truths[number]
        part = Predictions(time=self.history.times[number], score=score, truth=truth)
        if served.watch is not None:
            served.watch, told = harm(served.watch, self._window(number), part, self.refits[number])
            return told
        served.shown.append(part)
        if len(served.shown) == self.terms.learn:
            terms = self.terms.harm
            reference = baseline(_joined(served.shown), task=self.terms.task, terms=terms, every=self.terms.every)
            served.watch = begin(reference, terms)
        return None

    def _window(self, number: int) -> Window:
        return Window(self.terms.start + number * self.terms.every, self.terms.start + (number + 1) * self.terms.every)


def _joined(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(
        time=np.concatenate([one.time for one in parts]),
        score=np.concatenate([one.score for one in parts]),
        truth=np.concatenate([one.truth for one in parts]),
    )
