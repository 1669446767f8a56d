"""The demo's callers: a replay in a thread of its own while releases come and go."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import cumulant
from cumulant.core.errors import CumulantError

if TYPE_CHECKING:
    from cumulant.api.results import ReplayResult

#: requests at once: where these are more than the machine serves, all wait for each other, and a slow candidate's
#: quarter of a second is no longer twice a request's time
_CONCURRENCY = 12


class DemoCallers:
    """Requests of the rows from `since` on, in order, to the stack of `project`."""

    def __init__(self, project: cumulant.Project, *, since: datetime, until: datetime, speed: float) -> None:
        self._project, self._since, self._until, self._speed = project, since, until, speed
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._failures: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error: CumulantError | None = None
        self.replayed: ReplayResult | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more is sent."""
        return not self._thread.is_alive()

    def take_failures(self) -> dict[str, int]:
        """Failures since the last call of this, by the party that failed."""
        with self._lock:
            failures, self._failures = dict(self._failures), Counter()
        return failures

    @contextmanager
    def calling(self) -> Iterator[DemoCallers]:
        """They call while the block runs."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            self._thread.join()

    def _run(self) -> None:
        try:
            with cumulant.open(self._project.root, env=self._project.env) as project:
                self.replayed = project.outcomes.replay(
                    self._since,
                    self._until,
                    speed=self._speed,
                    concurrency=_CONCURRENCY,
                    restart=True,
                    scale_release=False,
                    is_cancelled=self._stopped.is_set,
                    on_response=self._count,
                )
        except CumulantError as error:
            self.error = error

    def _count(self, failed_party: str) -> None:
        if failed_party:
            with self._lock:
                self._failures[failed_party] += 1
