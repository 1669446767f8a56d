"""Overviews of a server's projects, and what it remembers for them: one memory a project, whoever reads it.

A list of many projects reads few of them itself: a thread reads the others again, and which of them a principal may see
is remembered for seconds.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from cumulant.core.errors import CumulantError, ForbiddenError
from cumulant.flows.ledger.actions import permits
from cumulant.flows.overview.project_overview import (
    OverviewMemory,
    ProjectOverview,
    read_overview,
    unavailable_overview,
    worst_project_first,
)

if TYPE_CHECKING:
    from cumulant.flows.overview.problems import Level
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

_ACTION = "project.overview"
#: projects that a page itself reads at once
_FEW = 50
#: seconds after which an overview is read again, after which a page waits for it, for which the thread goes on after
#: the last page, and over which it spreads its reads
_FRESH, _OLDEST, _WATCHED, _SPREAD = 5.0, 30.0, 60.0, 10.0
#: most seconds from one of its reads to the next
_PAUSE = 0.05
#: seconds for which the list of projects that a principal may see is remembered, and principals of whom it is
_REMEMBERED, _PRINCIPALS = 5.0, 32
#: seconds that a closed server waits for a read to end
_ENDED = 10.0
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class _Reading(NamedTuple):
    overview: ProjectOverview
    at: float


class _Visible(NamedTuple):
    """The projects that a principal may see, since `at`; `unknown`: those whose policies cannot be read."""

    projects: Mapping[str, Project]
    unknown: tuple[ProjectOverview, ...]
    at: float


class OverviewList(NamedTuple):
    """Overviews, the worst first, and how many are of each level. `until`, `changes`: how long they are so."""

    overviews: Sequence[ProjectOverview]
    levels: Mapping[Level, int]
    until: float = 0.0
    changes: int = 0


class Overviews:
    """Of all projects of a server. Threads may share it."""

    def __init__(self, *, steady: Callable[[], float] = time.monotonic, few: int = _FEW) -> None:
        self._steady, self._few = steady, few
        self._lock = threading.Lock()
        self._memories: WeakKeyDictionary[Project, OverviewMemory] = WeakKeyDictionary()
        self._readings: dict[str, _Reading] = {}
        self._lists: OrderedDict[bytes, tuple[_Visible, OverviewList]] = OrderedDict()
        #: overviews that were not as before
        self._changes = 0
        self._viewed = 0.0
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()

    def memory(self, project: Project) -> OverviewMemory:
        """What is remembered of a project, as long as it is loaded."""
        with self._lock:
            memory = self._memories.get(project)
            if memory is None:
                memory = self._memories[project] = OverviewMemory(project.name)
            return memory

    def page(self, principal: Principal, projects: Mapping[str, Project], place: slice) -> OverviewList:
        """All that the principal may see, where those at `place` and the worst are checked now.

        Of many projects, who may see which is up to 5 s old, as is how many there are of each level.
        """
        key = msgspec.json.encode(msgspec.structs.replace(principal, source="", trace=""))
        known, now = self._lists.get(key), self._steady()
        if known is not None and now - known[0].at < _REMEMBERED:
            listed = self._current(*known)
            shown = {each.project for each in (*listed.overviews[:1], *listed.overviews[place])}
            shown -= {each.project for each in known[0].unknown}
            if all(_may_see(principal, projects.get(name)) for name in shown):
                self._remember(key, known[0], listed)
                return listed
        visible = _visible(principal, projects, now)
        listed = self._list(visible)
        if len(visible.projects) > self._few:
            self._remember(key, visible, listed)
        return listed

    def _remember(self, key: bytes, visible: _Visible, listed: OverviewList) -> None:
        with self._lock:
            self._lists[key] = (visible, listed)
            self._lists.move_to_end(key)
            while len(self._lists) > _PRINCIPALS:
                self._lists.popitem(last=False)

    def _current(self, visible: _Visible, listed: OverviewList) -> OverviewList:
        self._viewed = now = self._steady()
        if listed.changes == self._changes and now < listed.until:
            return listed
        return self._list(visible)

    def _list(self, visible: _Visible) -> OverviewList:
        changes = self._changes
        overviews = worst_project_first([*self.of(visible.projects), *visible.unknown])
        readings = (self._readings.get(name) for name in visible.projects)
        until = min((reading.at for reading in readings if reading is not None), default=0.0) + _OLDEST
        return OverviewList(overviews, Counter(each.level for each in overviews), until, changes)

    def of(self, projects: Mapping[str, Project]) -> list[ProjectOverview]:
        """The overviews of these: as they are now of few projects, of many at most 30 s old."""
        oldest = 0.0 if len(projects) <= self._few else _OLDEST
        self._viewed = self._steady()
        listed = [self._reading(project, oldest).overview for project in projects.values()]
        if oldest:
            self._follow(tuple(projects.values()))
        return listed

    def _reading(self, project: Project, oldest: float) -> _Reading:
        known, now = self._readings.get(project.name), self._steady()
        if known is not None and now - known.at < oldest:
            return known
        overview = self._read(project)
        if known is not None and _same(known.overview, overview):
            overview = known.overview
        else:
            self._changes += 1
        reading = self._readings[project.name] = _Reading(overview, now)
        return reading

    def _read(self, project: Project) -> ProjectOverview:
        try:
            return read_overview(project, memory=self.memory(project))
        except CumulantError as error:
            return unavailable_overview(project, error, datetime.now(UTC))

    def warm(self, projects: Iterable[Project], first: Callable[[], None] = lambda: None) -> None:
        """Let a thread do `first` and read each project once, so that the first page need not."""
        waiting = tuple(projects)

        def work() -> None:
            first()
            for project in waiting:
                if self._closed.is_set():
                    return
                self._reading(project, _FRESH)

        self._start(work, "warm-up")

    def close(self) -> None:
        """Let the threads end, before the projects are closed."""
        self._closed.set()
        for thread in self._threads:
            thread.join(_ENDED)

    def _start(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def _follow(self, projects: Sequence[Project]) -> None:
        """Let a thread read what is not fresh, as long as somebody looks."""
        with self._lock:
            if not self._closed.is_set() and all(each.name != "overviews" for each in self._threads if each.is_alive()):
                self._start(lambda: self._work(projects), "overviews")

    def _work(self, projects: Sequence[Project]) -> None:
        while self._steady() - self._viewed < _WATCHED:
            for project in projects:
                began = time.monotonic()
                self._reading(project, _FRESH)
                spent = time.monotonic() - began
                if self._closed.wait(max(0.0, min(_PAUSE, _SPREAD / len(projects)) - spent)):
                    return
            if self._closed.wait(_FRESH):
                return


def _visible(principal: Principal, projects: Mapping[str, Project], now: float) -> _Visible:
    """Others are not listed, and nothing says that they exist."""
    visible: list[str] = []
    unknown: list[ProjectOverview] = []
    for name, project in projects.items():
        try:
            if permits(project, principal, _ACTION):
                visible.append(name)
        except ForbiddenError:
            continue
        except CumulantError as error:  # its policies cannot be read
            unknown.append(unavailable_overview(project, error, datetime.now(UTC)))
    return _Visible({name: projects[name] for name in visible}, tuple(unknown), now)


def _may_see(principal: Principal, project: Project | None) -> bool:
    try:
        return project is not None and permits(project, principal, _ACTION)
    except CumulantError:
        return False


def _same(known: ProjectOverview, overview: ProjectOverview) -> bool:
    return msgspec.structs.replace(known, at=_NO_TIME) == msgspec.structs.replace(overview, at=_NO_TIME)
