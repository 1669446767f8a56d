"""History replayed under retraining policies: their trainings and losses.

A model is evaluated on a window before it may learn from it, and labels come late as in production.
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
from cumulant.core.progress import Progress, silent
from cumulant.monitoring.performance.baselines import HarmPolicy, learn_baseline
from cumulant.monitoring.performance.blocks import loss_of
from cumulant.monitoring.performance.kinds import Kind
from cumulant.monitoring.performance.loss_monitor import Harm, LossMonitor, add_window, begin_monitor
from cumulant.monitoring.performance.recalibration import Task
from cumulant.monitoring.performance.refits import Fit, Scorer, recent_refits
from cumulant.monitoring.performance.rows import PredictionRows, PredictionWindow
from cumulant.monitoring.performance.unlabelled import Estimator, estimate_windows, learn_estimator
from cumulant.monitoring.policy import RetrainPolicy
from cumulant.monitoring.retrain_rule import RetrainEvidence, RetrainState, decide
from cumulant.statistics import Word
from cumulant.statistics.rows import Floats

Inputs = TypeVar("Inputs")
#: as `Fit`, with the weight of each row
WeightedFit = Callable[[Sequence[Inputs], Sequence[Floats], Sequence[Floats]], Scorer[Inputs]]

#: as a window of an estimate it holds every moment that there is
_ALWAYS = timedelta(days=365_000)


class ReplayPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How history is replayed.

    Args:
        start: of the first window; windows are `every` long and contiguous.
        task: of the model.
        first: windows that the first model is trained on.
        memory: windows that a later training uses; None: all up to then (growing history).
        half_life: age at which a row weighs half as much as the newest in a training; None: equal weights.
        learn: windows after a training that become the reference of its harm.
        refit_memory: windows of the refit that is compared.
        delay: windows whose labels have not come yet.
        harm: what counts as harm.
        estimate: whether losses are also estimated from scores, before labels come (`binary`).
    """

    start: datetime
    every: timedelta
    task: Task = "binary"
    first: int
    memory: int | None
    half_life: timedelta | None = None
    learn: int = 4
    refit_memory: int = 4
    delay: int = 0
    harm: HarmPolicy = HarmPolicy()
    estimate: bool = False


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The replay of one policy. `loss`: mean over all evaluated rows; `losses`: of each window, None without rows."""

    policy: str
    looks: int
    alarms: int
    trainings: tuple[datetime, ...]
    waits: int
    loss: float
    losses: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class BacktestHistory(Generic[Inputs]):
    """Windows of inputs and truths, oldest first, each of all rows, perhaps none; `times` [rows] of each window."""

    inputs: Sequence[Inputs]
    truths: Sequence[Floats]
    times: Sequence[NDArray[np.datetime64]]


def backtest(
    history: BacktestHistory[Inputs],
    fit: Fit[Inputs],
    policies: Mapping[str, RetrainPolicy],
    terms: ReplayPolicy,
    *,
    weighted: WeightedFit[Inputs] | None = None,
    drifts: Callable[[Sequence[Inputs], Inputs], bool] | None = None,
    progress: Progress = silent,
) -> tuple[Replay, ...]:
    """Each of `policies` over the same history, in their order.

    Args:
        history: what happened.
        fit: from windows of inputs and truths to a scorer; the same for all.
        policies: by name. `RetrainPolicy(on_harm=False)` never retrains.
        terms: how history is replayed.
        weighted: as `fit`, with the weight of each row, for `terms.half_life`; refits are not weighted.
        drifts: whether a window has drifted from the windows of the served model's training; None: never.
        progress: called for each window.

    Raises:
        DataError: there are not more windows than the first model is trained on, or no row after them, or rows are to
            be weighted and no fit takes weights.
    """
    _checked(history, weighted, terms)
    progress("refits that harm is compared with", 0.0)
    refits = recent_refits(history.inputs, history.truths, fit, memory=terms.refit_memory, delay=terms.delay)
    run = _Run(history=history, fit=fit, weighted=weighted, refits=refits, terms=terms, drifts=drifts)
    return tuple(
        run.replay(name, policy, _part(progress, name, place, len(policies)))
        for place, (name, policy) in enumerate(policies.items())
    )


def _part(progress: Progress, name: str, place: int, count: int) -> Callable[[float], None]:
    return lambda share: progress(f"rule: {name}", (place + share) / count)


def _checked(history: BacktestHistory[Inputs], weighted: WeightedFit[Inputs] | None, terms: ReplayPolicy) -> None:
    begun = terms.first + terms.delay
    if len(history.inputs) <= begun or terms.first < 1:
        raise DataError(
            f"{len(history.inputs)} windows are too few: the first model is trained on {terms.first}",
            subject="history",
            hint="give a longer history or shorter windows",
        )
    if not any(len(truth) for truth in history.truths[begun:]):
        raise DataError(
            "no window after the first training has a row with a label",
            subject="history",
            hint="give a longer history",
        )
    if terms.half_life is not None and weighted is None:
        raise DataError("a half-life needs a fit that takes weights", subject="half_life", hint="give `weighted`")


@dataclass
class _Served(Generic[Inputs]):
    """The served model: its scores by window, and its monitor.

    known: first window that it was trained on, and the one after the last.
    """

    scorer: Scorer[Inputs]
    known: tuple[int, int]
    scores: dict[int, Floats] = field(default_factory=dict)
    shown: list[PredictionRows] = field(default_factory=list)
    watch: LossMonitor | None = None
    estimator: Estimator | None = None


@dataclass(frozen=True, kw_only=True)
class _Run(Generic[Inputs]):
    history: BacktestHistory[Inputs]
    fit: Fit[Inputs]
    weighted: WeightedFit[Inputs] | None
    refits: Sequence[Floats | None]
    terms: ReplayPolicy
    drifts: Callable[[Sequence[Inputs], Inputs], bool] | None

    def replay(self, name: str, policy: RetrainPolicy, tell: Callable[[float], None]) -> Replay:
        """One policy over the history; `tell` is called with the completed share."""
        begun, count = self.terms.first + self.terms.delay, len(self.history.inputs)
        served, state = self._trained(0, self.terms.first), RetrainState(trained=self._window(begun).start)
        losses, alarms, waits, trainings = [], 0, 0, []
        for number in range(begun, count):
            tell((number - begun) / (count - begun))
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
            losses=tuple(float(window_losses.mean()) if len(window_losses) else None for window_losses in losses),
        )

    def _trained(self, first: int, last: int) -> _Served[Inputs]:
        inputs, truths = self.history.inputs[first:last], self.history.truths[first:last]
        if self.weighted is None or self.terms.half_life is None:
            return _Served(scorer=self.fit(inputs, truths), known=(first, last))
        now, half = np.datetime64(self._window(last - 1).end.replace(tzinfo=None)), self.terms.half_life
        ages = [(now - times) / np.timedelta64(half) for times in self.history.times[first:last]]
        return _Served(scorer=self.weighted(inputs, truths, [np.exp2(-age) for age in ages]), known=(first, last))

    def _evidence(self, served: _Served[Inputs], number: int) -> RetrainEvidence:
        """What is known after window `number`, the labels of which come `delay` windows later."""
        score = served.scores[number]
        harm_now, (first, last) = self._look(served, number - self.terms.delay), served.known
        words = {} if harm_now is None else {finding.question: finding.word for finding in harm_now.findings}
        kind = None if harm_now is None else harm_now.kind
        return RetrainEvidence(
            now=self._window(number).end,
            new_labels=sum(len(truth) for truth in self.history.truths[last : number + 1 - self.terms.delay]),
            drift=self.drifts is not None and self.drifts(self.history.inputs[first:last], self.history.inputs[number]),
            kind=kind,
            measured=None if harm_now is None else harm_now.word,
            refit=words.get("refit"),
            estimated=None if served.estimator is None else self._estimated(served.estimator, number, score, kind),
        )

    def _look(self, served: _Served[Inputs], number: int) -> Harm | None:
        """Harm after a window that the model has scored; None while its reference is being gathered."""
        if number not in served.scores:
            return None
        score, truth = served.scores.pop(number), self.history.truths[number]
        if not len(truth):
            return None
        part = PredictionRows(time=self.history.times[number], score=score, truth=truth)
        if served.watch is not None:
            served.watch, harm_now = add_window(served.watch, self._window(number), part, self.refits[number])
            return harm_now
        served.shown.append(part)
        if len(served.shown) >= self.terms.learn:
            self._watch(served)
        return None

    def _watch(self, served: _Served[Inputs]) -> None:
        """What was shown becomes the reference; where it has no skill yet (of one class alone), more is waited for."""
        terms, shown = self.terms.harm, _joined(served.shown)
        try:
            reference = learn_baseline(shown, task=self.terms.task, policy=terms, every=self.terms.every)
        except DataError:
            return
        served.watch = begin_monitor(reference, terms)
        if self.terms.estimate and self.terms.task == "binary":
            served.estimator = learn_estimator(shown, every=self.terms.every)

    def _estimated(self, estimator: Estimator, number: int, score: Floats, kind: Kind | None) -> Word | None:
        """The word of the estimated loss of a window, its labels unseen; None where the estimate is refused."""
        if not len(score):
            return None
        blank = PredictionRows(time=self.history.times[number], score=score, truth=np.full(len(score), np.nan))
        (window,) = estimate_windows(estimator, blank, every=_ALWAYS, kind=kind, margin=self.terms.harm.margin)
        figure = window.figures.get(self.terms.harm.loss)
        return None if figure is None else figure.word

    def _window(self, number: int) -> PredictionWindow:
        return PredictionWindow(
            self.terms.start + number * self.terms.every, self.terms.start + (number + 1) * self.terms.every
        )


def _joined(parts: Sequence[PredictionRows]) -> PredictionRows:
    return PredictionRows(
        time=np.concatenate([part.time for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        truth=np.concatenate([part.truth for part in parts]),
    )
