"""The signals that end a process which serves until it is stopped."""

from __future__ import annotations

import signal
import threading


def end_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set from now on. For the main thread."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    return ending
