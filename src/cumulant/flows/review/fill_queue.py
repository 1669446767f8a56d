"""The flow `review fill`: a draw of cases from the predictions since the last draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import NotFoundError, UsageError
from cumulant.core.events import Actor
from cumulant.core.prediction import read_object
from cumulant.core.progress import Progress, silent
from cumulant.core.units import from_micros, to_micros
from cumulant.data.parts.spill import Spill, spill_in
from cumulant.flows.data.memory_budget import scratch_folder
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.outcomes.label_schema import schema_of
from cumulant.flows.outcomes.labels import outcomes_of
from cumulant.flows.review.mirrored_scores import MirroredIndex, MirroredRows
from cumulant.flows.review.review_reference import reference_of, request_fields
from cumulant.flows.review.views import policy_of
from cumulant.outcomes.join.log_rows import scan_log
from cumulant.outcomes.labels.label_snapshot import UsableLabels, same_frame, window_parts
from cumulant.outcomes.prediction_refs import request_ref
from cumulant.review import reasons
from cumulant.review.cases import Draw, FillResult, QueueState, ReviewCase, case_id
from cumulant.review.policy import ReviewPolicy
from cumulant.review.reasons import ReviewReference
from cumulant.review.sampling import CandidateRow, RowSelector, SelectedRows, combine_scores, draw_number

if TYPE_CHECKING:
    from cumulant.core.expr import Node
    from cumulant.core.plan import Field
    from cumulant.ports.access import Principal
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.review.budget import ReviewAllowance

#: a row is in the log some seconds after its answer: what is younger is left to the next draw
_LAG = timedelta(seconds=30)


@verb("review.fill")
def fill(
    project: Project,
    *,
    principal: Principal,
    since: datetime | None = None,
    at_once: bool = False,
    clock: Clock | None = None,
    progress: Progress = silent,
) -> FillResult:
    """Draw cases from the predictions since the last draw (the first covers one period, or from `since` on).

    `at_once` takes what remains of the period's budget, and rows up to now. Killed at any moment and run again, it
    draws the same.

    Raises:
        UsageError: there is no queue, or a watched slice cannot be read.
        LeaseHeldError: another process has drawn meanwhile.
        StorageError: the log cannot be read.
    """
    policy, clock = policy_of(project), clock or SystemClock()
    conditions = reasons.parse_conditions(policy.slices)
    with open_run(project, "review fill", principal=principal, progress=progress) as context:
        from cumulant.review.budget import charge_queue, compute_allowance
        from cumulant.review.queue import ReviewQueue

        queue = ReviewQueue(project.journal(), project.name, policy, clock=clock)
        overdue = queue.expire(Actor(principal.id))
        state, version = queue.queue()
        until = clock.now() - (timedelta() if at_once else _LAG)
        begin = state.until or since or until - policy.budget.length
        if since is not None and state.until is not None and since < state.until:
            progress(f"predictions up to {state.until:%Y-%m-%d %H:%M} have been drawn from already")
        allowed = compute_allowance(policy, state, since=min(begin, until), until=until, at_once=at_once)
        if not allowed.enough or begin >= until:
            reason = _too_early(allowed, policy)
            return FillResult(
                draw=None,
                added=0,
                remaining=allowed.remaining,
                waiting=len(queue.open()),
                overdue=overdue,
                sentence=reason,
            )
        with spill_in(scratch_folder(project)) as spill:
            looked = _LogScan(context, policy, conditions, since=begin, until=until).choose(allowed, spill)
        draw, cases = _cases(looked, policy, state, now=clock.now(), within=(begin, until))
        added = 0
        if draw.rows:
            after = charge_queue(state, allowed, until=until, taken=len(cases))
            added = queue.add(cases, draw, after, expect=version, actor=Actor(principal.id))
        return FillResult(
            draw=draw,
            added=added,
            remaining=allowed.remaining - len(cases),
            waiting=len(queue.open()),
            overdue=overdue,
            sentence=_draw_text(draw, added, first=state.until is None, late=not at_once),
        )


def _too_early(allowed: ReviewAllowance, policy: ReviewPolicy) -> str:
    if not allowed.remaining:
        return f"the budget of {policy.budget} is used up: nothing was drawn"
    return (
        f"{allowed.cases} of {policy.budget} are due by now, and a draw begins with {allowed.least}: nothing was drawn;"
        " --now takes what is left of the period"
    )


def _draw_text(draw: Draw, added: int, *, first: bool, late: bool) -> str:
    """What a draw did; `late`: it left out the predictions of the last `_LAG`."""
    if not draw.rows:
        newest = f"; those of the last {_LAG.seconds} s are left to the next draw, or --now takes them" if late else ""
        labelled = f"; {draw.labelled:,} have a label already" if draw.labelled else ""
        since = f"{draw.since:%Y-%m-%d %H:%M}Z"
        if not first:
            return f"no prediction to draw from since the last draw, {since}{labelled}{newest}"
        earlier = "" if labelled else "; `--since` begins the first draw earlier"
        return f"no prediction to draw from since {since}, where the first draw begins{labelled}{earlier}{newest}"
    how = f"{draw.ranked} by usefulness, {draw.sample} at random"
    return f"{added} of {draw.rows:,} predictions came into the queue: {how}"


@dataclass(frozen=True)
class _ScanResult:
    chosen: SelectedRows
    labelled: int
    notes: tuple[str, ...]


class _LogScan:
    """One pass over the log: each row's reasons, and the choice."""

    def __init__(
        self, context: Context, policy: ReviewPolicy, conditions: Sequence[Node], *, since: datetime, until: datetime
    ) -> None:
        project = context.project
        self._context, self._policy, self._conditions = context, policy, conditions
        self._since, self._until = since, until
        self._schema, self._salt = schema_of(project), project.salt()
        self._log = project.log()
        self._references: dict[str, ReviewReference | None] = {}
        self._asked: dict[str, tuple[Field, ...]] = {}
        self._notes: list[str] = []

    def choose(self, allowed: ReviewAllowance, spill: Spill) -> _ScanResult:
        choice = RowSelector(ranked=allowed.cases - allowed.sample, sample=allowed.sample)
        beside = self._beside(spill) if "disagree" in self._policy.reasons else None
        labelled = 0
        for rows, named in self._with_labels():
            answered = rows.filter(~pl.col("shadow") & (pl.col("model") == self._context.project.name))
            known = answered["id_ref"].is_in(named) | answered["key_ref"].is_in(named).fill_null(value=False)
            labelled += int(known.sum())
            for part in answered.filter(~known).partition_by("version"):
                self._see(part, choice, beside)
        return _ScanResult(choice.select(), labelled, tuple(dict.fromkeys(self._notes)))

    def _frames(self) -> Iterator[pl.DataFrame]:
        return scan_log(self._log, self._schema.key, since=self._since, until=self._until)

    def _beside(self, spill: Spill) -> MirroredIndex | None:
        """What was scored beside answers; a mirrored row may be logged a little later than the answered one."""
        later = self._until + timedelta(minutes=5)
        mirrored_rows = MirroredRows(spill)
        for frame in scan_log(self._log, (), since=self._since - timedelta(minutes=5), until=later):
            mirrored = frame.filter(pl.col("shadow"))
            if mirrored.height:
                mirrored_rows.add(mirrored.select("id", "row", "outputs", "score"))
        return mirrored_rows.finish()

    def _with_labels(self) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """Rows of the log, with references of predictions whose label is known already, those of the rows at least."""
        with outcomes_of(self._context.project, self._schema).labels() as known:
            labels = UsableLabels(known, self._until)
            for window in window_parts(self._frames(), labels.window, frame=same_frame):
                named = labels.naming(pl.concat([rows.select("id_ref", "key_ref") for rows in window])).implode()
                yield from ((rows, named) for rows in window)

    def _see(self, rows: pl.DataFrame, choice: RowSelector, beside: MirroredIndex | None) -> None:
        scores = self._scores(rows, beside)
        useful = combine_scores(list(scores.values())) if scores else np.zeros(rows.height)
        places = rows.select("worker", "sequence", "row").rows()
        draw_numbers = [draw_number(self._salt, *place) for place in places]
        wanted = choice.eligible(useful, draw_numbers)
        choice.skip(int((~wanted).sum()))
        for place in np.flatnonzero(wanted):
            why = tuple(name for name, values in scores.items() if values[place] > 0)
            row = rows.row(int(place), named=True)
            choice.add(_candidate(row, self._ref(row), why, float(useful[place]), draw_numbers[place]))

    def _ref(self, row: Mapping[str, Any]) -> str | None:
        """The row's reference among those of the sources: the key, or the whole request without one."""
        if row["key_ref"] is not None or row["event_time"] is None:
            return None if row["key_ref"] is None else str(row["key_ref"])
        number = row["version"]
        if number not in self._asked:
            version = self._version(number)
            self._asked[number] = () if version is None else request_fields(self._context.project, version)
        return request_ref(read_object(row["request"]), self._asked[number], row["event_time"], self._salt)

    def _scores(self, rows: pl.DataFrame, beside: MirroredIndex | None) -> dict[str, Any]:
        policy, requests = self._policy, reasons.decode_requests(rows)
        scores: dict[str, Any] = {}
        if "disagree" in policy.reasons and beside is not None:
            scores["disagree"] = reasons.score_disagreement(rows, beside.of(rows))
        if "slice" in policy.reasons and self._conditions:
            scores["slice"] = reasons.score_slices(requests, self._conditions)
        reference = self._reference(rows["version"][0]) if {"unsure", "far"} & set(policy.reasons) else None
        if reference is not None and reference.task == "regression" and "unsure" in policy.reasons:
            scores["unsure"] = reasons.score_width(rows, requests, reference, policy.error)
        elif reference is not None and "unsure" in policy.reasons:
            scores["unsure"] = reasons.score_uncertainty(rows, reference, policy.error)
        if reference is not None and "far" in policy.reasons:
            scores["far"] = reasons.score_distance(requests, reference, policy.far)
        return scores

    def _reference(self, number: str) -> ReviewReference | None:
        if number not in self._references:
            version = self._version(number)
            notes: tuple[str, ...] = (f"version {number} is not in the registry: unsure and far rows are not detected",)
            reference = None
            if version is not None:
                reference, notes = reference_of(self._context, version)
            self._references[number] = reference
            self._notes += notes
        return self._references[number]

    def _version(self, number: str) -> ModelVersion | None:
        project = self._context.project
        try:
            return project.registry().resolve(f"{project.name}/{number}")
        except (NotFoundError, UsageError):
            return None


def _candidate(
    row: dict[str, Any], ref: str | None, why: tuple[str, ...], useful: float, draw_number: bytes
) -> CandidateRow:
    return CandidateRow(
        request=row["id"],
        row=row["row"],
        worker=row["worker"],
        sequence=row["sequence"],
        time=to_micros(row["time"]),
        model=row["model"],
        version=row["version"],
        ref=ref,
        reasons=why,
        useful=useful,
        draw_number=draw_number,
    )


def _cases(
    looked: _ScanResult, policy: ReviewPolicy, queue: QueueState, *, now: datetime, within: tuple[datetime, datetime]
) -> tuple[Draw, list[ReviewCase]]:
    chosen, number = looked.chosen, queue.draws + 1
    ordered = chosen.ordered()
    cases = [
        _case(
            candidate,
            policy,
            now,
            drawn=drawn,
            chance=chosen.chance if drawn else 1.0,
            draw=number,
            order=(place + 0.5) / len(ordered),
        )
        for place, (candidate, drawn) in enumerate(ordered)
    ]
    draw = Draw(
        number=number,
        model=queue.model,
        at=now,
        since=within[0],
        until=within[1],
        rows=chosen.rows,
        labelled=looked.labelled,
        ranked=len(chosen.ranked),
        sample=len(chosen.sample),
        reasons=dict(Counter(why for candidate in cases for why in candidate.reasons)),
        notes=looked.notes,
    )
    return draw, cases


def _case(
    candidate: CandidateRow, policy: ReviewPolicy, now: datetime, *, drawn: bool, chance: float, draw: int, order: float
) -> ReviewCase:
    from cumulant.review.transitions import wants_second

    case = case_id(candidate.worker, candidate.sequence, candidate.row)
    return ReviewCase(
        id=case,
        model=candidate.model,
        version=candidate.version,
        request=candidate.request,
        row=candidate.row,
        worker=candidate.worker,
        sequence=candidate.sequence,
        time=from_micros(candidate.time),
        ref=candidate.ref,
        reasons=(*candidate.reasons, "sample") if drawn else candidate.reasons,
        useful=round(candidate.useful, 6),
        chance=chance,
        draw=draw,
        order=order,
        queued=now,
        deadline=now + policy.deadline,
        second=wants_second(case, policy),
    )
