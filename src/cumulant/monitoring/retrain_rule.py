"""The retraining decision, a pure function: drift proposes, loss confirms, faulty data prevent."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from cumulant.core.units import moment, show_duration
from cumulant.monitoring.performance.kinds import Kind
from cumulant.monitoring.policy import HistoryPolicy, RetrainPolicy
from cumulant.statistics import Word

if TYPE_CHECKING:
    from cumulant.training.spec import TrainingSpec

Trigger = Literal["harm", "drift", "schedule", "labels"]


def apply_history(history: HistoryPolicy, training: TrainingSpec, newest: datetime) -> TrainingSpec:
    """The section `training` with `monitoring.retrain.history`: a window before `newest`, the newest row.

    A later `training.since` of the project stays.
    """
    if history.half_life is not None:
        training = msgspec.structs.replace(training, half_life=show_duration(history.half_life))
    if history.window is None:
        return training
    first = newest - history.window
    if training.since is not None and moment(training.since) >= first:
        return training
    return msgspec.structs.replace(training, since=first.isoformat())


class RetrainState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the policy: when the served model was trained, trainings so far, evaluations in a row with harm."""

    trained: datetime
    trainings: tuple[datetime, ...] = ()
    confirmed: int = 0


class RetrainEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence of one evaluation.

    fault: why the newest data failed validation; None: they passed. drift: whether drift alarms. kind: of the change.
    measured: the word of harm with labels. refit: whether a refit gains. estimated: the word of an estimate without
    labels. new_labels: that the served model was not trained on.
    """

    now: datetime
    new_labels: int
    fault: str | None = None
    drift: bool = False
    kind: Kind | Literal["data_fault"] | None = None
    measured: Word | None = None
    refit: Word | None = None
    estimated: Word | None = None


class RetrainAction(msgspec.Struct, frozen=True, kw_only=True):
    """`train`; `wait`, where a trigger fires and a condition forbids it; or `nothing`. `sentence`: why."""

    do: Literal["train", "wait", "nothing"]
    trigger: Trigger | None
    sentence: str


def decide(state: RetrainState, evidence: RetrainEvidence, policy: RetrainPolicy) -> tuple[RetrainState, RetrainAction]:
    """The state after an evaluation, and the action. The caller starts the training, or requests approval.

    Measured loss precedes an estimate, which only confirms drift that labels do not contradict. Where labels show that
    a refit gains nothing, harm is reported and nothing is trained.
    """
    confirmed = state.confirmed + 1 if _confirms(evidence) else 0
    counted_state = msgspec.structs.replace(state, confirmed=confirmed)
    trigger, why = _trigger(counted_state, evidence, policy)
    if trigger is None:
        return counted_state, RetrainAction(do="nothing", trigger=None, sentence=why)
    barred = _barred(counted_state, evidence, policy, trigger)
    if barred is not None:
        return counted_state, RetrainAction(do="wait", trigger=trigger, sentence=f"{why} {barred}")
    after = RetrainState(trained=evidence.now, trainings=(*_counted(state, evidence.now, policy), evidence.now))
    return after, RetrainAction(do="train", trigger=trigger, sentence=why)


def _confirms(evidence: RetrainEvidence) -> bool:
    if evidence.measured == "worse":
        return evidence.refit not in ("better", "not_worse")
    contradicted = evidence.measured in ("better", "not_worse")
    return evidence.drift and evidence.estimated == "worse" and not contradicted


def _trigger(state: RetrainState, evidence: RetrainEvidence, policy: RetrainPolicy) -> tuple[Trigger | None, str]:
    age = evidence.now - state.trained
    kind = f" ({evidence.kind})" if evidence.kind else ""
    source = "Measured" if evidence.measured == "worse" else "Estimated"
    fired: list[tuple[bool, Trigger, str]] = [
        (policy.on_harm and state.confirmed >= policy.hold, "harm", f"{source} loss shows harm{kind}."),
        (policy.on_drift and evidence.drift, "drift", "Drift alarms."),
        (policy.every is not None and age >= policy.every, "schedule", f"The model is {age.days} days old."),
        (
            policy.labels is not None and evidence.new_labels >= policy.labels,
            "labels",
            f"{evidence.new_labels} labels are new.",
        ),
    ]
    first = next(((trigger, why) for does, trigger, why in fired if does), None)
    return (None, _quiet(state, evidence, policy)) if first is None else first


def _quiet(state: RetrainState, evidence: RetrainEvidence, policy: RetrainPolicy) -> str:
    """Why no training is due."""
    if evidence.measured == "worse" and not _confirms(evidence):
        return "There is harm, and a refit gains nothing: training again would not help."
    if _confirms(evidence) and not policy.on_harm:
        source = "Measured" if evidence.measured == "worse" else "Estimated"
        kind = f" ({evidence.kind})" if evidence.kind else ""
        why = "`retrain.when` is never, or no window is new"
        return f"{source} loss shows harm{kind}, and nothing trains for it: {why}."
    if policy.on_harm and state.confirmed:
        return f"Harm was confirmed in {state.confirmed} of {policy.hold} consecutive evaluations."
    if evidence.drift:
        return "Drift proposes a training, and no loss confirms it."
    return "No training is due."


def _barred(state: RetrainState, evidence: RetrainEvidence, policy: RetrainPolicy, trigger: Trigger) -> str | None:
    if evidence.fault is not None or evidence.kind == "data_fault":
        return (
            f"The newest data did not pass validation, and nothing is learned from it: {evidence.fault or 'a fault'}."
        )
    if evidence.new_labels < policy.least_labels:
        return f"There are {evidence.new_labels} new labels to learn from, and {policy.least_labels} are needed."
    if trigger != "schedule" and state.trainings and evidence.now - state.trainings[-1] < policy.cool_down:
        return f"The last training was {state.trainings[-1]:%Y-%m-%d}, and the cool-down is {policy.cool_down}."
    trainings = _counted(state, evidence.now, policy)
    if policy.at_most is not None and len(trainings) >= policy.at_most.count:
        return f"The budget of {policy.at_most.count} within {policy.at_most.within.days} days is used up."
    return None


def _counted(state: RetrainState, now: datetime, policy: RetrainPolicy) -> tuple[datetime, ...]:
    """Trainings that still count: those of the budget's span, and the last one for the cool-down."""
    span = policy.at_most.within if policy.at_most is not None else policy.cool_down
    return tuple(when for when in state.trainings if now - when < span)
