"""Transitions of a case as pure functions: each returns the new case, or raises."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec

from cumulant.core.errors import ConflictError, LeaseHeldError, UsageError
from cumulant.review.cases import CaseNote, Lease, ReviewAnswer, ReviewCase
from cumulant.review.policy import ReviewPolicy

#: signs of a note, and notes of a case: each case is one row of the journal, which is read whole
_NOTE, _NOTES = 4_000, 100
#: earlier answer of a reviewer, as the error names it
_ANSWERED = {
    "decided": "decided case {} already",
    "skipped": "skipped case {}, which leaves it to others",
    "escalated": "escalated case {}, which leaves it to others",
}


class Reviewer(msgspec.Struct, frozen=True):
    """Who looks: a name, and the groups it is in."""

    name: str
    groups: tuple[str, ...] = ()

    def among(self, names: Collection[str]) -> bool:
        """Whether this reviewer gets escalated cases; without names all do."""
        bare = self.name.rpartition(":")[2]
        return not names or bool({self.name, bare, *self.groups} & set(names))


def is_open_to(case: ReviewCase, who: Reviewer, policy: ReviewPolicy, now: datetime) -> bool:
    """Whether this reviewer may get the case now."""
    answer = case.by(who.name)
    if case.status != "waiting" or (answer is not None and not (answer.kind == "escalated" and case.escalated)):
        return False
    # An assigned reviewer gets an escalated case even without being among `escalate_to`.
    if case.assigned is None and case.escalated and not who.among(policy.escalate_to):
        return False
    if case.assigned is not None and case.assigned != who.name:
        return False
    return case.lease is None or case.lease.until <= now or case.lease.reviewer == who.name


def rank(case: ReviewCase, who: Reviewer) -> tuple[bool, bool, float, str]:
    """Cases with the least come first: one's own, then escalated ones, then in the order of the draws."""
    return case.assigned != who.name, not case.escalated, case.order, case.id


def take(case: ReviewCase, who: Reviewer, policy: ReviewPolicy, now: datetime) -> ReviewCase:
    """Lease the case to the reviewer.

    Raises:
        LeaseHeldError: it is leased or assigned to another reviewer.
        ConflictError: it is closed, or this reviewer has answered it.
    """
    check(case, who, policy, now)
    return msgspec.structs.replace(case, lease=Lease(reviewer=who.name, until=now + policy.lease))


def check(case: ReviewCase, who: Reviewer, policy: ReviewPolicy, now: datetime) -> None:
    """Raises as `take`."""
    if is_open_to(case, who, policy, now):
        return
    subject = case.id
    if case.status != "waiting":
        raise ConflictError(f"case {case.id} is closed ({case.status})", subject=subject, hint="`cumulant review next`")
    answer = case.by(who.name)
    if answer is not None and not (answer.kind == "escalated" and case.escalated):
        raise ConflictError(
            f"you have {_ANSWERED[answer.kind].format(case.id)}", subject=subject, hint="`cumulant review next`"
        )
    if case.assigned is None and case.escalated and not who.among(policy.escalate_to):
        raise ConflictError(
            f"case {case.id} was escalated to {', '.join(policy.escalate_to)}",
            subject=subject,
            hint="`cumulant review next` gives you another one",
        )
    holder = case.lease.reviewer if case.lease is not None and case.lease.until > now else str(case.assigned)
    raise LeaseHeldError(
        f"case {case.id} is with {holder}", subject=subject, hint="`cumulant review next` gives you another one"
    )


def decide(case: ReviewCase, who: Reviewer, label: str, policy: ReviewPolicy, now: datetime) -> ReviewCase:
    """Record `label` (JSON). Two that agree, or one where one is enough, close the case; two that differ escalate it.

    Raises:
        LeaseHeldError, ConflictError: as `take`.
    """
    after = _answered(case, who, ReviewAnswer(reviewer=who.name, kind="decided", label=label, at=now), policy, now)
    if case.disputed or not case.second:
        return _done(after, label, now)
    if len(after.decisions) < 2:
        return after
    return msgspec.structs.replace(after, escalated=True) if after.disputed else _done(after, label, now)


def skip(case: ReviewCase, who: Reviewer, policy: ReviewPolicy, now: datetime) -> ReviewCase:
    """Leave the case to others. Raises as `take`."""
    return _answered(case, who, ReviewAnswer(reviewer=who.name, kind="skipped", at=now), policy, now)


def escalate(case: ReviewCase, who: Reviewer, policy: ReviewPolicy, now: datetime) -> ReviewCase:
    """Give the case to those of `escalate_to`. Raises as `take`."""
    after = _answered(case, who, ReviewAnswer(reviewer=who.name, kind="escalated", at=now), policy, now)
    return msgspec.structs.replace(after, escalated=True)


def undo(case: ReviewCase, who: Reviewer, policy: ReviewPolicy, now: datetime) -> ReviewCase:
    """Withdraw the reviewer's answer, the newest of the case, which is leased to the reviewer again.

    Raises:
        ConflictError: it has become a label, the deadline has passed, or the newest answer is of another reviewer.
    """
    if case.labelled:
        raise ConflictError(
            f"the decision on case {case.id} has become a label, which is not withdrawn",
            subject=case.id,
            hint="ingest a corrected label: `cumulant labels ingest`",
        )
    if case.status == "expired" or now >= case.deadline:
        raise ConflictError(f"the deadline of case {case.id} has passed", subject=case.id)
    if not case.answers or case.answers[-1].reviewer != who.name:
        raise ConflictError(f"the newest answer on case {case.id} is not yours", subject=case.id)
    rest = msgspec.structs.replace(case, answers=case.answers[:-1])
    escalated = case.extended or rest.disputed or any(answer.kind == "escalated" for answer in rest.answers)
    lease = Lease(reviewer=who.name, until=now + policy.lease)
    return msgspec.structs.replace(rest, status="waiting", escalated=escalated, lease=lease, label=None, closed=None)


def note(case: ReviewCase, who: Reviewer, text: str, now: datetime) -> ReviewCase:
    """Add a note to the case, whoever leases it.

    Raises:
        UsageError: there is no text, or there is too much.
    """
    if not text.strip():
        raise UsageError("an empty note is refused", subject=case.id, hint="write what the next person should know")
    if len(text) > _NOTE or len(case.notes) >= _NOTES:
        raise UsageError(
            f"a note has at most {_NOTE:,} signs, and a case at most {_NOTES} notes",
            subject=case.id,
            hint="write what the next person should know, in short",
        )
    return msgspec.structs.replace(case, notes=(*case.notes, CaseNote(reviewer=who.name, text=text.strip(), at=now)))


def assign(case: ReviewCase, to: str | None) -> ReviewCase:
    """Assign the case to one reviewer, or to all again; its lease ends.

    Raises:
        ConflictError: it is closed, or that reviewer has answered it.
    """
    if case.status != "waiting":
        raise ConflictError(f"case {case.id} is closed ({case.status})", subject=case.id)
    if to is not None and case.by(to) is not None:
        raise ConflictError(f"{to} has answered case {case.id}", subject=case.id, hint="assign it to another reviewer")
    return msgspec.structs.replace(case, assigned=to, lease=None)


def at_deadline(case: ReviewCase, policy: ReviewPolicy, now: datetime) -> ReviewCase:
    """The case after its deadline has passed: what one reviewer decided holds where the second never came."""
    if case.status != "waiting" or now < case.deadline:
        return case
    if case.decisions and not case.disputed:
        return _done(case, str(case.decisions[0].label), now)
    if policy.fallback == "escalate" and not case.extended:
        later = now + policy.deadline
        return msgspec.structs.replace(case, escalated=True, extended=True, assigned=None, lease=None, deadline=later)
    return msgspec.structs.replace(case, status="expired", lease=None, closed=now)


def wants_second(case: str, policy: ReviewPolicy) -> bool:
    """Whether two reviewers decide the case: by its id, so that the choice is fixed."""
    return int(case, 16) < policy.second * float(16 ** len(case))


def _answered(case: ReviewCase, who: Reviewer, answer: ReviewAnswer, policy: ReviewPolicy, now: datetime) -> ReviewCase:
    check(case, who, policy, now)
    return msgspec.structs.replace(case, answers=(*case.answers, answer), lease=None, assigned=None)


def _done(case: ReviewCase, label: str, now: datetime) -> ReviewCase:
    return msgspec.structs.replace(case, status="done", label=label, lease=None, closed=now)
