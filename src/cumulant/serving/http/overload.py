"""Queue of the event loop: a request that could not be answered in time is refused before its body is read.

While requests are answered one after the other, later ones wait in the sockets and cannot be counted. So the loop
answers for a short turn only, queues what it reads after that, and continues to read. The queue's waiting time is
known, so that a request which would wait too long is refused by its head.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

#: seconds between two requests by which the loop is known to have read its sockets in between
_IDLE = 0.0005
#: seconds without a request after which slow requests of the past predict nothing
_FORGET = 1.0
#: of what a turn, or a request that is answered at once, shows, how much the estimate of a request's seconds moves; and
#: how many times the estimate it may count: a loop that lost its core for a while predicts nothing
_LEARN, _OUTLIER = 0.1, 3.0
#: while requests come without a gap, one in so many of those that are answered at once is measured: the system's
#: answers to when a request began and ended cost a microsecond
_MEASURED = 4
#: bytes of a body that take as long as the rest of a request; larger ones than the second are read on another thread
#: (`reading.LARGE`), or are tensors that are taken as they lie, and then count as so many requests
_BODY, _LARGE, _OF_LARGE = 1500, 256 * 1024, 3.0
#: a line that has not been empty for so many seconds is no burst, but more than can be done; and the part of `queue`
#: that it may hold: a queue that never empties answers no more requests, it makes each of them wait. A line of so few
#: requests may be that of as many clients who wait for their answers: refusing one makes none of the others faster
_STANDING, _SHORTER, _FEW = 0.1, 0.5, 32


class Turns:
    """The queue of one event loop. Times are in seconds.

    Args:
        turn: how long requests are answered before the sockets are read again.
        queue: the longest that a request may have to wait in line.
        each: what a request with a small body takes, until requests have shown it; at most, after a time without any.
        clock: the time.
        busy: the processor's time of this thread, by which requests are measured: beside other work on the same cores
            they take longer, and refusing them would make no other faster.

    Attributes:
        line: for each queued request the function that answers it, and its load.
    """

    def __init__(
        self,
        turn: float,
        queue: float,
        *,
        each: float = 0.0002,
        clock: Callable[[], float] = time.perf_counter,
        busy: Callable[[], float] = time.thread_time,
    ) -> None:
        self._turn, self._queue, self._each, self._clock, self._busy = turn, queue, each, clock, busy
        self._unknown = each
        self.line: deque[tuple[Callable[[], None], float]] = deque()
        #: how many requests with a small body take as long as those in line
        self._load = 0.0
        self._began = self._ended = float("-inf")
        #: when the first request joined the empty line
        self._waiting_since = float("-inf")
        #: of `busy`, when the last turn ended, where the line has not been empty since: the line also waits for what is
        #: read and refused until the next turn
        self._cpu_at_turn_end: float | None = None
        #: of `busy`, when the request that is answered at once was begun; None: it is not measured
        self._cpu_at_start: float | None = None
        #: requests that were answered at once since the last that was measured
        self._unmeasured = 0

    @property
    def is_full(self) -> bool:
        """Whether a request that came now would wait too long."""
        wait = self._load * self._each
        if wait > self._queue:
            return True
        long = len(self.line) > _FEW and wait > self._queue * _SHORTER
        return long and self._clock() - self._waiting_since > _STANDING

    def try_start(self) -> bool:
        """Whether a request that is whole is answered now; otherwise it has to `join`. Call `finish` after it."""
        if self.line:
            return False
        now = self._clock()
        gap = now - self._ended
        if gap > _FORGET:
            self._each = min(self._each, self._unknown)
        if gap > _IDLE:
            self._began = now
        if now - self._began >= self._turn:
            return False
        self._unmeasured += 1
        self._cpu_at_start = self._busy() if gap > _IDLE or self._unmeasured >= _MEASURED else None
        return True

    def finish(self, body: int) -> None:
        """Record a request with a body of `body` bytes that was answered at once."""
        self._ended = self._clock()
        if self._cpu_at_start is not None:
            self._unmeasured = 0
            self._learn((self._busy() - self._cpu_at_start) / _load(body))

    def join(self, answer: Callable[[], None], body: int) -> None:
        """Queue a request with a body of `body` bytes; `answer` answers it."""
        if not self.line:
            self._waiting_since = self._clock()
            asyncio.get_running_loop().call_soon(self._next)
        load = _load(body)
        self.line.append((answer, load))
        self._load += load

    def _next(self) -> None:
        began = now = self._clock()
        done, since = 0.0, self._busy() if self._cpu_at_turn_end is None else self._cpu_at_turn_end
        try:
            while self.line and now - began < self._turn:
                answer, load = self.line.popleft()
                self._load = self._load - load if self.line else 0.0
                done += load
                answer()
                now = self._clock()
        finally:
            busy = self._busy()
            self._learn((busy - since) / max(done, 1.0))
            self._cpu_at_turn_end = busy if self.line else None
            self._began = self._ended = now
            if self.line:
                asyncio.get_running_loop().call_soon(self._next)

    def _learn(self, seconds: float) -> None:
        self._each += _LEARN * (min(seconds, _OUTLIER * self._each) - self._each)


def _load(body: int) -> float:
    return max(1.0, body / _BODY) if body <= _LARGE else _OF_LARGE
