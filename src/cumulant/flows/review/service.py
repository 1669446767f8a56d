"""Verbs of a reviewer: take the next case, decide, skip, escalate, note; decisions become labels.

`seen`, a case's revision, makes a verb conditional.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import LeaseHeldError, UsageError, did_you_mean
from cumulant.core.events import Actor
from cumulant.flows.ledger.actions import verb
from cumulant.flows.outcomes.label_schema import schema_of
from cumulant.flows.outcomes.labels import emit_facts, ingest_event, join_intake
from cumulant.flows.outcomes.outcome_logs import exclusive, logs_of
from cumulant.flows.registry.model_record import MODEL, ModelRecord
from cumulant.flows.review.case_context import CaseReader
from cumulant.flows.review.stored_report import error_of
from cumulant.flows.review.views import CaseLine, CaseView, case_line, classes_of, policy_of, view, wrong_cases
from cumulant.outcomes.labels.label_rows import LabelReader
from cumulant.review import transitions
from cumulant.review.cases import ReviewCase
from cumulant.review.policy import ReviewPolicy
from cumulant.review.queue import ReviewQueue
from cumulant.review.report import ReviewSummary, summarize
from cumulant.review.transitions import Reviewer

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: the lease of making labels of decisions
REVIEW_LEASE = "review labels"
#: signs of a reviewer's name
_NAME = 200


class AnsweredCase(msgspec.Struct, frozen=True, kw_only=True):
    """A case after an answer; `labelled` cases became labels with it."""

    case: CaseView
    labelled: int = 0


def open_queue(project: Project, *, clock: Clock | None = None) -> ReviewQueue:
    """The project's queue. Raises UsageError where it declares none."""
    return ReviewQueue(project.journal(), project.name, policy_of(project), clock=clock)


def reviewer_of(principal: Principal) -> Reviewer:
    return Reviewer(principal.id, principal.groups)


def check_name(name: str) -> str:
    """A reviewer as a principal is named: `ada` is `user:ada`. Raises UsageError where that is no name."""
    if not name.strip() or not name.isprintable() or len(name) > _NAME:
        raise UsageError("that is no name of a reviewer", subject=name[:_NAME], hint="write ada, or user:ada")
    return name if ":" in name else f"user:{name.strip()}"


@verb("review.show", personal=True)
def first_cases(
    project: Project, *, principal: Principal, status: str = "waiting", limit: int = 20
) -> tuple[list[CaseView], int]:
    """Waiting cases in their order, or closed ones, the newest first; and their number in all.

    Raises:
        UsageError: there is no queue.
    """
    queue = open_queue(project)
    opened, closed = queue.current_cases()
    cases = list(opened) if status in ("waiting", "all") else []
    cases += [case for case in reversed(closed) if status in ("all", case.status)]
    return [view(project, case, queue.policy, viewer=principal.id, reader=None) for case in cases[:limit]], len(cases)


@verb("review.answer", personal=True)
def next_case(
    project: Project,
    *,
    principal: Principal,
    passed: Sequence[str] = (),
    clock: Clock | None = None,
    reader: CaseReader | None = None,
) -> CaseView | None:
    """The most useful waiting case, leased to this reviewer; None where none is left.

    Raises:
        UsageError: there is no queue.
    """
    queue = open_queue(project, clock=clock)
    case = queue.take(reviewer_of(principal), passed=passed)
    return None if case is None else _view(project, principal, queue, case, reader)


def session_reader(project: Project) -> CaseReader:
    """Reads the cases that wait, for a reviewer who answers several. Raises UsageError where there is no queue."""
    reader = CaseReader(project)
    reader.expect(open_queue(project).open())
    return reader


@verb("review.show")
def case_named(project: Project, beginning: str, *, principal: Principal) -> str:
    """The id of the case whose id begins so. Raises NotFoundError where none does, or several do; UsageError."""
    return open_queue(project).find_by_prefix(beginning).id


@verb("review.show", personal=True)
def show_case(project: Project, case: str, *, principal: Principal, reader: CaseReader | None = None) -> CaseView:
    """One case; `reader`: what was read of it before. Raises NotFoundError, UsageError."""
    queue = open_queue(project)
    current = transitions.at_deadline(queue.find(case), queue.policy, SystemClock().now())
    return _view(project, principal, queue, current, reader)


@verb("review.answer", personal=True)
def decide(
    project: Project,
    case: str,
    label: object,
    *,
    principal: Principal,
    note: str = "",
    seen: str | None = None,
    clock: Clock | None = None,
    reader: CaseReader | None = None,
    labels: Literal["now", "later"] = "now",
) -> AnsweredCase:
    """Decide a case. A decision that holds becomes a label: at once, with the next one, or with `labels` later.

    Raises:
        UsageError: the label is none of the model's.
        ConflictError: the case is closed, answered by this reviewer, or changed since it was seen.
        LeaseHeldError: it is leased to another reviewer.
        NotFoundError: there is no such case.
    """
    queue, who = open_queue(project, clock=clock), reviewer_of(principal)
    current = queue.find(case)
    read = reader or CaseReader(project)
    text = label_text(project, current, label, read)
    written = note.strip()

    def change(state: ReviewCase, now: datetime) -> ReviewCase:
        noted = transitions.note(state, who, note, now) if written else state
        return transitions.decide(noted, who, text, queue.policy, now)

    after = queue.move(current.id, who, "decided", change, seen=seen)
    labelled = ingest_unless_locked(project, principal=principal, clock=clock) if labels == "now" else 0
    return AnsweredCase(case=_view(project, principal, queue, queue.find(after.id), read), labelled=labelled)


@verb("review.answer", personal=True)
def skip(
    project: Project, case: str, *, principal: Principal, seen: str | None = None, clock: Clock | None = None
) -> AnsweredCase:
    """Leave a case to others. Raises as `decide`."""
    return _transition(project, case, principal, "skipped", move=transitions.skip, seen=seen, clock=clock)


@verb("review.answer", personal=True)
def escalate(
    project: Project,
    case: str,
    *,
    principal: Principal,
    note: str = "",
    seen: str | None = None,
    clock: Clock | None = None,
) -> AnsweredCase:
    """Give a case to those of `escalate_to`, with a note for them. Raises as `decide`."""

    def move(state: ReviewCase, who: Reviewer, policy: ReviewPolicy, now: datetime) -> ReviewCase:
        return transitions.escalate(
            transitions.note(state, who, note, now) if note.strip() else state, who, policy, now
        )

    return _transition(project, case, principal, "escalated", move=move, seen=seen, clock=clock)


@verb("review.answer", personal=True)
def undo(project: Project, case: str, *, principal: Principal, seen: str | None = None) -> AnsweredCase:
    """Withdraw one's answer to a case, as long as it has not become a label; the case is leased again.

    Raises:
        ConflictError: it has become a label, the deadline has passed, another reviewer has answered since, or the case
            has changed since it was `seen`.
        LeaseHeldError: labels are made of decisions just now.
        NotFoundError: there is no such case.
    """
    queue = open_queue(project)
    with exclusive(project, REVIEW_LEASE):
        after = queue.undo(case, reviewer_of(principal), seen=seen)
    return AnsweredCase(case=_view(project, principal, queue, after))


@verb("review.answer", personal=True)
def note(project: Project, case: str, text: str, *, principal: Principal) -> CaseView:
    """Write something beside a case. Raises NotFoundError, UsageError."""
    queue = open_queue(project)
    return _view(project, principal, queue, queue.note(case, reviewer_of(principal), text))


@verb("review.assign")
def assign(project: Project, case: str, to: str | None, *, principal: Principal, seen: str | None = None) -> CaseLine:
    """Assign a case to one reviewer (`user:ada`, or ada), or to all again. The result is without the row: who assigns
    need not be one who may see it.

    Raises:
        NotFoundError: there is no such case.
        ConflictError: it is closed, answered by that reviewer, or changed since it was seen.
        UsageError: that is no name.
    """
    queue, now = open_queue(project), SystemClock().now()
    name = None if to is None else check_name(to)
    after = queue.move(
        case, reviewer_of(principal), "assigned", lambda state, _: transitions.assign(state, name), seen=seen
    )
    return case_line(after, viewer=principal.id, blind=queue.policy.blind, now=now)


@verb("review.answer")
def make_labels(project: Project, *, principal: Principal) -> int:
    """As `ingest_decisions`, for a reviewer; 0 where another process makes labels."""
    return ingest_unless_locked(project, principal=principal)


def ingest_decisions(project: Project, *, principal: Principal, clock: Clock | None = None) -> int:
    """Make labels of new decisions, also those of passed deadlines, and join them; their number. Idempotent.

    Raises:
        StorageError, LeaseHeldError: as `outcomes.ingest_file`.
    """
    queue = open_queue(project, clock=clock)
    queue.expire(Actor(principal.id))
    if not queue.list_unlabelled():
        return 0
    # Alone from here on: two processes would make each label twice.
    with exclusive(project, REVIEW_LEASE):
        waiting = queue.list_unlabelled()
        if waiting:
            _ingest(project, queue, waiting, principal, clock)
    return len(waiting)


def _ingest(
    project: Project, queue: ReviewQueue, waiting: Sequence[ReviewCase], principal: Principal, clock: Clock | None
) -> None:
    from cumulant.review.labels import SOURCE, ingest_labels, to_label

    schema, salt = schema_of(project), project.salt()
    labels = [to_label(content, queue.policy, salt) for content in waiting]
    taken = ingest_labels(logs_of(project), labels, schema, salt=salt, clock=clock)
    content = taken.file
    if not taken.again:
        emit_facts(project, principal, [ingest_event(SOURCE, content)])
    queue.mark_labelled(waiting, content.content, actor=Actor(principal.id))
    # Who may decide may not be one who takes in labels: what is decided becomes one all the same.
    join_intake(project, schema, (), principal)


def ingest_unless_locked(project: Project, *, principal: Principal, clock: Clock | None = None) -> int:
    """As `ingest_decisions`; 0 where another process ingests labels: the decision is stored, and ingested next."""
    try:
        return ingest_decisions(project, principal=principal, clock=clock)
    except LeaseHeldError:
        return 0


@verb("review.show")
def report(project: Project, *, principal: Principal) -> ReviewSummary:
    queue, now = open_queue(project), SystemClock().now()
    opened, closed = queue.current_cases()
    return summarize(
        project.name,
        opened,
        closed,
        queue.draws(),
        wrong_cases(project, closed),
        leased=sum(case.lease is not None and case.lease.until > now for case in opened),
        used=used_for_training(project),
        error=partial(error_of, project),
    )


def used_for_training(project: Project) -> int:
    """Decisions that the newest version learned from; 0 where it knew of none."""
    rows = [msgspec.convert(row.value, ModelRecord) for row in project.journal().rows(MODEL, f"{project.name}/")]
    newest = max(rows, key=lambda record: record.created, default=None)
    return 0 if newest is None else newest.fitted.split.reviewed


def label_text(project: Project, case: ReviewCase, label: object, reader: CaseReader) -> str:
    """A decision as the labels' JSON.

    Raises:
        UsageError: it is none of the model's labels.
    """
    classes = classes_of(case, reader)
    plain = msgspec.structs.replace(schema_of(project), formats={})  # a reviewer writes plain numbers
    read = LabelReader(plain, {}, b"", received=SystemClock().now())
    (row,) = read.read([{"id": case.request, "label": _class_value(label, classes)}])
    if not row.problem:
        return row.label
    # The case's own version may be removed, or may have come from a file.
    names = [str(name).lower() if isinstance(name, bool) else str(name) for name in classes or plain.classes]
    hint = f"labels: {', '.join(names)}" if names else "write a number"
    if suggestion := did_you_mean(str(label), names):
        hint = f"{suggestion}; {hint}"
    raise UsageError(f'"{label}" is no label of {case.model}', subject=case.id, hint=hint)


def _class_value(label: object, classes: Sequence[object]) -> object:
    """`yes` and `no` are true and false where these are the classes."""
    if set(classes) == {False, True} and all(isinstance(name, bool) for name in classes):
        return {"yes": True, "no": False, "y": True, "n": False}.get(str(label).lower(), label)
    return label


def _transition(
    project: Project,
    case: str,
    principal: Principal,
    what: str,
    *,
    move: Callable[[ReviewCase, Reviewer, ReviewPolicy, datetime], ReviewCase],
    seen: str | None,
    clock: Clock | None,
) -> AnsweredCase:
    queue, who = open_queue(project, clock=clock), reviewer_of(principal)
    after = queue.move(case, who, what, lambda state, now: move(state, who, queue.policy, now), seen=seen)
    return AnsweredCase(case=_view(project, principal, queue, after))


def _view(
    project: Project, principal: Principal, queue: ReviewQueue, case: ReviewCase, reader: CaseReader | None = None
) -> CaseView:
    return view(project, case, queue.policy, viewer=principal.id, reader=reader or CaseReader(project))
