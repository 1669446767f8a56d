"""What the supervisor's status file says of the servers, read so that no fault in it stops a release."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from cumulant.core.traffic import Arm

STATUS = "status.json"
_MINUTE = 60.0


class Told(msgspec.Struct, frozen=True):
    """One server as the supervisor tells of it. `restarts` counts up; `life` changes with each start, else ""."""

    url: str = ""
    ready: bool | None = None
    restarts: int = 0


def told(stack: Path) -> dict[str, Told]:
    """By URL, what the file in the folder `stack` says; nothing where it is missing, half written or strange."""
    try:
        found = msgspec.json.decode((stack / STATUS).read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    rows = found.get("processes", []) if isinstance(found, dict) else found
    entries = [_entry(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {one.url: one for one in entries if one.url}


def _entry(row: Mapping[str, object]) -> Told:
    url, ready, restarts = row.get("url"), row.get("ready"), row.get("restarts")
    return Told(
        url=url.rstrip("/") if isinstance(url, str) else "",
        ready=ready if isinstance(ready, bool) else None,
        restarts=restarts if isinstance(restarts, int) else 0,
    )


class Lives:
    """Restarts of the last minute and time without a ready server, both by a steady clock.

    An arm that has not been ready yet in this release is starting, and gets `grace` seconds for it.
    """

    def __init__(self, steady: Callable[[], float], *, grace: float = 60.0) -> None:
        self._steady, self._grace = steady, grace
        self._restarts: dict[str, deque[tuple[float, int]]] = {}
        self._since: dict[str, float] = {}
        self._ready_once: set[str] = set()

    def restarts(self, arm: Arm, servers: Mapping[str, Told]) -> int:
        """Starts of the arm's servers again, within the last minute of watching."""
        known = [servers[url.rstrip("/")] for url in arm.endpoints if url.rstrip("/") in servers]
        return sum(self._recent(one) for one in known)

    def _recent(self, server: Told) -> int:
        now = self._steady()
        seen = self._restarts.setdefault(server.url, deque())
        if seen and server.restarts < seen[-1][1]:  # another supervisor counts from 0
            seen.clear()
        if not seen or server.restarts != seen[-1][1]:
            seen.append((now, server.restarts))
        # The newest count before the minute is what the minute began with.
        while len(seen) > 1 and seen[1][0] <= now - _MINUTE:
            seen.popleft()
        return seen[-1][1] - seen[0][1]

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
