"""The flow `backtest`: trainings and losses of each retraining policy over the labelled history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cumulant.core.errors import DataError, UsageError
from cumulant.core.progress import Progress, silent
from cumulant.core.units import from_micros, show_duration
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import feature_set
from cumulant.flows.features.task import refuse_no_features, resolve_task
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.monitoring.backtest.backtest_record import BacktestResult, write_backtest
from cumulant.flows.monitoring.backtest.histories import (
    TrainingHistory,
    declared_history,
    parse_history,
    select_histories,
)
from cumulant.flows.monitoring.backtest.labelled_windows import WindowedRows, cut_windows
from cumulant.flows.monitoring.backtest.policy_comparison import (
    HistoryResult,
    PolicyResult,
    beats,
    best_of,
    difference,
    write_conclusion,
)
from cumulant.flows.monitoring.backtest.replayed_training import MOST_ROWS, Drifts, Fits, Learner, learner_of
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.training.evaluation import champion_version
from cumulant.flows.training.train import work_of
from cumulant.flows.training.training_rows import labelled_rows
from cumulant.monitoring.backtest import Replay, ReplayPolicy, backtest
from cumulant.monitoring.performance.baselines import HarmPolicy
from cumulant.monitoring.policy import RetrainPolicy

if TYPE_CHECKING:
    from cumulant.monitoring.performance.blocks import Loss
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.training.dataset import TrainingSet

#: the first model is trained on this part of the windows, and harm is learned from as many windows after a training
_FIRST, _LEARN = 5, 4
#: windows to evaluate, beyond those of the first reference of harm
_JUDGED = 4
_SCHEDULES = {
    "each month": timedelta(days=30),
    "each quarter": timedelta(days=91),
    "each half-year": timedelta(days=182),
}
DEFAULT, OWN = "default", "the project's"


@dataclass(frozen=True, kw_only=True)
class BacktestRequest:
    """What is replayed. `first`: windows of the first training; `memory`: history of all (default: the project's).

    `history`: kinds to compare, `all` or a list; `estimate`: whether losses are also estimated.
    """

    every: timedelta | None = None
    since: datetime | None = None
    until: datetime | None = None
    first: int | None = None
    memory: str | None = None
    history: str | None = None
    estimate: bool = False


@verb("monitor.backtest")
def backtest_project(
    project: Project, request: BacktestRequest, *, principal: Principal, progress: Progress = silent
) -> BacktestResult:
    """Replay the labelled rows of the newest snapshots under retraining policies.

    Each training fits the champion's trainer with its parameters, else the project's first real one: no search, no
    calibration, at most 50,000 random rows.

    Raises:
        UsageError: the project has no target or no event time, its task has several classes, or an option is no length
            or history.
        DataError: there are too few windows, no labels, or a gap.
        ContractBreachError: a source breaks its contract.
    """
    settings: dict[str, object] = {name: str(value) for name, value in vars(request).items() if value}
    with open_run(project, "backtest", principal=principal, progress=progress, settings=settings) as context:
        rows, target, source = _rows(context)
        windowed = cut_windows(rows, every=request.every, since=request.since, until=request.until, source=source)
        result = _replay(context, request, windowed, target, _first(windowed, request))
        with context.transaction() as transaction:
            write_backtest(transaction, result, at=context.now())
        return result


def _rows(context: Context) -> tuple[TrainingSet, str, str]:
    """All labelled rows with their features, the target and the source; without reviewed rows, which are no sample."""
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


def _first(windowed: WindowedRows, request: BacktestRequest) -> int:
    """Windows of the first training, with enough left to evaluate."""
    count = len(windowed.history.inputs)
    first = request.first or max(2, count // _FIRST)
    needed = first + windowed.delay + _LEARN + _JUDGED
    if count < needed:
        late = f", labels come {windowed.delay} window{'s' * (windowed.delay != 1)} late" if windowed.delay else ""
        raise DataError(
            f"{count} windows of {show_duration(windowed.every)} are too few: {first} train the first model{late}, "
            f"{_LEARN} more show how good it is, and {_JUDGED} at least must be left",
            subject="history",
            hint="give a shorter --every, a smaller --first or a longer history",
        )
    return first


def _replay(
    context: Context, request: BacktestRequest, windowed: WindowedRows, target: str, first: int
) -> BacktestResult:
    project = context.project
    spec, policy = project.training(), project.policies.monitoring
    learner = _learner(context)
    fits = Fits(cut=windowed, spec=spec, learner=learner, root=project.root)
    drifts = Drifts(rows=windowed.rows, policy=policy.drift, every=windowed.every)
    own = declared_history(policy.history) if request.memory is None else parse_history(request.memory)

    def replay(policies: Mapping[str, RetrainPolicy], history: TrainingHistory, label: str) -> tuple[Replay, ...]:
        return backtest(
            windowed.history,
            fits.plain,
            policies,
            _terms(windowed, history, first, request),
            weighted=fits.weighted,
            drifts=drifts,
            progress=lambda text, share=None: context.progress(f"{label}{text}", share),
        )

    policies = _policies(policy.retrain, windowed, first)
    rules = _policy_results(replay(policies, own, ""), windowed)
    kinds = select_histories(request.history, own, first=first * windowed.every, whole=windowed.end - windowed.start)
    main = {rules[0].rule: policies[rules[0].rule]}
    tried = [(kind, replay(main, kind, f"{kind.name}: ")[0]) for kind in kinds]
    histories = _history_results(tried, windowed)
    assert windowed.rows.at is not None
    return BacktestResult(
        run=context.run,
        target=target,
        task=windowed.rows.task,
        loss=_loss(windowed),
        trainer=learner.trainer,
        parameters_of=learner.of,
        history=own.name,
        rows=sum(len(truth) for truth in windowed.history.truths),
        start=windowed.start,
        end=windowed.end,
        every=show_duration(windowed.every),
        windows=len(windowed.history.inputs),
        first=first,
        delay=windowed.delay,
        rules=rules,
        histories=histories,
        sentences=write_conclusion(rules, histories),
        notes=_notes(windowed, policy.retrain),
    )


def _learner(context: Context) -> Learner:
    project, number = context.project, champion_version(context)
    if number is None:
        return learner_of(project.training(), None, None)
    version = project.registry().resolve(f"{project.name}/{number}")
    return learner_of(project.training(), find_record(project, version), version.uri)


def _loss(windowed: WindowedRows) -> Loss:
    return "squared_error" if windowed.rows.task == "regression" else "brier"


def _terms(windowed: WindowedRows, history: TrainingHistory, first: int, request: BacktestRequest) -> ReplayPolicy:
    return ReplayPolicy(
        start=windowed.start,
        every=windowed.every,
        task="regression" if windowed.rows.task == "regression" else "binary",
        first=first,
        memory=history.windows(windowed.every),
        half_life=history.half_life,
        learn=_LEARN,
        refit_memory=first,
        delay=windowed.delay,
        harm=HarmPolicy(loss=_loss(windowed)),
        estimate=request.estimate,
    )


def _policies(own: RetrainPolicy, windowed: WindowedRows, first: int) -> dict[str, RetrainPolicy]:
    """The project's or the default policy, and schedules to compare it with, as far as they come due."""
    judged = (len(windowed.history.inputs) - first - windowed.delay) * windowed.every
    default = RetrainPolicy()
    free = {"cool_down": timedelta(0), "least_labels": 0, "at_most": None}
    schedules = {
        name: RetrainPolicy(on_harm=False, every=span, **free)  # type: ignore[arg-type]
        for name, span in _SCHEDULES.items()
        if windowed.every < span <= judged
    }
    return {
        **({OWN: own} if own != default and not _by_hand(own) else {}),
        DEFAULT: default,
        "never": RetrainPolicy(on_harm=False),
        **schedules,
        "at every alarm": RetrainPolicy(on_drift=True, **free),  # type: ignore[arg-type]
    }


def _by_hand(terms: RetrainPolicy) -> bool:
    return not terms.on_harm and terms.every is None and terms.labels is None


def _policy_results(replays: Sequence[Replay], windowed: WindowedRows) -> tuple[PolicyResult, ...]:
    main, rows = replays[0], [len(truth) for truth in windowed.history.truths[-replays[0].looks :]]
    return tuple(
        PolicyResult(
            rule=replay.policy,
            loss=replay.loss,
            difference=None if replay is main else difference(replay.losses, main.losses, rows),
            trainings=replay.trainings,
            alarms=replay.alarms,
            waits=replay.waits,
            looks=replay.looks,
            losses=replay.losses,
            better=replay is not main and beats(replay, main),
        )
        for replay in replays
    )


def _history_results(
    tried: Sequence[tuple[TrainingHistory, Replay]], windowed: WindowedRows
) -> tuple[HistoryResult, ...]:
    if not tried:
        return ()
    own = tried[0][1]
    rows = [len(truth) for truth in windowed.history.truths[-own.looks :]]
    best = best_of([replay for _, replay in tried])
    return tuple(
        HistoryResult(
            history=kind.name,
            setting=kind.setting,
            loss=replay.loss,
            difference=None if replay is own else difference(replay.losses, own.losses, rows),
            trainings=replay.trainings,
            best=place == best,
        )
        for place, (kind, replay) in enumerate(tried)
    )


def _notes(windowed: WindowedRows, retrain: RetrainPolicy) -> tuple[str, ...]:
    """What a reader should know to trust the figures."""
    notes = []
    most = max(len(truth) for truth in windowed.history.truths)
    if most * len(windowed.history.truths) > MOST_ROWS:
        notes.append(f"a training of more than {MOST_ROWS:,} rows takes as many of them at random")
    if windowed.rows.unlabelled:
        notes.append(f"{windowed.rows.unlabelled:,} rows have no label and are left out")
    if _by_hand(retrain):
        notes.append("the project trains by hand only (`monitoring.retrain.when: never`): the default rule is shown")
    empty = sum(not len(truth) for truth in windowed.history.truths)
    if empty:
        notes.append(f"{empty} windows have no row with a label")
    assert windowed.rows.at is not None
    last = from_micros(int(windowed.rows.at.max()))
    if last >= windowed.end:
        notes.append(f"the rows after the last whole window, up to {last:%Y-%m-%d %H:%M}, are left out")
    return tuple(notes)
