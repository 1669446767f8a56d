"""The signals that end a process which serves until it is stopped."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable


def end_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set from now on. For the main thread."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, setting(ending))
    return ending


def setting(event: threading.Event) -> Callable[..., None]:
    """A handler of signals that sets the event, in a thread of its own: the main thread, which runs handlers, may be
    in the event's `wait` and hold its lock, and would wait for itself.
    """

    def handle(*_: object) -> None:
        _thread.start_new_thread(event.set, ())

    return handle
