"""What the runtime reports: runs and the steps in them. Rooms report their own facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from cumulant.core.events import GENESIS, Break, Event, Fact, verify_chain
from cumulant.ports.journal import Head, Journal


class RunStarted(Fact, frozen=True, kw_only=True):
    """A flow began. Settings are in the run's row; here is what a reader of the story needs."""

    kind: ClassVar[str] = "run.started"
    flow: str
    command: str


class RunFinished(Fact, frozen=True, kw_only=True):
    """A flow got to its end; `verdict` is `passed` or `refused` where the model's gate was asked."""

    kind: ClassVar[str] = "run.finished"
    flow: str
    seconds: float
    steps: int
    reused: int
    verdict: str | None = None


class RunFailed(Fact, frozen=True, kw_only=True):
    """A flow ended early; `status` is `failed`, `refused` (a gate said no) or `interrupted`."""

    kind: ClassVar[str] = "run.failed"
    flow: str
    status: str
    seconds: float
    error: dict[str, object]


class StepStarted(Fact, frozen=True, kw_only=True):
    """`taken_from` names the process whose lease had ended, where there was one."""

    kind: ClassVar[str] = "step.started"
    step: str
    name: str
    attempt: int
    taken_from: str | None = None


class StepFinished(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "step.finished"
    step: str
    name: str
    attempt: int
    seconds: float


class StepReused(Fact, frozen=True, kw_only=True):
    """A step that was done before: its result was found."""

    kind: ClassVar[str] = "step.reused"
    step: str
    name: str


class StepFailed(Fact, frozen=True, kw_only=True):
    """`interrupted`: a person stopped it; nothing is wrong with the step."""

    kind: ClassVar[str] = "step.failed"
    step: str
    name: str
    attempt: int
    seconds: float
    error: dict[str, object]
    interrupted: bool = False


def verify(journal: Journal) -> Iterator[Break]:
    """Every place where the journal's chain does not hold, a missing end included; none for an untouched one.

    Others may write meanwhile: what they add lies between the two heads that are read before and after.
    """
    before = journal.head()
    last = Head(0, GENESIS)
    then = before.hash

    def seen() -> Iterator[Event]:
        nonlocal last, then
        for event in journal.events():
            last = Head(event.seq, event.hash)
            then = event.hash if event.seq == before.seq else then
            yield event

    yield from verify_chain(seen())
    if last.seq < before.seq:
        yield Break(before.seq, "the newest events are missing")
    if then != before.hash:
        yield Break(before.seq, "is not the event that was written here")
    if last.seq > journal.head().seq:
        yield Break(last.seq, "was not written by this journal")
