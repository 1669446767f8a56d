"""The queue of steps in the journal: what a caller writes, what a worker writes, and what both decide by it.

A step is one row. Its caller queues it and waits; a worker that it fits runs it under a lease of the journal. Both
change the row in transactions, and only while it is of the same request.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import datetime
from typing import ClassVar, Literal

import msgspec

from cumulant.core.events import Fact
from cumulant.ports.compute import Resources, StepCall
from cumulant.ports.journal import Row
from cumulant.ports.step_outcome import StepOutcome, StepProgress

QUEUED_STEP = "queued_step"
"""The kind of the rows; their key is the step's."""
MOST_ATTEMPTS = 3
"""How many workers may be lost while they run a step: it may be the step that ends them."""

StepState = Literal["queued", "running", "ended", "collected", "cancelled"]


class QueuedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A `queued_step` row.

    Attributes:
        call: the step.
        request: identifies this run of the step; one that is queued again has another.
        caller: identifies who waits for it; a caller that adopts it replaces it.
        version: the version of Cumulant that the caller has.
        queued: when, by the caller's clock; the order of the queue.
        status: `ended`: a worker has written the outcome; `collected`: a caller has read it.
        attempts: how often a worker has taken it.
        worker: the last one.
        progress: its newest report.
        note: why the last worker did not run it.
        outcome: the result, or the step's error.
    """

    call: StepCall
    request: str
    caller: str
    version: str
    queued: datetime
    status: StepState = "queued"
    attempts: int = 0
    worker: str = ""
    progress: StepProgress | None = None
    note: str = ""
    outcome: StepOutcome | None = None


class WorkerOffer(msgspec.Struct, frozen=True):
    """What a worker has for a step. A region "" takes only steps that do not name one."""

    cpu: float
    memory: int
    gpu: int = 0
    region: str = ""


class StepQueued(Fact, frozen=True, kw_only=True):
    """A step waits for a worker."""

    kind: ClassVar[str] = "step.queued"
    step: str
    name: str


class StepTaken(Fact, frozen=True, kw_only=True):
    """A worker runs a queued step; `attempt` counts from 1, and is above it where a worker was lost."""

    kind: ClassVar[str] = "step.taken"
    step: str
    name: str
    worker: str
    attempt: int


class StepReturned(Fact, frozen=True, kw_only=True):
    """A worker no longer runs a step: it ended, well or in an error (`ended`), or waits for another worker (`queued`).

    `note` says why it waits.
    """

    kind: ClassVar[str] = "step.returned"
    step: str
    name: str
    worker: str
    status: StepState
    note: str = ""


def read_queued(row: Row) -> QueuedStep:
    return msgspec.convert(row.value, QueuedStep)


def readable(rows: Iterable[Row]) -> list[tuple[Row, QueuedStep]]:
    """The steps of rows that this version can read; others are those of another version of Cumulant."""
    steps = []
    for row in rows:
        with suppress(msgspec.ValidationError):
            steps.append((row, read_queued(row)))
    return steps


def lease_of(key: str) -> str:
    """The name of the lease under which a worker runs the step."""
    return f"queued step/{key}"


def can_adopt(step: QueuedStep | None, version: str) -> bool:
    """Whether a caller of the step waits for this run of it; otherwise it is queued anew.

    A result that was not read is of a caller that was killed. An error is not adopted: the step is tried again.
    """
    if step is None or step.version != version:
        return False
    if step.status == "ended":
        return step.outcome is not None and step.outcome.error is None
    return step.status in ("queued", "running")


def fits(resources: Resources, offer: WorkerOffer) -> bool:
    """Whether a worker has what a step needs."""
    return (
        resources.cpu <= offer.cpu
        and resources.memory <= offer.memory
        and resources.gpu <= offer.gpu
        and resources.region in ("", offer.region)
    )


def candidates(
    rows: Iterable[Row], offer: WorkerOffer, *, version: str, refused: Collection[str] = ()
) -> list[tuple[Row, QueuedStep]]:
    """The steps that a worker may try to take, the oldest first; among them those that others run, whose lease decides.

    `refused`: requests that this worker cannot run.
    """
    open_steps = [
        (row, step)
        for row, step in readable(rows)
        if step.status in ("queued", "running")
        and step.version == version
        and step.request not in refused
        and fits(step.call.resources, offer)
    ]
    return sorted(open_steps, key=lambda pair: (pair[1].queued, pair[0].key))


def is_settled(step: QueuedStep) -> bool:
    """Whether no caller waits for it any more."""
    return step.status in ("collected", "cancelled")
