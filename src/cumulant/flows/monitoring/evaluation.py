"""One evaluation of a served model: harm, changed outcomes, and the retraining decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import polars as pl

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import ContractBreachError, DataError
from cumulant.core.progress import Progress, silent
from cumulant.data.parts.spill import Spill, spill_in
from cumulant.flows.data.memory_budget import SPILL
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.monitoring.estimates import Estimates, LossEstimate, estimates_of
from cumulant.flows.monitoring.late_labels import LabelledWindows, LateRows, count_late, counted_from
from cumulant.flows.monitoring.outcome_shift import BEFORE, RECENT, outcome_shift
from cumulant.flows.monitoring.reference import ServedReference, served_reference
from cumulant.flows.monitoring.refits import refits_of
from cumulant.flows.monitoring.result import SPAN, EvaluationResult, audit_of, distrust, enough, window_record
from cumulant.flows.monitoring.retrain_decision import Tell, decide_retraining, write_evaluation
from cumulant.flows.monitoring.scored_rows import ScoredRows
from cumulant.flows.monitoring.served_log import (
    REF,
    ServedModel,
    floored,
    label_delay,
    model_of,
    scored,
    test_predictions,
    tested_rows,
)
from cumulant.flows.monitoring.state import MonitoringState, WindowRecord, plain, read_replaced, read_state
from cumulant.flows.monitoring.window_losses import add_references, evaluate_window, no_scores
from cumulant.flows.outcomes.label_schema import schema_of
from cumulant.flows.outcomes.labels import join_labels
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.registry.models import servable_folder
from cumulant.monitoring.performance.baselines import baseline, harm_terms
from cumulant.monitoring.performance.blocks import loss_of
from cumulant.monitoring.performance.rows import PredictionRows, PredictionWindow, is_ripe
from cumulant.monitoring.performance.unlabelled import EstimatedFigure
from cumulant.monitoring.performance.watch import Harm, LossMonitor, begin
from cumulant.monitoring.retrain_rule import RetrainEvidence, RetrainState
from cumulant.monitoring.tables import MOMENT

if TYPE_CHECKING:
    from cumulant.flows.monitoring.monitor import MonitorResult
    from cumulant.monitoring.drift.findings import DriftFinding
    from cumulant.monitoring.policy import PerformancePolicy
    from cumulant.outcomes.join.prediction_losses import Loss
    from cumulant.outcomes.labels.label_rows import LabelSchema
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.statistics.performance.audit import Audit

#: windows whose figures are kept
_KEPT = 400


def evaluate_served(
    project: Project,
    drifted: MonitorResult | None,
    *,
    principal: Principal,
    tell: Tell,
    at: datetime | None = None,
    progress: Progress = silent,
    clock: Clock | None = None,
) -> EvaluationResult:
    """Ingest labels, evaluate the windows whose labels are due by `at` (now), and apply the retraining policy.

    The decision is stored with all that was counted, in one transaction; `retraining.continue_retraining` carries it
    out. `drifted` is the newest drift result; `tell` makes alerts of this evaluation, in the same transaction. Where
    nothing is new nothing is written.

    Raises:
        UsageError, NotFoundError: as `served_reference`.
        LeaseHeldError: another process has looked meanwhile.
        StorageError: the log or a label cannot be read.
    """
    served = served_reference(project, principal=principal, progress=progress)
    schema = schema_of(project, servable_folder(project, served.version))
    join_labels(project, principal=principal, schema=schema)
    with (
        open_run(
            project,
            "monitor",
            action="monitor.run",
            principal=principal,
            progress=progress,
            clock=clock or SystemClock(),
            quiet=True,
        ) as context,
        spill_in(project.state / SPILL) as spill,
    ):
        return _Evaluation(context, served, schema, at or context.now(), drifted, tell, spill).judged()


class _ClosedWindow(NamedTuple):
    """A window that has ended, as it is kept where it is not judged; `due`: its labels had their time, and came."""

    passed: WindowRecord
    due: bool


@dataclass(frozen=True, eq=False)
class _Evaluation:
    context: Context
    served: ServedReference
    schema: LabelSchema
    at: datetime
    drifted: MonitorResult | None
    tell: Tell
    spill: Spill

    @property
    def _project(self) -> Project:
        return self.context.project

    @cached_property
    def _policy(self) -> PerformancePolicy:
        return self._project.policies.monitoring.performance

    @cached_property
    def _window(self) -> timedelta:
        return self._policy.window

    @cached_property
    def _model(self) -> ServedModel:
        return model_of(self._project, self.served)

    @cached_property
    def _test(self) -> pl.DataFrame:
        return tested_rows(self.served)

    @cached_property
    def _reference(self) -> PredictionRows:
        return test_predictions(self._test, self.served.truth, self._model, self._window)

    @cached_property
    def _since(self) -> datetime:
        return floored(self.at - max(RECENT + BEFORE, self._policy.look_back), self._window)

    @cached_property
    def _rows(self) -> ScoredRows:
        """Of all versions, as far back as a change of outcomes is looked for."""
        return scored(
            self._project,
            self.schema,
            self._model,
            since=self._since,
            at=self.at,
            window=self._window,
            spill=self.spill,
        )

    def _own(
        self, group: Iterable[tuple[PredictionWindow, pl.DataFrame]]
    ) -> Iterator[tuple[PredictionWindow, pl.DataFrame]]:
        """The windows' rows of the served version; of several classes only what told their probabilities."""
        for window, rows in group:
            part = rows.filter((pl.col("version") == self.served.version.version) & pl.col("score").is_not_null())
            if part.height:
                yield window, part

    @cached_property
    def _delay(self) -> timedelta:
        if self._policy.label_delay is not None:
            return self._policy.label_delay
        return label_delay(self._project, self.served, self._model)

    def judged(self) -> EvaluationResult:
        """The look, with what it has to remember written down."""
        fault = self._fault()
        stored, expect = read_state(self._project.journal(), self._project.name)
        standing = (
            stored if stored is not None and stored.version == self.served.version.version else self._begun(stored)
        )
        notes = self._without_scores()
        watch, harms = self._watch(standing, notes), list[Harm]()
        passed, labels, until = list(standing.windows), 0, standing.until
        estimates = self._estimates()
        closed = self._closed(standing.until, estimates, notes)
        fresh = max((number for number, record in enumerate(closed, 1) if record.due), default=0)
        for after_window, window_harm, record in self._judged(watch, standing, closed[:fresh]):
            watch = after_window
            harms += [] if window_harm is None else [window_harm]
            passed.append(record)
            labels, until = labels + record.labelled, record.end
        passed += [record.passed for record in closed[fresh:]]
        ripe = tuple(record for record in passed if record.end <= until)
        last = harms[-1] if harms else standing.shown
        after = MonitoringState(
            version=standing.version,
            since=standing.since,
            until=until,
            retrain=standing.retrain,
            harm=None if watch is None else watch.to_json(),
            last_harm=plain(last),
            windows=ripe[-_KEPT:],
            labels=standing.labels + labels,
        )
        audit = audit_of(passed, self._reference_loss)
        newest = self._estimate(estimates, last, audit, notes)
        estimate = newest.figure
        evidence = self._evidence(after, last, estimate, fault)
        state, action = decide_retraining(
            self._project, after, evidence, fresh=bool(harms), waited=standing.looked.get("action") == "wait"
        )
        result = EvaluationResult(
            model=self._project.name,
            version=standing.version,
            at=self.at,
            until=until,
            fresh=fresh,
            windows=tuple(passed),
            harm=last,
            estimate=estimate,
            reference_loss=self._reference_loss,
            audit=audit,
            outcomes=self._outcomes(until),
            fault=fault,
            action=action,
            notes=tuple(dict.fromkeys(notes)),
            late=self._late(standing),
            estimates=dict(newest.figures),
            estimate_refused=newest.refused,
        )
        after = msgspec.structs.replace(after, retrain=state)
        write_evaluation(self.context, stored, after, result, expect=expect, tell=self.tell)
        return result

    # --- what the windows say

    def _begun(self, before: MonitoringState | None) -> MonitoringState:
        """The watch over another version than was watched last. Trainings before it count for the rule's budget.

        One that served before, and comes back, is watched on from where it was: its windows have been judged.
        """
        trainings = () if before is None else before.retrain.trainings
        replaced, _ = read_replaced(self._project.journal(), self._project.name, self.served.version.version)
        if replaced is not None:
            return msgspec.structs.replace(
                replaced, retrain=msgspec.structs.replace(replaced.retrain, trainings=trainings)
            )
        first = next((part[MOMENT].min() for _, part in self._own(self._rows.windows())), self.at)
        assert isinstance(first, datetime)
        start = floored(first, self._window)
        record = find_record(self._project, self.served.version)
        trained = self.at if record is None else record.as_of or record.created
        return MonitoringState(
            version=self.served.version.version,
            since=start,
            until=start,
            retrain=RetrainState(trained=trained, trainings=trainings),
        )

    def _without_scores(self) -> list[str]:
        """A note of answers that cannot be held against anything, where there are some."""
        if not self._model.several:
            return []
        answered = lacking = 0
        for _, rows in self._rows.windows():
            scores = rows.filter(pl.col("version") == self.served.version.version)["score"]
            answered, lacking = answered + len(scores), lacking + scores.null_count()
        if not lacking:
            return []
        fact = f"{lacking:,} of {answered:,} answers do not tell the probability of each class and are left out"
        return [f"{fact}: `labels import-predictions` takes them as `probabilities`"]

    @property
    def _loss(self) -> Loss:
        return "squared_error" if self._model.task == "regression" else "brier"

    @property
    def _reference_loss(self) -> float | None:
        if not len(self._reference):
            return None
        return float(loss_of(self._loss, self._reference.truth, self._reference.score).mean())

    def _watch(self, standing: MonitoringState, notes: list[str]) -> LossMonitor | None:
        if standing.harm is not None:
            return LossMonitor.from_json(standing.harm)
        policy = self._policy
        horizon = max(1, policy.look_back // self._window)
        terms = harm_terms(
            policy,
            loss=self._loss,
            horizon=horizon,
            recent=min(horizon, max(5, horizon // 4)),
            refit=policy.refit is not None,
            calibration=not self._model.several,
        )
        try:
            return begin(baseline(self._reference, task=self._model.task, terms=terms, every=self._window), terms)
        except DataError as error:
            notes.append(f"loss is not watched: {error.message}")
            return None

    def _closed(self, until: datetime, estimates: Estimates, notes: list[str]) -> list[_ClosedWindow]:
        """Windows that have ended and were not judged yet, with what their scores say of themselves.

        Those are judged now up to the newest whose labels have had their time and have come. One that lacks labels
        waits for them, until a later one has its own: then they will not come any more.
        """
        if estimates.refused is not None:
            notes.append(f"loss is not estimated: {estimates.refused}")
        closed, labelled = [], LabelledWindows()
        for window, part in self._ended(until, estimates):
            figure = self._said(estimates, part, notes)
            ripe = is_ripe(window, now=self.at, label_delay=self._delay)
            if ripe:
                labelled.add(part)
            closed.append(_ClosedWindow(window_record(window, part, figure), due=ripe and enough(part)))
        notes += labelled.notes()
        return closed

    def _ended(self, until: datetime, estimates: Estimates) -> Iterator[tuple[PredictionWindow, pl.DataFrame]]:
        """Windows that have ended, of the served version's rows from `until` on."""
        begin = until if estimates.read is None else min(until, self.at - SPAN * self._window)
        for group in self._rows.groups(begin):
            own = list(self._own(group))
            if estimates.read is not None and own:
                estimates.read(pl.concat([part for _, part in own]))
            for window, part in own:
                fresh = part.filter(pl.col(MOMENT) >= until)
                if window.end <= self.at and fresh.height:
                    yield window, fresh

    def _judged(
        self, watch: LossMonitor | None, standing: MonitoringState, due: Sequence[_ClosedWindow]
    ) -> Iterator[tuple[LossMonitor | None, Harm | None, WindowRecord]]:
        """After each window that is due: the watch, what was found and what is kept of it."""
        refit = watch is not None and watch.terms.refit
        refits = cache(
            partial(refits_of, self.context, self.served.version, standing.since, classes=self._model.classes)
        )
        estimated = iter(due)
        for group in self._rows.groups(standing.until, due[-1].passed.end) if due else ():
            parts, scores = list(self._own(group)), no_scores
            if refit and parts:
                parts = add_references(self._project, self._model, parts)
                refs = pl.concat([part[REF].drop_nulls() for _, part in parts])
                if len(refs) and (refit_scores := refits()) is not None:
                    scores = partial(refit_scores.scores, places=refit_scores.places(refs))
            for window, part in parts:
                watch, window_harm, record = evaluate_window(
                    watch, window, part, scores, length=self._window, loss=self._loss
                )
                before = next(estimated).passed
                record = msgspec.structs.replace(record, estimated=before.estimated, low=before.low, high=before.high)
                yield watch, window_harm, record

    # --- what the scores say of themselves

    def _estimates(self) -> Estimates:
        """What may be asked of windows that are not judged yet, and of the newest ones."""
        return estimates_of(self._project, self.served, self._model, self._test, window=self._window)

    def _said(self, estimates: Estimates, part: pl.DataFrame, notes: list[str]) -> EstimatedFigure | None:
        if estimates.refused is not None:
            return None
        estimate = estimates.of(part, None)
        notes += [] if estimate.refused is None else [f"a window's loss is not estimated: {estimate.refused}"]
        return estimate.figure

    def _estimate(self, estimates: Estimates, last: Harm | None, audit: Audit | None, notes: list[str]) -> LossEstimate:
        """Of the newest windows together, unless labels have shown that scores or estimates do not go with truth."""
        newest = self._own(self._rows.windows(self.at - SPAN * self._window))
        recent = [part for _, part in newest] if estimates.refused is None else []
        if not recent:
            return LossEstimate(None, estimates.refused)
        why = distrust(self._model.several, last, audit)
        kind = None if last is None else last.kind
        estimate = estimates.of(pl.concat(recent), kind) if why is None else LossEstimate(None, why)
        notes += (
            [] if estimate.refused is None else [f"the loss of the newest windows is not estimated: {estimate.refused}"]
        )
        return estimate

    def _outcomes(self, until: datetime) -> tuple[DriftFinding, ...]:
        if self._model.task == "regression":
            return ()
        ripe = min(self.at - self._delay, max(until, self.at - RECENT))
        policy = self._project.policies.monitoring.drift
        names = [str(label) for label in self._model.classes] if self._model.several else ["0", "1"]
        parts = (rows for _, rows in self._rows.windows(ripe - RECENT - BEFORE, ripe))
        return outcome_shift(parts, policy, self.spill, until=ripe, names=names)

    def _late(self, standing: MonitoringState) -> LateRows:
        since = counted_from(standing.windows, _KEPT, self._since)
        parts = (part for _, part in self._own(self._rows.windows(since, standing.until)))
        return count_late(parts, standing.windows, self._window, since=since, until=standing.until)

    # --- what the rule says

    def _fault(self) -> str | None:
        """Why the newest data may not be learned from; None where they passed."""
        try:
            snapshots_of(self.context)
        except (ContractBreachError, DataError) as error:
            return error.message
        return None

    def _evidence(
        self, standing: MonitoringState, last: Harm | None, estimate: EstimatedFigure | None, fault: str | None
    ) -> RetrainEvidence:
        active = () if self.drifted is None else self.drifted.drift.active
        # A new value of a name, such as a new customer, is no reason to distrust the rows; a column that is lost is.
        lost = any(finding.kind == "data_fault" and finding.what != "unseen" for finding in active)
        words = {} if last is None else {finding.question: finding.word for finding in last.findings}
        return RetrainEvidence(
            now=self.at,
            new_labels=standing.labels,
            fault=fault,
            drift=any(finding.kind != "data_fault" for finding in active),
            kind="data_fault" if lost else None if last is None else last.kind,
            measured=None if last is None else last.word,
            refit=words.get("refit"),
            estimated=None if estimate is None else estimate.word,
        )
