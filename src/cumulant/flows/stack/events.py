"""Events of the supervisor: each start and end of a process, with its cause."""

from __future__ import annotations

import signal
from typing import ClassVar

from cumulant.core.events import Actor, Fact
from cumulant.flows.stack.reconcile import Kind

ACTOR = Actor("service:supervisor")


class ProcessStarted(Fact, frozen=True, kw_only=True):
    """A process was started. `attempt` counts its starts by this supervisor."""

    kind: ClassVar[str] = "stack.process_started"
    name: str
    process: Kind | str
    pid: int
    attempt: int
    cause: str
    version: str | None = None


class ProcessEnded(Fact, frozen=True, kw_only=True):
    """A process has ended, or could not be started (without `pid`)."""

    kind: ClassVar[str] = "stack.process_ended"
    name: str
    process: Kind | str
    pid: int | None
    cause: str
    seconds: float
    version: str | None = None


def unreported(fact: ProcessStarted | ProcessEnded) -> None:
    """Report nothing."""


def line_of(fact: ProcessStarted | ProcessEnded) -> str:
    if isinstance(fact, ProcessStarted):
        return f"{fact.name} started as process {fact.pid}: {fact.cause}"
    return f"{fact.name} ended after {fact.seconds:.1f} s: {fact.cause}"


def describe_exit(code: int) -> str:
    """How a process ended, by its return code as `subprocess` gives it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
