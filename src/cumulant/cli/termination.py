"""A polite request to end (SIGTERM: a shut-down, a scheduler, `kill`) ends a command as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Termination:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self.received = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.received:
            return  # asked again while it tidies up, which must not be cut off; SIGKILL still ends it at once
        self.received = True
        raise KeyboardInterrupt


@contextmanager
def termination() -> Iterator[Termination]:
    """SIGTERM raises KeyboardInterrupt in the main thread while the block runs, unless someone else handles it."""
    asked = Termination()
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield asked
        return
    signal.signal(signal.SIGTERM, asked)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
