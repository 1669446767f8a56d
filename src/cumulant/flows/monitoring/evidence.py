"""The evidence of one evaluation: everything that it depends on is read here, in this order, as typed values.

Rows are read a group of windows at a time and set aside, so that memory does not grow with the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import polars as pl

from cumulant.core.errors import ContractBreachError, DataError
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.monitoring.estimates import Estimates, LossEstimate, estimates_of
from cumulant.flows.monitoring.late_labels import LabelledWindows
from cumulant.flows.monitoring.outcome_shift import BEFORE, RECENT
from cumulant.flows.monitoring.refits import REFIT, refit_scores
from cumulant.flows.monitoring.result import SPAN, has_enough_labels, window_record
from cumulant.flows.monitoring.scored_rows import ScoredRows
from cumulant.flows.monitoring.served_log import (
    ServedModel,
    label_delay,
    model_of,
    read_scored_rows,
    test_predictions,
    tested_rows,
    window_start,
)
from cumulant.flows.monitoring.state import MonitoringState, RetrainRequest, WindowRecord, read_request, read_state
from cumulant.flows.registry.model_record import find_record
from cumulant.monitoring.performance.baselines import harm_policy, learn_baseline
from cumulant.monitoring.performance.loss_monitor import LossMonitor, begin_monitor
from cumulant.monitoring.performance.rows import PredictionRows, PredictionWindow, is_ripe
from cumulant.monitoring.retrain_rule import RetrainState
from cumulant.monitoring.tables import MOMENT

if TYPE_CHECKING:
    from cumulant.data.parts.spill import Spill
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.monitoring.reference import ServedReference
    from cumulant.monitoring.drift.findings import DriftFinding
    from cumulant.outcomes.labels.label_rows import LabelSchema
    from cumulant.project.project import Project


@dataclass(frozen=True, kw_only=True)
class StoredEvaluation:
    """What earlier evaluations stored, each row with its version. `state`: of the version that was evaluated last;
    `replaced`: of the served one, where another one was evaluated since; `request`: the newest retraining request.
    """

    state: tuple[MonitoringState | None, int]
    replaced: MonitoringState | None
    request: tuple[RetrainRequest | None, int]


class ServedRows(NamedTuple):
    """The rows of a version among those of all versions; of several classes those with a probability of each."""

    rows: ScoredRows
    version: str

    def windows(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[tuple[PredictionWindow, pl.DataFrame]]:
        """The windows of [since, until) with such rows, and these rows. Raises StorageError."""
        return self._selected(self.rows.windows(since, until))

    def groups(
        self, since: datetime, until: datetime | None = None
    ) -> Iterator[list[tuple[PredictionWindow, pl.DataFrame]]]:
        """As `ScoredRows.groups`, without groups that have no such row."""
        selected = (list(self._selected(group)) for group in self.rows.groups(since, until))
        return (group for group in selected if group)

    def _selected(
        self, windows: Iterable[tuple[PredictionWindow, pl.DataFrame]]
    ) -> Iterator[tuple[PredictionWindow, pl.DataFrame]]:
        for window, rows in windows:
            own = rows.filter((pl.col("version") == self.version) & pl.col("score").is_not_null())
            if own.height:
                yield window, own


@dataclass(frozen=True, kw_only=True)
class EndedWindow:
    """A window that has ended and was not evaluated yet, with its estimate. `labelled`: it has enough labels to speak
    for all its rows; `ripe`: each label has had its time.
    """

    record: WindowRecord
    labelled: bool
    ripe: bool


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one evaluation of `version` at the moment `at` depends on.

    Args:
        state: where the evaluation continues; `monitor`: its sums, None where there is no reference of the loss.
        drift: active findings of the newest rows. fault: why the newest data failed validation; None: they passed.
        own: rows from `since` on, on disk where they are many. ended: windows, oldest first.
        refit_scores: of `refits.refit_scores`, for windows that are due; None: no refit.
        estimates: reads nothing for the rows of the newest SPAN windows.
        scratch: where rows are set aside.
        notes: what could not be read or learned.
    """

    model: ServedModel
    version: str
    at: datetime
    since: datetime
    label_delay: timedelta
    stored: StoredEvaluation
    state: MonitoringState
    monitor: LossMonitor | None
    reference: PredictionRows
    drift: tuple[DriftFinding, ...]
    fault: str | None
    own: ServedRows
    ended: tuple[EndedWindow, ...]
    refit_scores: ScoredRows | None
    estimates: Estimates
    scratch: Spill
    notes: tuple[str, ...]

    @property
    def due(self) -> tuple[EndedWindow, ...]:
        """The windows that are evaluated now: up to the newest one whose labels have had their time and have come.

        One that lacks labels waits for them, until a later one has its own: then they will not come any more.
        """
        return windows_due(self.ended)


def load_evidence(
    context: Context,
    served: ServedReference,
    schema: LabelSchema,
    drift: tuple[DriftFinding, ...],
    *,
    at: datetime,
    scratch: Spill,
) -> Evidence:
    """Read everything that an evaluation at the moment `at` depends on.

    Raises:
        StorageError: the log or a label cannot be read, or rows cannot be set aside.
    """
    project, version = context.project, served.version.version
    policy, window = project.policies.monitoring.performance, project.policies.monitoring.performance.window
    fault = _data_fault(context)
    stored = _stored(project, version)
    model, test = model_of(served), tested_rows(served)
    reference = test_predictions(test, served.truth, model, window)
    since = window_start(at - max(RECENT + BEFORE, policy.look_back), window)
    own = ServedRows(
        read_scored_rows(project, schema, model, since=since, at=at, window=window, spill=scratch), version
    )
    state = _continued(stored, version) or _first_state(project, served, stored, own, at)
    notes = _without_scores(own, model)
    monitor = _monitor(project, state, reference, model, notes)
    estimates = estimates_of(project, served, model, test, window=window)
    delay = label_delay(project, served, model) if policy.label_delay is None else policy.label_delay
    newest = at - SPAN * window
    ended = _ended_windows(own, estimates, notes, until=state.until, newest=newest, at=at, delay=delay)
    if estimates.read is not None and (parts := [part for _, part in own.windows(newest)]):
        estimates.read(pl.concat(parts))
    due, scores = windows_due(ended), None
    if due and monitor is not None and monitor.policy.refit:
        groups = _labelled_groups(own, due, state.until)
        scores = ScoredRows(scratch, REFIT, window, since=state.until, until=due[-1].record.end)
        for frame in refit_scores(context, served.version, model, state.since, groups):
            scores.add(0, frame)
    return Evidence(
        model=model,
        version=version,
        at=at,
        since=since,
        label_delay=delay,
        stored=stored,
        state=state,
        monitor=monitor,
        reference=reference,
        drift=drift,
        fault=fault,
        own=own,
        ended=ended,
        refit_scores=scores,
        estimates=estimates,
        scratch=scratch,
        notes=tuple(notes),
    )


def windows_due(ended: Sequence[EndedWindow]) -> tuple[EndedWindow, ...]:
    """As `Evidence.due`."""
    count = max((number for number, window in enumerate(ended, 1) if window.ripe and window.labelled), default=0)
    return tuple(ended[:count])


def _data_fault(context: Context) -> str | None:
    try:
        snapshots_of(context)
    except (ContractBreachError, DataError) as error:
        return error.message
    return None


def _stored(project: Project, version: str) -> StoredEvaluation:
    journal, name = project.journal(), project.name
    return StoredEvaluation(
        state=read_state(journal, name),
        replaced=read_state(journal, f"{name}/{version}")[0],
        request=read_request(journal, name),
    )


def _continued(stored: StoredEvaluation, version: str) -> MonitoringState | None:
    """The state of a version that was evaluated before. Trainings while another one served count for the budget."""
    last, replaced = stored.state[0], stored.replaced
    if last is not None and last.version == version:
        return last
    if last is None or replaced is None:
        return replaced
    retrain = msgspec.structs.replace(replaced.retrain, trainings=last.retrain.trainings)
    return msgspec.structs.replace(replaced, retrain=retrain)


def _first_state(
    project: Project, served: ServedReference, stored: StoredEvaluation, own: ServedRows, at: datetime
) -> MonitoringState:
    """The state of a version that was never evaluated: it begins with the window of its first row."""
    version, last = served.version.version, stored.state[0]
    first = next((part[MOMENT].min() for _, part in own.windows()), at)
    assert isinstance(first, datetime)
    start = window_start(first, project.policies.monitoring.performance.window)
    record = find_record(project, served.version)
    trained = at if record is None else record.as_of or record.created
    trainings = () if last is None else last.retrain.trainings
    retrain = RetrainState(trained=trained, trainings=trainings)
    return MonitoringState(version=version, since=start, until=start, retrain=retrain)


def _without_scores(own: ServedRows, model: ServedModel) -> list[str]:
    """A note of answers without the probability of each class, where there are some."""
    if not model.several:
        return []
    answered = lacking = 0
    for _, part in own.rows.windows():
        scores = part.filter(pl.col("version") == own.version)["score"]
        answered, lacking = answered + len(scores), lacking + scores.null_count()
    if not lacking:
        return []
    fact = f"{lacking:,} of {answered:,} answers lack the probability of each class and are left out"
    return [f"{fact}: `labels import-predictions` takes them as `probabilities`"]


def _monitor(
    project: Project, state: MonitoringState, reference: PredictionRows, model: ServedModel, notes: list[str]
) -> LossMonitor | None:
    if state.harm is not None:
        return LossMonitor.from_json(state.harm)
    policy = project.policies.monitoring.performance
    horizon = max(1, policy.look_back // policy.window)
    terms = harm_policy(
        policy,
        loss=model.loss,
        horizon=horizon,
        recent=min(horizon, max(5, horizon // 4)),
        refit=policy.refit is not None,
        calibration=not model.several,
    )
    try:
        before = learn_baseline(reference, task=model.task, policy=terms, every=policy.window)
        return begin_monitor(before, terms, alpha=policy.false_alarms)
    except DataError as error:
        notes.append(f"loss is not watched: {error.message}")
        return None


def _ended_windows(
    own: ServedRows,
    estimates: Estimates,
    notes: list[str],
    *,
    until: datetime,
    newest: datetime,
    at: datetime,
    delay: timedelta,
) -> tuple[EndedWindow, ...]:
    """The windows from `until` on that have ended, with what their scores say of their loss.

    Where estimates need the requests of rows, the log is read once a group, those `newest` rows included.
    """
    if estimates.refused is not None:
        notes.append(f"loss is not estimated: {estimates.refused}")
    ended, ripe_windows = [], LabelledWindows()
    for group in own.groups(until if estimates.read is None else min(until, newest)):
        if estimates.read is not None:
            estimates.read(pl.concat([rows for _, rows in group]))
        for window, rows in group:
            part = rows.filter(pl.col(MOMENT) >= until)
            if window.end > at or not part.height:
                continue
            estimate = estimates.of(part, None) if estimates.refused is None else LossEstimate(None, None)
            if estimate.refused is not None:
                notes.append(f"a window's loss is not estimated: {estimate.refused}")
            ripe = is_ripe(window, now=at, label_delay=delay)
            if ripe:
                ripe_windows.add(part)
            record = window_record(window, part, estimate.figure)
            ended.append(EndedWindow(record=record, labelled=has_enough_labels(part), ripe=ripe))
    notes += ripe_windows.notes()
    return tuple(ended)


def _labelled_groups(
    own: ServedRows, due: Sequence[EndedWindow], since: datetime
) -> Iterator[list[tuple[PredictionWindow, pl.DataFrame]]]:
    """Of the windows that are due and have enough labels the rows with a label, short windows together."""
    starts = {window.record.start for window in due if window.labelled}
    for group in own.groups(since, due[-1].record.end):
        yield [(window, rows.filter(pl.col("value").is_not_null())) for window, rows in group if window.start in starts]
