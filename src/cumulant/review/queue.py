"""The queue's rows in the journal: every transition is one transaction with its event, fenced by the row's version.

Closed cases are rows of another kind, so that the search for the next case reads open ones only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, cast

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import ConflictError, LeaseHeldError, NotFoundError, did_you_mean
from cumulant.core.events import Actor
from cumulant.review import transitions
from cumulant.review.cases import Draw, QueueState, ReviewCase
from cumulant.review.events import AnswersLabelled, CaseClosed, CaseMoved, CasesQueued
from cumulant.review.policy import ReviewPolicy
from cumulant.review.transitions import Reviewer

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal, Row, Transaction

#: as `cases.case_id` makes them
_ID = re.compile("[0-9a-f]{12}")
_SHOWN = 40
OPEN, CLOSED, DRAW, QUEUE = "review_case", "review_closed", "review_draw", "review_queue"


class ReviewQueue:
    def __init__(self, journal: Journal, model: str, policy: ReviewPolicy, *, clock: Clock | None = None) -> None:
        self._journal, self.model, self.policy, self._clock = journal, model, policy, clock or SystemClock()

    # --- what is read

    def queue(self) -> tuple[QueueState, int]:
        """How far the log was drawn from, and the row's version; 0 where it never was."""
        row = self._journal.get(QUEUE, self.model)
        return (msgspec.convert(row.value, QueueState), row.version) if row else (QueueState(model=self.model), 0)

    def open(self) -> list[ReviewCase]:
        """Waiting cases in the order in which they are assigned."""
        return sorted(map(_case, self._journal.rows(OPEN, self._prefix)), key=lambda case: (case.order, case.id))

    def closed(self) -> list[ReviewCase]:
        """Cases that are done or expired, the oldest first."""
        closed = map(_case, self._journal.rows(CLOSED, self._prefix))
        return sorted(closed, key=lambda case: (case.closed or case.queued, case.id))

    def current_cases(self) -> tuple[list[ReviewCase], list[ReviewCase]]:
        """Waiting and closed cases after deadlines that have passed, which are not written yet."""
        now = self._clock.now()
        cases = [transitions.at_deadline(case, self.policy, now) for case in self.open()]
        closed = [*self.closed(), *(case for case in cases if case.status != "waiting")]
        return [case for case in cases if case.status == "waiting"], closed

    def draws(self) -> list[Draw]:
        draws = [msgspec.convert(row.value, Draw) for row in self._journal.rows(DRAW, self._prefix)]
        return sorted(draws, key=lambda draw: draw.number)

    def find(self, case: str) -> ReviewCase:
        """The case of exactly that id.

        Raises:
            NotFoundError: there is none.
        """
        for kind in (OPEN, CLOSED):
            row = self._journal.get(kind, self._key(case)) if _ID.fullmatch(case) else None
            if row is not None:
                return _case(row)
        raise self._unknown(case)

    def find_by_prefix(self, beginning: str) -> ReviewCase:
        """The case whose id begins so.

        Raises:
            NotFoundError: there is none, or there are several.
        """
        kinds = (OPEN, CLOSED) if beginning else ()
        rows = [row for kind in kinds for row in self._journal.rows(kind, self._prefix + beginning)]
        if len(rows) > 1:
            raise NotFoundError(
                f'several cases begin with "{beginning}"', subject=beginning, hint="write more of the id"
            )
        if rows:
            return _case(rows[0])
        raise self._unknown(beginning)

    def _unknown(self, case: str) -> NotFoundError:
        shown = case if len(case) <= _SHOWN else f"{case[:_SHOWN]}..."
        hint = (
            did_you_mean(shown, [known.id for known in self.open()]) or "`cumulant review list` shows those that wait"
        )
        return NotFoundError(f'no case has the id "{shown}"', subject=shown, hint=hint)

    # --- what is written

    def add(self, cases: Sequence[ReviewCase], draw: Draw, queue: QueueState, *, expect: int, actor: Actor) -> int:
        """Add the new ones of the cases of a draw; their number.

        Raises:
            LeaseHeldError: another process has drawn meanwhile; nothing was added.
        """
        with self._journal.transaction(actor=actor) as transaction:
            transaction.put(QUEUE, self.model, _plain(queue), expect=expect)
            fresh = [case for case in cases if not self._known(transaction, case.id)]
            for case in fresh:
                transaction.put(OPEN, self._key(case.id), _plain(case), expect=0)
            transaction.put(DRAW, f"{self._prefix}{draw.number:09d}", _plain(draw), expect=0)
            transaction.emit(
                CasesQueued(
                    model=self.model,
                    draw=draw.number,
                    rows=draw.rows,
                    ranked=draw.ranked,
                    sample=draw.sample,
                    reasons=draw.reasons,
                )
            )
        return len(fresh)

    def take(self, who: Reviewer, *, passed: Sequence[str] = ()) -> ReviewCase | None:
        """The next case for a reviewer, kept for that one; None where none is left. `passed`: not these."""
        now = self._clock.now()
        with self._transaction(who) as transaction:
            cases = [_case(row) for row in transaction.rows(OPEN, self._prefix)]
            current = [self._apply_deadline(transaction, case, now) for case in cases]
            fit = [
                case
                for case in current
                if transitions.is_open_to(case, who, self.policy, now) and case.id not in passed
            ]
            if not fit:
                return None
            chosen = min(fit, key=lambda case: transitions.rank(case, who))
            return self._move(transaction, chosen, transitions.take(chosen, who, self.policy, now), "taken")

    def move(
        self,
        case: str,
        who: Reviewer,
        what: str,
        change: Callable[[ReviewCase, datetime], ReviewCase],
        *,
        seen: str | None = None,
    ) -> ReviewCase:
        """Change a case by a function of `transitions`, recorded as `what`; with `seen`, only at that revision.

        Raises:
            NotFoundError: there is no such case.
            ConflictError: it was changed since that revision.
            LeaseHeldError, UsageError: as the transition.
        """
        now, before = self._clock.now(), self.find(case)
        with self._transaction(who) as transaction:
            row = transaction.get(OPEN, self._key(before.id))
            stored = before if row is None else _case(row)
            _check_seen(stored, seen)
            current = stored if row is None else self._apply_deadline(transaction, stored, now)
            return self._move(transaction, current, change(current, now), what)

    def undo(self, case: str, who: Reviewer, *, seen: str | None = None) -> ReviewCase:
        """Withdraw the reviewer's answer; a closed case is open again. Nobody may make labels meanwhile.

        Raises:
            NotFoundError: there is no such case.
            ConflictError: it was changed since it was `seen`, or as `transitions.undo`.
        """
        now, key = self._clock.now(), self._key(self.find(case).id)
        with self._transaction(who) as transaction:
            row = transaction.get(OPEN, key) or transaction.get(CLOSED, key)
            if row is None:
                raise self._unknown(case)
            _check_seen(_case(row), seen)
            after = transitions.undo(_case(row), who, self.policy, now)
            if row.kind == CLOSED:
                transaction.delete(CLOSED, key)
            transaction.put(OPEN, key, _plain(after))
            transaction.emit(CaseMoved(model=self.model, case=after.id, what="undone"))
        return after

    def note(self, case: str, who: Reviewer, text: str) -> ReviewCase:
        """Write a note, also beside a closed case. Raises NotFoundError, UsageError."""
        now, before = self._clock.now(), self.find(case)
        with self._transaction(who) as transaction:
            row = transaction.get(OPEN, self._key(before.id)) or transaction.get(CLOSED, self._key(before.id))
            after = transitions.note(before if row is None else _case(row), who, text, now)
            transaction.put(OPEN if after.status == "waiting" else CLOSED, self._key(after.id), _plain(after))
            transaction.emit(CaseMoved(model=self.model, case=after.id, what="noted"))
        return after

    def expire(self, actor: Actor) -> int:
        """Apply the deadlines of open cases; the number of changed cases."""
        now, changed = self._clock.now(), 0
        with self._journal.transaction(actor=actor) as transaction:
            for row in transaction.rows(OPEN, self._prefix):
                before = _case(row)
                changed += self._apply_deadline(transaction, before, now) != before
        return changed

    def list_unlabelled(self) -> list[ReviewCase]:
        """Done cases whose label is not among the labels yet."""
        return [case for case in self.closed() if case.status == "done" and not case.labelled]

    def mark_labelled(self, cases: Sequence[ReviewCase], content: str, *, actor: Actor) -> None:
        """Remember that these have become labels."""
        with self._journal.transaction(actor=actor) as transaction:
            for case in cases:
                row = transaction.get(CLOSED, self._key(case.id))
                if row is not None:
                    transaction.put(CLOSED, row.key, _plain(msgspec.structs.replace(_case(row), labelled=True)))
            transaction.emit(AnswersLabelled(model=self.model, content=content, labels=len(cases)))

    # --- parts

    @property
    def _prefix(self) -> str:
        return f"{self.model}/"

    def _key(self, case: str) -> str:
        return self._prefix + case

    def _known(self, transaction: Transaction, case: str) -> bool:
        return any(transaction.get(kind, self._key(case)) is not None for kind in (OPEN, CLOSED))

    def _transaction(self, who: Reviewer) -> AbstractContextManager[Transaction]:
        return self._journal.transaction(actor=Actor(who.name))

    def _apply_deadline(self, transaction: Transaction, case: ReviewCase, now: datetime) -> ReviewCase:
        after = transitions.at_deadline(case, self.policy, now)
        return case if after is case else self._move(transaction, case, after, "overdue")

    def _move(self, transaction: Transaction, before: ReviewCase, after: ReviewCase, what: str) -> ReviewCase:
        key = self._key(before.id)
        row = transaction.get(OPEN, key)
        if row is None:
            raise LeaseHeldError(f"case {before.id} was closed by someone else", subject=before.id)
        transaction.emit(CaseMoved(model=self.model, case=after.id, what=what))
        if after.status == "waiting":
            transaction.put(OPEN, key, _plain(after), expect=row.version)
            return after
        transaction.delete(OPEN, key)
        transaction.put(CLOSED, key, _plain(after))
        transaction.emit(
            CaseClosed(
                model=self.model,
                case=after.id,
                status=after.status,
                decisions=len(after.decisions),
                disputed=after.disputed,
            )
        )
        return after


def _check_seen(case: ReviewCase, seen: str | None) -> None:
    """Raises ConflictError where the case has another revision than it was seen with."""
    if seen is not None and seen != case.revision:
        raise ConflictError(f"case {case.id} has changed since you saw it", subject=case.id, hint="show it again")


def _case(row: Row) -> ReviewCase:
    return msgspec.convert(row.value, ReviewCase)


def _plain(value: object) -> dict[str, object]:
    return cast("dict[str, object]", msgspec.to_builtins(value))
