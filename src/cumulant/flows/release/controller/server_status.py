"""Server status as the supervisor's file gives it, read so that no fault in it stops a release."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from cumulant.core.traffic import Arm
from cumulant.flows.stack.status import STATUS


class ServerStatus(msgspec.Struct, frozen=True):
    """One server by the supervisor's file; `restarts` are those of the last minute."""

    url: str = ""
    ready: bool | None = None
    restarts: int = 0


def read_server_status(stack: Path) -> dict[str, ServerStatus]:
    """By URL, what the file in the folder `stack` says; nothing where it is missing, half written or strange."""
    try:
        document = msgspec.json.decode((stack / STATUS).read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    rows = document.get("children", []) if isinstance(document, dict) else document
    entries = [_entry(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {entry.url: entry for entry in entries if entry.url}


def _entry(row: Mapping[str, object]) -> ServerStatus:
    url, ready, restarts = row.get("url"), row.get("ready"), row.get("restarts")
    return ServerStatus(
        url=url.rstrip("/") if isinstance(url, str) else "",
        ready=ready if isinstance(ready, bool) else None,
        restarts=restarts if isinstance(restarts, int) else 0,
    )


class ReadinessTimer:
    """Time without a ready server, by a steady clock.

    An arm that has not been ready yet in this release is starting, and gets `grace` seconds for it.
    """

    def __init__(self, steady: Callable[[], float], *, grace: float = 60.0) -> None:
        self._steady, self._grace = steady, grace
        self._since: dict[str, float] = {}
        self._ready_once: set[str] = set()

    def not_ready(self, key: str, *, ready: bool | None) -> float:
        """Seconds for which the arm has not been ready. None: nobody knows, and nothing is held against it."""
        now = self._steady()
        if ready is None or ready:
            self._since.pop(key, None)
            if ready:
                self._ready_once.add(key)
            return 0.0
        lasted = now - self._since.setdefault(key, now)
        return lasted if key in self._ready_once else max(0.0, lasted - self._grace)


def count_restarts(arm: Arm, servers: Mapping[str, ServerStatus]) -> int:
    """How often the arm's servers were started again in the last minute."""
    return sum(servers[url.rstrip("/")].restarts for url in arm.endpoints if url.rstrip("/") in servers)
