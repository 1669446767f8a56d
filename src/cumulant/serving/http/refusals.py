"""Requests that a connection refused before they were whole: counted by reason, reported once a second at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, get_args

import msgspec

#: malformed: no HTTP, or a proxy's verb. host: not exactly one header Host. crowded: too many bodies, or heads of
#: requests that wait. slow: it did not come whole in time. unread: the client does not read its answers. busy: too many
#: requests wait
Reason = Literal["malformed", "host", "target", "headers", "body", "crowded", "slow", "unread", "busy"]
REASONS: tuple[Reason, ...] = get_args(Reason)
_PAUSE = 1.0


class HttpRefusal(msgspec.Struct, frozen=True):
    """Refusals of one reason since the last report; `status` and `client` are of the newest."""

    reason: Reason
    #: 0: the connection was cut without an answer
    status: int
    client: str
    times: int


class _PendingRefusals(msgspec.Struct):
    reported_at: float = float("-inf")
    times: int = 0
    status: int = 0
    client: str = ""


class Refusals:
    """The counts of one listening socket; used from its event loop. `report` is called once a second at most by reason.

    Attributes:
        counts: refusals so far, by reason.
    """

    def __init__(
        self, report: Callable[[HttpRefusal], object] | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self._report, self._clock = report, clock
        self._pending: dict[Reason, _PendingRefusals] = {reason: _PendingRefusals() for reason in REASONS}

    def add(self, reason: Reason, status: int, client: str) -> None:
        self.counts[reason] += 1
        pending = self._pending[reason]
        pending.times, pending.status, pending.client = pending.times + 1, status, client
        self._report_due(reason, pending)

    def flush(self, *, every: bool = False) -> None:
        """Report what is pending and due; with `every`, also what is not due."""
        for reason, pending in self._pending.items():
            if pending.times:
                self._report_due(reason, pending, now=every)

    def _report_due(self, reason: Reason, pending: _PendingRefusals, *, now: bool = False) -> None:
        if self._report is None or (not now and self._clock() - pending.reported_at < _PAUSE):
            return
        self._report(HttpRefusal(reason, pending.status, pending.client, pending.times))
        pending.reported_at, pending.times = self._clock(), 0
