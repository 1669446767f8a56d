"""What the review room reports: cases by their id, figures, never labels or features."""

from __future__ import annotations

from typing import ClassVar

from cumulant.core.events import Fact


class CasesQueued(Fact, frozen=True, kw_only=True):
    """A draw put cases into the queue: `ranked` by usefulness, `sample` at random, of `rows` predictions."""

    kind: ClassVar[str] = "review.queued"

    model: str
    draw: int
    rows: int
    ranked: int
    sample: int
    reasons: dict[str, int]


class CaseMoved(Fact, frozen=True, kw_only=True):
    """A case was taken, decided, skipped, escalated, undone, noted or assigned, by the event's actor."""

    kind: ClassVar[str] = "review.moved"

    model: str
    case: str
    what: str


class CaseClosed(Fact, frozen=True, kw_only=True):
    """A case was closed: it is done, or its deadline passed."""

    kind: ClassVar[str] = "review.closed"

    model: str
    case: str
    status: str
    decisions: int
    disputed: bool


class AnswersLabelled(Fact, frozen=True, kw_only=True):
    """Decisions became labels."""

    kind: ClassVar[str] = "review.labelled"

    model: str
    content: str
    labels: int
