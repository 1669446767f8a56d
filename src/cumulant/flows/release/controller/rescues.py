"""Which rescued requests count, where the servers of a release run on several machines.

A rescued request could not connect to a server of its arm, and the other arm's server answered it. It is its arm's
failure where the supervisor of a machine reports that a server of the arm failed. The supervisor of a machine that is
lost reports nothing: what requests to it met says nothing of the version.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cumulant.core.traffic import Arm, Exchange
from cumulant.release.evidence.look import counting

if TYPE_CHECKING:
    from cumulant.release.state import Release

#: seconds by which a report of a failed server may be read before the requests that it failed, or after them
_APART = 10.0


class ReportedServer(Protocol):
    """A server as its supervisor reports it; `restarts`: in the last minute."""

    @property
    def ready(self) -> bool | None: ...

    @property
    def restarts(self) -> int: ...


@dataclass(slots=True)
class _Rescue:
    """A rescued request. `failed`: whether a report of a failed server explains it."""

    exchange: Exchange
    read_at: float
    failed: bool


class RescuedRequests:
    """Chooses the requests that count. Call `observe` once a second."""

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        #: by URL, what was reported last
        self._servers: dict[str, ReportedServer] = {}
        #: by arm, when a server of it was last reported to have failed
        self._failed_at: dict[str, float] = {}
        #: the cursor of the last look, and that after it, which the release has once the result is stored
        self._cursor = self._next = ""
        #: rescues before the cursor of the last look, those that it read, and those of both that nothing explained
        self._before: list[_Rescue] = []
        self._read: dict[Exchange, _Rescue] = {}
        self._unexplained: list[_Rescue] = []

    def observe(self, arms: Sequence[Arm], servers: Mapping[str, ReportedServer]) -> None:
        """Note which arms have a server that has failed since the last call, by what is reported now."""
        now = self._steady()
        failed = {url for url, server in servers.items() if _has_failed_since(self._servers.get(url), server)}
        self._servers = dict(servers)
        for arm in arms:
            if failed.intersection(arm.endpoints):
                self._failed_at[arm.name] = now
        self._unexplained = [rescue for rescue in self._unexplained if now - rescue.read_at <= _APART]
        for rescue in self._unexplained:
            rescue.failed |= self._failed_at.get(rescue.exchange.assigned) == now

    def count_recent(self, exchanges: Sequence[Exchange], seconds: float) -> list[Exchange]:
        """Those of the last `seconds` that count by what is known now."""
        return [exchange for exchange in exchanges if not exchange.rescued or self._has_failed(exchange, seconds)]

    def count(self, release: Release, exchanges: Sequence[Exchange], seconds: float, *, after: str) -> list[Exchange]:
        """Those of a look of `seconds` that count, and those of earlier looks that a report explains by now. What
        none explains in time is left out: a version that ends its server is reported within seconds.

        `exchanges` are those between the release's cursor and `after`. A look whose result was not stored is repeated
        from the same cursor: it counts the same requests again, each as it was read first.
        """
        if release.cursor == self._next:
            self._before, self._read = self._unexplained, {}
        elif release.cursor != self._cursor:  # another process has looked
            self._before, self._read = [], {}
        self._cursor, self._next = release.cursor, after
        counted = [exchange for exchange in exchanges if not exchange.rescued]
        rescues = [*self._before, *(self._rescue(exchange, seconds) for exchange in exchanges if exchange.rescued)]
        self._unexplained = [rescue for rescue in rescues if not rescue.failed]
        explained = [rescue.exchange for rescue in rescues if rescue.failed]
        return counted + counting(explained, model=release.model, revision=release.revision)

    def _rescue(self, exchange: Exchange, seconds: float) -> _Rescue:
        if exchange not in self._read:
            self._read[exchange] = _Rescue(exchange, self._steady(), self._has_failed(exchange, seconds))
        return self._read[exchange]

    def _has_failed(self, exchange: Exchange, seconds: float) -> bool:
        """Whether a server of the arm was reported to fail about the last `seconds`."""
        failed_at = self._failed_at.get(exchange.assigned)
        return failed_at is not None and self._steady() - failed_at <= seconds + _APART


def _has_failed_since(before: ReportedServer | None, now: ReportedServer) -> bool:
    """Whether a server has ended, or ceased to answer, between two reports. One report does not show when."""
    if before is None:
        return False
    return now.restarts > before.restarts or (now.ready is False and before.ready is not False)
