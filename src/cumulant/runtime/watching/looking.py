"""One look at a served model: does it lose more than it should, has the world moved, and should it be trained again?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import ContractBreachError, DataError
from cumulant.core.progress import Progress, silent
from cumulant.core.units import duration
from cumulant.monitoring.performance import (
    EstimatedFigure,
    Harm,
    Predictions,
    Watch,
    Window,
    baseline,
    begin,
    harm,
    harm_terms,
    is_ripe,
    windows,
)
from cumulant.monitoring.performance.blocks import loss_of
from cumulant.monitoring.policy import Evidence, RetrainState
from cumulant.monitoring.tables import MOMENT
from cumulant.outcomes.scored import IDENTITY
from cumulant.runtime.candidate import find_record
from cumulant.runtime.context import Context, open_run
from cumulant.runtime.labels import join_labels, schema_of
from cumulant.runtime.models import servable_folder
from cumulant.runtime.validate import snapshots_of
from cumulant.runtime.watching.estimates import Estimates, Said, estimates_of
from cumulant.runtime.watching.judged import SPAN, Judged, audit_of, distrust, enough, passed_of, with_estimate
from cumulant.runtime.watching.late import Late, counted_from, late, selection_notes
from cumulant.runtime.watching.outcome_shift import BEFORE, RECENT, outcome_shift
from cumulant.runtime.watching.reference import Served, served_reference
from cumulant.runtime.watching.refits import Refits, refits_of
from cumulant.runtime.watching.ruling import Tell, decided, remember
from cumulant.runtime.watching.served import (
    REF,
    Model,
    floored,
    label_delay,
    model_of,
    predictions,
    refs,
    scored,
    tested,
    tested_rows,
)
from cumulant.runtime.watching.standing import (
    Passed,
    Standing,
    plain,
    read_left,
    read_standing,
)

if TYPE_CHECKING:
    from cumulant.monitoring import drift
    from cumulant.monitoring.spec import PerformanceSpec
    from cumulant.outcomes import LabelSchema, Loss
    from cumulant.ports.access import Principal
    from cumulant.project import Project
    from cumulant.runtime.monitor import Monitored
    from cumulant.statistics.performance import Audit

#: windows whose figures are kept
_KEPT = 400


def judge_served(
    project: Project,
    drifted: Monitored | None,
    *,
    principal: Principal,
    tell: Tell,
    at: datetime | None = None,
    progress: Progress = silent,
    clock: Clock | None = None,
) -> Judged:
    """Take in labels, judge the windows whose labels are due by `at` (now), and ask the rule of retraining.

    What the rule wants is noted with all that was counted, in one transaction; `retraining.go_on` does it. `drifted` is
    what the newest look at the rows found; `tell` makes alerts of what this one does, in the same transaction. Where
    nothing is new nothing is written.

    Raises:
        UsageError, NotFoundError: as `served_reference`.
        LeaseHeldError: another process has looked meanwhile.
        StorageError: the log or a label cannot be read.
    """
    served = served_reference(project, principal=principal, progress=progress)
    schema = schema_of(project, servable_folder(project, served.version))
    join_labels(project, principal=principal, schema=schema)
    with open_run(
        project, "monitor", action="monitor.run", principal=principal, progress=progress, clock=clock or SystemClock(),
        quiet=True,
    ) as context:  # fmt: skip
        return _Look(context, served, schema, at or context.now(), drifted, tell).judged()


@dataclass(frozen=True, eq=False)
class _Look:
    context: Context
    served: Served
    schema: LabelSchema
    at: datetime
    drifted: Monitored | None
    tell: Tell

    @property
    def _project(self) -> Project:
        return self.context.project

    @cached_property
    def _spec(self) -> PerformanceSpec:
        return self._project.spec.monitoring.performance

    @cached_property
    def _window(self) -> timedelta:
        return duration(self._spec.window)

    @cached_property
    def _model(self) -> Model:
        return model_of(self._project, self.served)

    @cached_property
    def _test(self) -> pl.DataFrame:
        return tested_rows(self.served)

    @cached_property
    def _reference(self) -> Predictions:
        return tested(self._test, self.served.truth, self._model, self._window)

    @cached_property
    def _since(self) -> datetime:
        return floored(self.at - max(RECENT + BEFORE, duration(self._spec.look_back)), self._window)

    @cached_property
    def _rows(self) -> pl.DataFrame:
        """Of all versions, as far back as a change of outcomes is looked for."""
        return scored(self._project, self.schema, self._model, since=self._since, at=self.at)

    @cached_property
    def _own(self) -> pl.DataFrame:
        """Those of the served version; of several classes only what told their probabilities."""
        return self._rows.filter((pl.col("version") == self.served.version.version) & pl.col("score").is_not_null())

    @cached_property
    def _delay(self) -> timedelta:
        if self._spec.label_delay is not None:
            return duration(self._spec.label_delay)
        return label_delay(self._project, self.served, self._model)

    def judged(self) -> Judged:
        """The look, with what it has to remember written down."""
        fault = self._fault()
        held, expect = read_standing(self._project.journal(), self._project.name)
        standing = held if held is not None and held.version == self.served.version.version else self._begun(held)
        notes = self._without_scores()
        watch, told = self._watch(standing, notes), list[Harm]()
        passed, labels, until = list(standing.windows), 0, standing.until
        closed = self._closed(standing.until)
        estimates = self._estimates(standing.until)
        said = self._said(estimates, [part for _, part in closed], notes)
        refits = None
        fresh = self._due(closed)
        due, later = closed[:fresh], closed[fresh:]
        notes += selection_notes(
            [part for window, part in closed if is_ripe(window, now=self.at, label_delay=self._delay)]
        )
        if watch is not None and watch.terms.refit:
            due = self._named(due)
            refits = self._refits(standing, due)
        for (window, part), figure in zip(due, said[:fresh], strict=True):
            watch, found, one = self._judge(watch, window, part, refits)
            told += [] if found is None else [found]
            passed.append(with_estimate(one, figure))
            labels, until = labels + one.labelled, window.end
        passed += [passed_of(window, part, figure) for (window, part), figure in zip(later, said[fresh:], strict=True)]
        ripe = tuple(one for one in passed if one.end <= until)
        last = told[-1] if told else standing.shown
        after = Standing(
            version=standing.version, since=standing.since, until=until, retrain=standing.retrain,
            harm=None if watch is None else watch.to_json(), told=plain(last), windows=ripe[-_KEPT:],
            labels=standing.labels + labels,
        )  # fmt: skip
        audit = audit_of(passed, self._reference_loss)
        newest = self._estimate(estimates, last, audit, notes)
        estimate = newest.figure
        evidence = self._evidence(after, last, estimate, fault)
        state, action = decided(
            self._project, after, evidence, fresh=bool(told), waited=standing.looked.get("action") == "wait"
        )
        result = Judged(
            model=self._project.name, version=standing.version, at=self.at, until=until, fresh=fresh,
            windows=tuple(passed), harm=last, estimate=estimate,
            reference_loss=self._reference_loss, audit=audit,
            outcomes=self._outcomes(until), fault=fault, action=action, notes=tuple(dict.fromkeys(notes)),
            late=self._late(standing), estimates=dict(newest.figures), estimate_refused=newest.refused,
        )  # fmt: skip
        after = msgspec.structs.replace(after, retrain=state)
        remember(self.context, held, after, result, expect=expect, tell=self.tell)
        return result

    # --- what the windows say

    def _begun(self, before: Standing | None) -> Standing:
        """The watch over another version than was watched last. Trainings before it count for the rule's budget.

        One that served before, and comes back, is watched on from where it was: its windows have been judged.
        """
        kept = () if before is None else before.retrain.trainings
        left, _ = read_left(self._project.journal(), self._project.name, self.served.version.version)
        if left is not None:
            return msgspec.structs.replace(left, retrain=msgspec.structs.replace(left.retrain, trainings=kept))
        moments = self._own[MOMENT]
        first = moments.min() if len(moments) else self.at
        assert isinstance(first, datetime)
        start = floored(first, self._window)
        record = find_record(self._project, self.served.version)
        trained = self.at if record is None else record.as_of or record.created
        return Standing(
            version=self.served.version.version, since=start, until=start,
            retrain=RetrainState(trained=trained, trainings=kept),
        )  # fmt: skip

    def _without_scores(self) -> list[str]:
        """A note of answers that cannot be held against anything, where there are some."""
        answered = self._rows.filter(pl.col("version") == self.served.version.version)
        lacking = answered.height - self._own.height
        if not lacking:
            return []
        said = f"{lacking:,} of {answered.height:,} answers do not tell the probability of each class and are left out"
        return [f"{said}: `labels import-predictions` takes them as `probabilities`"]

    @property
    def _loss(self) -> Loss:
        return "squared_error" if self._model.task == "regression" else "brier"

    @property
    def _reference_loss(self) -> float | None:
        if not len(self._reference):
            return None
        return float(loss_of(self._loss, self._reference.truth, self._reference.score).mean())

    def _watch(self, standing: Standing, notes: list[str]) -> Watch | None:
        if standing.harm is not None:
            return Watch.from_json(standing.harm)
        spec = self._spec
        horizon = max(1, duration(spec.look_back) // self._window)
        terms = harm_terms(
            spec, loss=self._loss, horizon=horizon, recent=min(horizon, max(5, horizon // 4)),
            refit=spec.refit is not None, calibration=not self._model.several,
        )  # fmt: skip
        try:
            return begin(baseline(self._reference, task=self._model.task, terms=terms, every=self._window), terms)
        except DataError as error:
            notes.append(f"loss is not watched: {error.message}")
            return None

    def _closed(self, until: datetime) -> list[tuple[Window, pl.DataFrame]]:
        """Windows that have ended and were not judged yet, with their rows."""
        rows = self._own.filter(pl.col(MOMENT) >= until)
        if not rows.height:
            return []
        held = predictions(rows, self._window)
        found = []
        for window, _ in windows(held, self._window):
            if window.end <= self.at:
                found.append((window, rows.filter(pl.col(MOMENT).is_between(window.start, window.end, closed="left"))))
        return found

    def _due(self, closed: Sequence[tuple[Window, pl.DataFrame]]) -> int:
        """How many of the windows are judged now: up to the newest whose labels have had their time and have come.

        One that lacks labels waits for them, until a later one has its own: then they will not come any more.
        """
        judged = 0
        for number, (window, part) in enumerate(closed, 1):
            if is_ripe(window, now=self.at, label_delay=self._delay) and enough(part):
                judged = number
        return judged

    def _named(self, due: Sequence[tuple[Window, pl.DataFrame]]) -> list[tuple[Window, pl.DataFrame]]:
        """The windows with the references of their labelled rows: the log is read once."""
        if not due:
            return []
        known = pl.concat([part for _, part in due]).filter(pl.col("value").is_not_null())
        named = known.select(*IDENTITY, refs(self._project, self._model, known).alias(REF))
        return [(window, part.join(named, on=IDENTITY, how="left", maintain_order="left")) for window, part in due]

    def _refits(self, standing: Standing, due: Sequence[tuple[Window, pl.DataFrame]]) -> Refits | None:
        parts = [part[REF].drop_nulls() for _, part in due]
        named = pl.concat(parts) if parts else pl.Series(dtype=pl.String)
        if not len(named):
            return None
        return refits_of(self.context, self.served.version, named, standing.since, classes=self._model.classes)

    def _judge(
        self, watch: Watch | None, window: Window, part: pl.DataFrame, refits: Refits | None
    ) -> tuple[Watch | None, Harm | None, Passed]:
        known = part.filter(pl.col("value").is_not_null())
        one = passed_of(window, part, None)
        if not known.height:
            return watch, None, one
        held, scores = predictions(known, self._window), None
        loss = loss_of(self._loss, held.truth, held.score)
        one = msgspec.structs.replace(
            one, loss=float(np.average(loss, weights=held.weight)),
            positive=None if held.several else float(np.average(held.truth, weights=held.weight)),
        )  # fmt: skip
        if watch is None or not enough(part):
            return watch, None, one
        if refits is not None:
            scores = refits.scores(window, known[REF])
        if scores is not None:
            there = np.asarray(np.isfinite(scores).reshape(len(scores), -1).all(axis=1))
            held, scores = held.where(there), scores[there]
            again = loss_of(self._loss, held.truth, scores)
            one = msgspec.structs.replace(one, refit=float(np.average(again, weights=held.weight)))
        watch, found = harm(watch, window, held, scores)
        return watch, found, msgspec.structs.replace(one, word=found.word)

    # --- what the scores say of themselves

    def _estimates(self, until: datetime) -> Estimates:
        """What may be asked of windows that are not judged yet, and of the newest ones."""
        rows = self._own.filter(pl.col(MOMENT) >= min(until, self.at - SPAN * self._window))
        return estimates_of(self._project, self.served, self._model, self._test, rows=rows, window=self._window)

    def _said(
        self, estimates: Estimates, parts: Sequence[pl.DataFrame], notes: list[str]
    ) -> list[EstimatedFigure | None]:
        if estimates.refused is not None:
            notes.append(f"loss is not estimated: {estimates.refused}")
            return [None] * len(parts)
        found = []
        for part in parts:
            said = estimates.of(part, None)
            notes += [] if said.refused is None else [f"a window's loss is not estimated: {said.refused}"]
            found.append(said.figure)
        return found

    def _estimate(self, estimates: Estimates, last: Harm | None, audit: Audit | None, notes: list[str]) -> Said:
        """Of the newest windows together, unless labels have shown that scores or estimates do not go with truth."""
        recent = self._own.filter(pl.col(MOMENT) >= self.at - SPAN * self._window)
        if estimates.refused is not None or not recent.height:
            return Said(None, estimates.refused)
        why = distrust(self._model.several, last, audit)
        kind = None if last is None else last.kind
        said = estimates.of(recent, kind) if why is None else Said(None, why)
        notes += [] if said.refused is None else [f"the loss of the newest windows is not estimated: {said.refused}"]
        return said

    def _outcomes(self, until: datetime) -> tuple[drift.Finding, ...]:
        if self._model.task == "regression":
            return ()
        ripe = min(self.at - self._delay, max(until, self.at - RECENT))
        spec = self._project.spec.monitoring.drift
        names = [str(one) for one in self._model.classes] if self._model.several else ["0", "1"]
        return outcome_shift(self._rows, spec, until=ripe, names=names)

    def _late(self, standing: Standing) -> Late:
        since = counted_from(standing.windows, _KEPT, self._since)
        return late(self._own, standing.windows, self._window, since=since, until=standing.until)

    # --- what the rule says

    def _fault(self) -> str | None:
        """Why the newest data may not be learned from; None where they passed."""
        try:
            snapshots_of(self.context)
        except (ContractBreachError, DataError) as error:
            return error.message
        return None

    def _evidence(
        self, standing: Standing, last: Harm | None, estimate: EstimatedFigure | None, fault: str | None
    ) -> Evidence:
        active = () if self.drifted is None else self.drifted.drift.active
        # A new value of a name, such as a new customer, is no reason to distrust the rows; a column that is lost is.
        lost = any(one.kind == "data_fault" and one.what != "unseen" for one in active)
        words = {} if last is None else {one.question: one.word for one in last.findings}
        return Evidence(
            now=self.at, new_labels=standing.labels, fault=fault, drift=any(one.kind != "data_fault" for one in active),
            kind="data_fault" if lost else None if last is None else last.kind,
            measured=None if last is None else last.word, refit=words.get("refit"),
            estimated=None if estimate is None else estimate.word,
        )  # fmt: skip
