"""A case: one prediction for review, with its answers and notes. References, no data."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from cumulant.core.ids import digest

Status = Literal["waiting", "done", "expired"]
Kind = Literal["decided", "skipped", "escalated"]


class ReviewAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One reviewer's answer. `label` is JSON, where it is a decision."""

    reviewer: str
    kind: Kind
    label: str | None = None
    at: datetime


class CaseNote(msgspec.Struct, frozen=True, kw_only=True):
    reviewer: str
    text: str
    at: datetime


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The reviewer who holds a case, and until when."""

    reviewer: str
    until: datetime


class ReviewCase(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction in the queue: its place in the log, why it was chosen, and its outcome."""

    id: str
    model: str
    version: str
    #: its place in the prediction log
    request: str
    row: int
    worker: str
    sequence: int
    time: datetime
    #: what a row of the training source has in common with it: its key and moment, where the model has a key
    ref: str | None = None
    #: `sample`: drawn at random
    reasons: tuple[str, ...]
    #: from 0 to 1
    useful: float
    #: the probability with which the draw would have chosen it; 1 for what was chosen by its usefulness
    chance: float
    #: which draw chose it, and its place in the order of that draw, from 0 to 1
    draw: int
    order: float
    queued: datetime
    deadline: datetime
    second: bool = False
    status: Status = "waiting"
    assigned: str | None = None
    lease: Lease | None = None
    escalated: bool = False
    #: the deadline passed once and others got it
    extended: bool = False
    answers: tuple[ReviewAnswer, ...] = ()
    notes: tuple[CaseNote, ...] = ()
    #: JSON: what holds, where it is done
    label: str | None = None
    closed: datetime | None = None
    #: it has become a label
    labelled: bool = False

    @property
    def revision(self) -> str:
        """What changes with everything that becomes of the case."""
        return digest(msgspec.to_builtins(self))[:16]

    @property
    def decisions(self) -> tuple[ReviewAnswer, ...]:
        return tuple(answer for answer in self.answers if answer.kind == "decided")

    @property
    def disputed(self) -> bool:
        """Whether two reviewers decided otherwise."""
        return len({answer.label for answer in self.decisions}) > 1

    @property
    def weight(self) -> float:
        """How many rows of the log it represents."""
        return 1 / self.chance

    def by(self, reviewer: str) -> ReviewAnswer | None:
        """That reviewer's last answer."""
        return next((answer for answer in reversed(self.answers) if answer.reviewer == reviewer), None)


class Draw(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of cases: of `rows` logged from `since` to `until` (without `labelled` ones), what was taken."""

    number: int
    model: str
    at: datetime
    since: datetime
    until: datetime
    rows: int
    labelled: int
    ranked: int
    sample: int
    reasons: dict[str, int]
    #: parts of the log that could not be read, as sentences
    notes: tuple[str, ...] = ()


class FillResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a draw; `draw` is None where it was too early for one. `added` are cases that are new."""

    draw: Draw | None
    added: int
    remaining: int
    waiting: int
    overdue: int
    sentence: str


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """How far the log has been drawn from, and what remains of the budget."""

    model: str
    until: datetime | None = None
    #: cases that earlier draws were allowed and did not take
    carry: float = 0.0
    #: the present period, and the cases queued in it
    period: str = ""
    queued: int = 0
    draws: int = 0


def case_id(worker: str, sequence: int, row: int) -> str:
    """The case of a row of the log: the same however often it is drawn."""
    return digest([worker, sequence, row])[:12]
