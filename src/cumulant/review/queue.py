"""The queue's rows in the journal: every move is one transaction with its event, fenced by the row's version.

A case is one row under its model; a closed one moves to rows of its own, so that looking for the next case reads
open ones only. Of two reviewers who want the same case one gets it, and the other the next one.
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
from cumulant.review.cases import Case, Draw, Queue
from cumulant.review.events import AnswersLabelled, CaseClosed, CaseMoved, CasesQueued
from cumulant.review.policy import ReviewPolicy
from cumulant.review.transitions import Reviewer

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal, Row, Transaction

#: as `cases.case_id` makes them
_ID = re.compile("[0-9a-f]{12}")
_SHOWN = 40
OPEN, CLOSED, DRAW, QUEUE = "review_case", "review_closed", "review_draw", "review_queue"


class Desk:
    """The queue of one model."""

    def __init__(self, journal: Journal, model: str, policy: ReviewPolicy, *, clock: Clock | None = None) -> None:
        self._journal, self.model, self.policy, self._clock = journal, model, policy, clock or SystemClock()

    # --- what is read

    def queue(self) -> tuple[Queue, int]:
        """How far the log was looked at, and the row's version; 0 where it never was."""
        row = self._journal.get(QUEUE, self.model)
        return (msgspec.convert(row.value, Queue), row.version) if row else (Queue(model=self.model), 0)

    def open(self) -> list[Case]:
        """Cases that wait, in the order in which they are given out."""
        return sorted(map(_case, self._journal.rows(OPEN, self._prefix)), key=lambda one: (one.order, one.id))

    def closed(self) -> list[Case]:
        """Cases that are done or expired, the oldest first."""
        found = map(_case, self._journal.rows(CLOSED, self._prefix))
        return sorted(found, key=lambda one: (one.closed or one.queued, one.id))

    def standing(self) -> tuple[list[Case], list[Case]]:
        """Cases that wait and closed ones, as `open` and `closed`, after what deadlines that have passed ask for.

        Nothing is written: whoever moves a case next, or `expire`, does that.
        """
        now = self._clock.now()
        found = [transitions.at_deadline(one, self.policy, now) for one in self.open()]
        closed = [*self.closed(), *(one for one in found if one.status != "waiting")]
        return [one for one in found if one.status == "waiting"], closed

    def draws(self) -> list[Draw]:
        found = [msgspec.convert(row.value, Draw) for row in self._journal.rows(DRAW, self._prefix)]
        return sorted(found, key=lambda one: one.number)

    def find(self, case: str) -> Case:
        """The case of exactly that id.

        Raises:
            NotFoundError: there is none.
        """
        for kind in (OPEN, CLOSED):
            row = self._journal.get(kind, self._key(case)) if _ID.fullmatch(case) else None
            if row is not None:
                return _case(row)
        raise self._unknown(case)

    def named(self, beginning: str) -> Case:
        """The case whose id begins so, as people write it.

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
        hint = did_you_mean(shown, [one.id for one in self.open()]) or "`cumulant review list` shows those that wait"
        return NotFoundError(f'no case has the id "{shown}"', subject=shown, hint=hint)

    # --- what is written

    def add(self, cases: Sequence[Case], draw: Draw, queue: Queue, *, expect: int, actor: Actor) -> int:
        """Put the cases of a draw into the queue, those that it never had; how many.

        Raises:
            LeaseHeldError: another process has drawn meanwhile; nothing was added.
        """
        with self._journal.transaction(actor=actor) as transaction:
            transaction.put(QUEUE, self.model, _plain(queue), expect=expect)
            fresh = [one for one in cases if not self._known(transaction, one.id)]
            for one in fresh:
                transaction.put(OPEN, self._key(one.id), _plain(one), expect=0)
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

    def take(self, who: Reviewer, *, passed: Sequence[str] = ()) -> Case | None:
        """The next case for a reviewer, kept for that one; None where none is left. `passed`: not these."""
        now = self._clock.now()
        with self._transaction(who) as transaction:
            cases = [_case(row) for row in transaction.rows(OPEN, self._prefix)]
            ripe = [self._closed_in_time(transaction, one, now) for one in cases]
            fit = [one for one in ripe if transitions.is_open_to(one, who, self.policy, now) and one.id not in passed]
            if not fit:
                return None
            chosen = min(fit, key=lambda one: transitions.rank(one, who))
            return self._move(transaction, chosen, transitions.take(chosen, who, self.policy, now), "taken")

    def move(
        self, case: str, who: Reviewer, what: str, change: Callable[[Case, datetime], Case], *, seen: str | None = None
    ) -> Case:
        """Change a case by one of `moves`, and report it as `what`; with `seen`, only if its revision is still that.

        Raises:
            NotFoundError: there is no such case.
            ConflictError: it was changed since it was seen.
            LeaseHeldError, UsageError: as the move.
        """
        now, found = self._clock.now(), self.find(case)
        with self._transaction(who) as transaction:
            row = transaction.get(OPEN, self._key(found.id))
            stored = found if row is None else _case(row)
            if seen is not None and seen != stored.revision:
                raise ConflictError(
                    f"case {found.id} has changed since you saw it", subject=found.id, hint="look at it again"
                )
            current = stored if row is None else self._closed_in_time(transaction, stored, now)
            return self._move(transaction, current, change(current, now), what)

    def note(self, case: str, who: Reviewer, text: str) -> Case:
        """Write a note, also beside a closed case. Raises NotFoundError, UsageError."""
        now, found = self._clock.now(), self.find(case)
        with self._transaction(who) as transaction:
            row = transaction.get(OPEN, self._key(found.id)) or transaction.get(CLOSED, self._key(found.id))
            after = transitions.note(found if row is None else _case(row), who, text, now)
            transaction.put(OPEN if after.status == "waiting" else CLOSED, self._key(after.id), _plain(after))
            transaction.emit(CaseMoved(model=self.model, case=after.id, what="noted"))
        return after

    def expire(self, actor: Actor) -> int:
        """Do what the deadlines of open cases ask for; how many cases it changed."""
        now, changed = self._clock.now(), 0
        with self._journal.transaction(actor=actor) as transaction:
            for row in transaction.rows(OPEN, self._prefix):
                before = _case(row)
                changed += self._closed_in_time(transaction, before, now) != before
        return changed

    def untold(self) -> list[Case]:
        """Done cases whose label is not among the labels yet."""
        return [one for one in self.closed() if one.status == "done" and not one.told]

    def tell(self, cases: Sequence[Case], content: str, *, actor: Actor) -> None:
        """Remember that these have become labels."""
        with self._journal.transaction(actor=actor) as transaction:
            for one in cases:
                row = transaction.get(CLOSED, self._key(one.id))
                if row is not None:
                    transaction.put(CLOSED, row.key, _plain(msgspec.structs.replace(_case(row), told=True)))
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

    def _closed_in_time(self, transaction: Transaction, case: Case, now: datetime) -> Case:
        after = transitions.at_deadline(case, self.policy, now)
        return case if after is case else self._move(transaction, case, after, "overdue")

    def _move(self, transaction: Transaction, before: Case, after: Case, what: str) -> Case:
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


def _case(row: Row) -> Case:
    return msgspec.convert(row.value, Case)


def _plain(value: object) -> dict[str, object]:
    return cast("dict[str, object]", msgspec.to_builtins(value))
