"""SIGTERM ends a command as Ctrl-C does; an interrupt that Python drops in a finalizer is raised again."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: seconds until a dropped interrupt is raised again: by then the callback that dropped it has ended, on a busy machine
#: too
_PAUSE = 0.1


class Termination:
    """Whether this process received SIGTERM."""

    def __init__(self) -> None:
        self.received = False
        self._closed = threading.Event()

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
        # Not `threading.Thread`: its start waits for the thread, and the signal could come here, to be dropped again.
        _thread.start_new_thread(self._send_again, (number,))
        return True

    def _send_again(self, number: int) -> None:
        if not self._closed.wait(_PAUSE):
            os.kill(os.getpid(), number)

    def close(self) -> None:
        """Raise nothing again from now on."""
        self._closed.set()


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
