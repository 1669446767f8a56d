"""Overviews of many projects in memory: a page of all of them reads few, and a thread reads the others again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from cumulant.core.errors import CumulantError
from cumulant.flows.overview.project_overview import ProjectOverview, read_overview, unavailable_overview

if TYPE_CHECKING:
    from cumulant.console.memory import Memories
    from cumulant.project.project import Project

#: projects that a page itself reads at once
_FEW = 50
#: seconds after which an overview is read again, after which a page waits for it, and for which the thread goes on
#: after the last page
_FRESH, _OLDEST, _WATCHED = 5.0, 30.0, 60.0


class _Reading(NamedTuple):
    overview: ProjectOverview
    at: float


class Overviews:
    """The overviews of a server's projects, whoever may see them: the page checks that. Threads may share it."""

    def __init__(self, memories: Memories, *, steady: Callable[[], float] = time.monotonic, few: int = _FEW) -> None:
        self._memories, self._steady, self._few = memories, steady, few
        self._lock = threading.Lock()
        self._readings: dict[str, _Reading] = {}
        self._viewed = 0.0
        self._thread: threading.Thread | None = None

    def of(self, projects: Mapping[str, Project]) -> list[ProjectOverview]:
        """The overviews of these: as they are now of few projects, of many at most `_OLDEST` seconds old."""
        oldest = 0.0 if len(projects) <= self._few else _OLDEST
        self._viewed = self._steady()
        listed = [self._reading(project, oldest).overview for project in projects.values()]
        if oldest:
            self._follow(dict(projects))
        return listed

    def _reading(self, project: Project, oldest: float) -> _Reading:
        known, now = self._readings.get(project.name), self._steady()
        if known is not None and now - known.at < oldest:
            return known
        reading = _Reading(self._read(project), now)
        self._readings[project.name] = reading
        return reading

    def _read(self, project: Project) -> ProjectOverview:
        try:
            return read_overview(project, memory=self._memories.of(project).overview)
        except CumulantError as error:
            return unavailable_overview(project, error, datetime.now(UTC))

    def _follow(self, projects: Mapping[str, Project]) -> None:
        """Let a thread read what is not fresh, as long as somebody looks."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, args=(projects,), name="overviews", daemon=True)
                self._thread.start()

    def _work(self, projects: Mapping[str, Project]) -> None:
        while self._steady() - self._viewed < _WATCHED:
            for project in projects.values():
                self._reading(project, _FRESH)
            time.sleep(_FRESH)
