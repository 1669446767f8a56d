"""The flow itself: what the project has learned from and would have learned, rule by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import DataError, UsageError
from cumulant.core.progress import Progress, silent
from cumulant.core.units import from_micros, show_duration
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import feature_set
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.monitoring.backtest.histories import Learned, chosen, learned, read
from cumulant.flows.monitoring.backtest.labelled_windows import Cut, cut
from cumulant.flows.monitoring.backtest.policy_comparison import Difference, beats, best_of, difference, said
from cumulant.flows.monitoring.backtest.replayed_training import MOST_ROWS, Drifts, Fits, Learner, learner_of
from cumulant.flows.registry.candidate_alias import find_record
from cumulant.flows.training.evaluation import champion_version
from cumulant.flows.training.task import refuse_no_features, resolve_task
from cumulant.flows.training.train import work_of
from cumulant.flows.training.training_rows import labelled_rows
from cumulant.monitoring.backtest import Replay, ReplayTerms, backtest
from cumulant.monitoring.monitoring_policy import RetrainTerms
from cumulant.monitoring.performance.baselines import HarmTerms

if TYPE_CHECKING:
    from cumulant.outcomes.join.prediction_losses import Loss
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.training.dataset import TrainingSet

#: the first model is trained on this part of the windows, and harm is learned from as many windows after a training
_FIRST, _LEARN = 5, 4
#: windows that must be left to be judged, beyond those from which a first reference of harm is learned
_JUDGED = 4
_SCHEDULES = {
    "each month": timedelta(days=30),
    "each quarter": timedelta(days=91),
    "each half-year": timedelta(days=182),
}
DEFAULT, OWN = "default", "the project's"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is replayed. `first`: windows of the first training; `memory`: a kind of history for all rules, else the
    project's; `history`: kinds to compare, `all` or as listed; `estimate`: whether losses are also estimated.
    """

    every: timedelta | None = None
    since: datetime | None = None
    until: datetime | None = None
    first: int | None = None
    memory: str | None = None
    history: str | None = None
    estimate: bool = False


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """One rule over the history, and how its loss differs from the first rule's. `better`: it has no more loss and no
    more trainings than the first rule, and less of one.
    """

    rule: str
    loss: float
    difference: Difference | None
    trainings: tuple[datetime, ...]
    alarms: int
    waits: int
    looks: int
    losses: tuple[float | None, ...]
    better: bool


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The first rule with one kind of history. `setting`: what to write as `monitoring.retrain.history`."""

    history: str
    setting: str
    loss: float
    difference: Difference | None
    trainings: tuple[datetime, ...]
    best: bool


class Backtested(msgspec.Struct, frozen=True, kw_only=True):
    """What each rule would have cost. Windows are `every` long from `start` on; the first `first` train the first
    model, and at a look the labels of `delay` windows have not come.
    """

    run: str
    target: str
    task: str
    loss: str
    trainer: str
    parameters_of: str | None
    history: str
    rows: int
    start: datetime
    end: datetime
    every: str
    windows: int
    first: int
    delay: int
    rules: tuple[Replayed, ...]
    histories: tuple[Compared, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]


def backtest_project(
    project: Project, asked: Asked, *, principal: Principal, progress: Progress = silent
) -> Backtested:
    """Replay the labelled rows of the newest snapshots under rules of retraining.

    What is fitted at each training is the champion's trainer with its parameters, else the project's first that is not
    naive: no search, no calibration, and of more than 50,000 rows a random part.

    Raises:
        UsageError: the project has no target or no event time, its task has several classes, or what is asked for is
            no length or history.
        DataError: there are too few windows, no labels, or a gap.
        ContractBreachError: a source breaks its contract.
    """
    settings = {name: str(value) for name, value in vars(asked).items() if value}
    with open_run(
        project, "backtest", action="monitor.backtest", principal=principal, progress=progress, settings={**settings}
    ) as context:
        rows, target, source = _rows(context)
        held = cut(rows, every=asked.every, since=asked.since, until=asked.until, source=source)
        first = _first(held, asked)
        return _replayed(context, asked, held, target, first)


def _rows(context: Context) -> tuple[TrainingSet, str, str]:
    """All labelled rows with their features, the target and the source. Rows that people were asked about are no sample
    of all, and are left out.
    """
    project = context.project
    snapshots, _ = snapshots_of(context)
    task = resolve_task(project, snapshots)
    refuse_no_features(task.plan)
    table = feature_set(context, task, snapshots, as_of=None)
    work = work_of(project, task, snapshots, table, as_of=None, quick=False, trials=None, time=None)
    rows = labelled_rows(
        project,
        task,
        work.snapshot,
        work.table,
        spec=work.training,
        evaluation=work.evaluation,
        as_of=None,
        leakage=True,
    )
    if rows.task == "multiclass":
        raise UsageError(
            f"{work.training.target} has {len(rows.classes)} classes; harm is known for yes or no and for numbers only",
            subject=work.training.target,
            hint="replay a target with two answers, such as one class against the others",
        )
    return rows, work.training.target, task.entity


def _first(held: Cut, asked: Asked) -> int:
    """Windows of the first training, with enough left to judge."""
    count = len(held.history.inputs)
    first = asked.first or max(2, count // _FIRST)
    needed = first + held.delay + _LEARN + _JUDGED
    if count < needed:
        late = f", labels come {held.delay} window{'s' * (held.delay != 1)} late" if held.delay else ""
        raise DataError(
            f"{count} windows of {show_duration(held.every)} are too few: {first} train the first model{late}, "
            f"{_LEARN} more show how good it is, and {_JUDGED} at least must be left",
            subject="history",
            hint="give a shorter --every, a smaller --first or a longer history",
        )
    return first


def _replayed(context: Context, asked: Asked, held: Cut, target: str, first: int) -> Backtested:
    project = context.project
    spec, policy = project.training(), project.policies.monitoring
    learner = _learner(context)
    fits = Fits(cut=held, spec=spec, learner=learner, root=project.root)
    drifts = Drifts(rows=held.rows, policy=policy.drift, every=held.every)
    own = learned(policy.history) if asked.memory is None else read(asked.memory)

    def replay(policies: Mapping[str, RetrainTerms], history: Learned, said: str) -> tuple[Replay, ...]:
        return backtest(
            held.history, fits.plain, policies, _terms(held, history, first, asked),
            weighted=fits.weighted, drifts=drifts,
            progress=lambda text, share=None: context.progress(f"{said}{text}", share),
        )  # fmt: skip

    policies = _policies(policy.retrain, held, first)
    rules = _told(replay(policies, own, ""), held)
    length = first * held.every, len(held.history.inputs) * held.every
    kinds = chosen(asked.history, own, first=length[0], whole=length[1])
    main = {rules[0].rule: policies[rules[0].rule]}
    tried = [(kind, replay(main, kind, f"{kind.name}: ")[0]) for kind in kinds]
    histories = _compared(tried, held)
    assert held.rows.at is not None
    return Backtested(
        run=context.run,
        target=target,
        task=held.rows.task,
        loss=_loss(held),
        trainer=learner.trainer,
        parameters_of=learner.of,
        history=own.name,
        rows=sum(len(truth) for truth in held.history.truths),
        start=held.start,
        end=held.start + len(held.history.inputs) * held.every,
        every=show_duration(held.every),
        windows=len(held.history.inputs),
        first=first,
        delay=held.delay,
        rules=rules,
        histories=histories,
        sentences=said(rules, histories),
        notes=_notes(held, policy.retrain),
    )


def _learner(context: Context) -> Learner:
    project, number = context.project, champion_version(context)
    if number is None:
        return learner_of(project.training(), None, None)
    version = project.registry().resolve(f"{project.name}/{number}")
    return learner_of(project.training(), find_record(project, version), version.uri)


def _loss(held: Cut) -> Loss:
    return "squared_error" if held.rows.task == "regression" else "brier"


def _terms(held: Cut, history: Learned, first: int, asked: Asked) -> ReplayTerms:
    memory = history.windows(held.every)
    return ReplayTerms(
        start=held.start,
        every=held.every,
        task="regression" if held.rows.task == "regression" else "binary",
        first=first,
        memory=memory,
        half_life=history.half_life,
        learn=_LEARN,
        refit_memory=first,
        delay=held.delay,
        harm=HarmTerms(loss=_loss(held)),
        estimate=asked.estimate,
    )


def _policies(own: RetrainTerms, held: Cut, first: int) -> dict[str, RetrainTerms]:
    """The project's rule, or the default one where it says nothing, and those to compare it with: schedules as far as
    they come due within what is judged.
    """
    judged = (len(held.history.inputs) - first - held.delay) * held.every
    default = RetrainTerms()
    free = {"cool_down": timedelta(0), "least_labels": 0, "at_most": None}
    schedules = {
        name: RetrainTerms(on_harm=False, every=span, **free)  # type: ignore[arg-type]
        for name, span in _SCHEDULES.items()
        if held.every < span <= judged
    }
    return {
        **({OWN: own} if own != default and not _by_hand(own) else {}),
        DEFAULT: default,
        "never": RetrainTerms(on_harm=False),
        **schedules,
        "at every alarm": RetrainTerms(on_drift=True, **free),  # type: ignore[arg-type]
    }


def _by_hand(terms: RetrainTerms) -> bool:
    return not terms.on_harm and terms.every is None and terms.labels is None


def _told(replays: Sequence[Replay], held: Cut) -> tuple[Replayed, ...]:
    main, rows = replays[0], [len(truth) for truth in held.history.truths[-replays[0].looks :]]
    return tuple(
        Replayed(
            rule=one.policy,
            loss=one.loss,
            difference=None if one is main else difference(one.losses, main.losses, rows),
            trainings=one.trainings,
            alarms=one.alarms,
            waits=one.waits,
            looks=one.looks,
            losses=one.losses,
            better=one is not main and beats(one, main),
        )
        for one in replays
    )


def _compared(tried: Sequence[tuple[Learned, Replay]], held: Cut) -> tuple[Compared, ...]:
    if not tried:
        return ()
    own = tried[0][1]
    rows = [len(truth) for truth in held.history.truths[-own.looks :]]
    best = best_of([one for _, one in tried])
    return tuple(
        Compared(
            history=kind.name,
            setting=kind.setting,
            loss=one.loss,
            difference=None if one is own else difference(one.losses, own.losses, rows),
            trainings=one.trainings,
            best=place == best,
        )
        for place, (kind, one) in enumerate(tried)
    )


def _notes(held: Cut, retrain: RetrainTerms) -> tuple[str, ...]:
    """What a reader should know to trust the figures."""
    notes = []
    most = max(len(truth) for truth in held.history.truths)
    if most * len(held.history.truths) > MOST_ROWS:
        notes.append(f"a training of more than {MOST_ROWS:,} rows takes as many of them at random")
    if held.rows.unlabelled:
        notes.append(f"{held.rows.unlabelled:,} rows have no label and are left out")
    if _by_hand(retrain):
        notes.append("the project trains by hand only (`monitoring.retrain.when: never`): the default rule is shown")
    empty = sum(not len(truth) for truth in held.history.truths)
    if empty:
        notes.append(f"{empty} windows have no row with a label")
    assert held.rows.at is not None
    last = from_micros(int(held.rows.at.max()))
    if last >= held.start + len(held.history.inputs) * held.every:
        notes.append(f"the rows after the last whole window, up to {last:%Y-%m-%d %H:%M}, are left out")
    return tuple(notes)
