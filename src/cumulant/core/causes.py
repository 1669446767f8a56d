"""The event that led to what happens now: events that are written meanwhile name it as their `cause`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: the id of that event; each thread and each task has its own
_CAUSE: ContextVar[str | None] = ContextVar("cause", default=None)


@contextmanager
def caused_by(event: str | None) -> Iterator[None]:
    """While the block lasts, events of this thread or task have the event of that id as cause; None: as outside."""
    if event is None:
        yield
        return
    token = _CAUSE.set(event)
    try:
        yield
    finally:
        _CAUSE.reset(token)


def current_cause() -> str | None:
    """The id of the event that led to what happens now; None where there is none."""
    return _CAUSE.get()
