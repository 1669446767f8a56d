"""Counts of rows and requests that the log process could not write."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable

_SAY_SECONDS = 60.0


class LogLosses:
    """Counts losses and reports them on standard error, once a minute at most."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self.rows = 0
        self.refused = 0
        self.garbage = 0
        self.say = say
        self._reported_at = -_SAY_SECONDS
        self._reported = (0, 0, 0)
        self._error = ""
        self._lock = threading.Lock()

    def record_failure(self, error: OSError, rows: int) -> None:
        with self._lock:  # files are closed on another thread
            self.rows += rows
        self._error = reason_of(error)
        self.report()

    def record_refusal(self, error: OSError, requests: int) -> None:
        self.refused += requests
        self._error = reason_of(error)
        self.report()

    def report(self) -> None:
        counts = (self.rows, self.refused, self.garbage)
        if self._reported == counts or time.monotonic() - self._reported_at < _SAY_SECONDS:
            return
        self._reported_at, self._reported = time.monotonic(), counts
        if self.refused:
            self.say(f"the prediction log could not take {self.refused} requests, answered with 503: {self._error}\n")
        if self.rows:
            self.say(f"the prediction log lost {self.rows} rows so far: {self._error}\n")
        if self.garbage:
            self.say(f"the prediction log refused {self.garbage} frames that no worker sends\n")


def reason_of(error: OSError) -> str:
    """Reason of a failure with a hint; messages of pyarrow are long and may lack the error number."""
    if error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
        return "the disk is full; free some space"
    return f"{error.strerror or error}; check the folder and its permissions"
