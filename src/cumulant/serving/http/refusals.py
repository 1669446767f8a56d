"""Requests that a connection refused before they were whole: counted by reason, and told of at most once a second."""

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


class Refusal(msgspec.Struct, frozen=True):
    """Refusals of one reason since the last one that was told; `status` and `client` are of the newest."""

    reason: Reason
    #: 0: the connection was cut without an answer
    status: int
    client: str
    times: int


class _Held(msgspec.Struct):
    told: float = float("-inf")
    times: int = 0
    status: int = 0
    client: str = ""


class Refusals:
    """The counts of one listening socket; used from its event loop. `tell` hears of each reason once a second at most.

    Attributes:
        counts: refusals so far, by reason.
    """

    def __init__(
        self, tell: Callable[[Refusal], object] | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self._tell, self._clock = tell, clock
        self._held: dict[Reason, _Held] = {reason: _Held() for reason in REASONS}

    def add(self, reason: Reason, status: int, client: str) -> None:
        self.counts[reason] += 1
        held = self._held[reason]
        held.times, held.status, held.client = held.times + 1, status, client
        self._say(reason, held)

    def flush(self, *, every: bool = False) -> None:
        """Tell what was held back and is due; with `every`, also what is not."""
        for reason, held in self._held.items():
            if held.times:
                self._say(reason, held, now=every)

    def _say(self, reason: Reason, held: _Held, *, now: bool = False) -> None:
        if self._tell is None or (not now and self._clock() - held.told < _PAUSE):
            return
        self._tell(Refusal(reason, held.status, held.client, held.times))
        held.told, held.times = self._clock(), 0
