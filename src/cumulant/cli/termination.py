"""SIGTERM ends a command as Ctrl-C does; an interrupt that Python drops in a finalizer is raised again."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: seconds until a dropped interrupt is raised again: by then the callback that dropped it has ended
_PAUSE = 0.02


class Termination:
    """Whether this process received SIGTERM."""

    def __init__(self) -> None:
        self.received = False
        self._timer: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.received:
            return  # a second one must not interrupt the clean-up; SIGKILL still ends it at once
        self.received = True
        raise KeyboardInterrupt

    def raise_again(self, dropped: Any) -> bool:
        """Whether what Python dropped is an interrupt, which is then raised again; of the signal that it was of."""
        if dropped.exc_type is None or not issubclass(dropped.exc_type, KeyboardInterrupt):
            return False
        number = signal.SIGTERM if self.received else signal.SIGINT
        self.received = False
        self._timer = threading.Timer(_PAUSE, os.kill, (os.getpid(), number))
        self._timer.daemon = True
        self._timer.start()
        return True

    def close(self) -> None:
        """Raise nothing again from now on."""
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def termination() -> Iterator[Termination]:
    """SIGTERM raises KeyboardInterrupt in the main thread while the block runs, unless someone else handles it."""
    handler = Termination()
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield handler
        return
    signal.signal(signal.SIGTERM, handler)
    before: Callable[[Any], object] = sys.unraisablehook
    sys.unraisablehook = lambda dropped: None if handler.raise_again(dropped) else before(dropped)
    try:
        yield handler
    finally:
        sys.unraisablehook = before
        handler.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
