"""What a console remembers of each project, so that pages read again only what has changed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from cumulant.flows.data.source_views import source_caches
from cumulant.flows.ledger.run_views import run_cache
from cumulant.flows.release.store import past_cache
from cumulant.flows.review.case_index import CaseIndex
from cumulant.flows.review.read_ahead import ReadAhead

if TYPE_CHECKING:
    from cumulant.project.project import Project


class ProjectMemory:
    """Of one project: each part is brought up to date by the flow that it is given to."""

    def __init__(self) -> None:
        self.cases = CaseIndex()
        self.ahead = ReadAhead()
        self.releases = past_cache()
        self.sources = source_caches()
        self.runs = run_cache()


class Memories:
    """One memory a project, as long as the project is loaded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._memories: WeakKeyDictionary[Project, ProjectMemory] = WeakKeyDictionary()

    def of(self, project: Project) -> ProjectMemory:
        with self._lock:
            memory = self._memories.get(project)
            if memory is None:
                memory = self._memories[project] = ProjectMemory()
            return memory
