"""The demo's callers: a replay that goes on in a thread of its own while releases come and go."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError
from cumulant.flows.replay.replay import ReplayResult, replay
from cumulant.flows.replay.sending import Sent, failed_party

if TYPE_CHECKING:
    from cumulant.project.project import Project


class DemoCallers:
    """Requests of a period, one after the other. `failed` counts the failures since the last `taken`."""

    def __init__(self, project: Project, *, since: datetime, until: datetime, speed: float) -> None:
        self._root, self._environment = project.root, project.environment
        self._since, self._until, self._speed = since, until, speed
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._failed: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.requests = 0
        self.error: CumulantError | None = None
        self.replayed: ReplayResult | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more is sent."""
        return not self._thread.is_alive()

    def taken(self) -> dict[str, int]:
        """Failures since this was called last, by whose they were."""
        with self._lock:
            failed, self._failed = dict(self._failed), Counter()
        return failed

    @contextmanager
    def calling(self) -> Iterator[DemoCallers]:
        """They call while the block runs."""
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()

    def _run(self) -> None:
        try:
            from cumulant.project.file.loading import load

            with load(self._root, environment=self._environment) as project:
                self.replayed = replay(
                    project,
                    principal=project.principal(),
                    since=self._since,
                    until=self._until,
                    speed=self._speed,
                    again=True,
                    release_clock=False,
                    ended=self._ended.is_set,
                    seen=self._seen,
                )
        except CumulantError as error:
            self.error = error

    def _seen(self, sent: Sent) -> None:
        whose = failed_party(sent)
        with self._lock:
            self.requests += 1
            if whose:
                self._failed[whose] += 1
