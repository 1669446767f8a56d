"""The base of the groups of methods that a project has, such as `project.releases`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.core.progress import Progress
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project as Loaded


class MethodGroup:
    """Methods of one subject. `follow` shows the progress of a method, by its title."""

    def __init__(self, loaded: Loaded, follow: Callable[[str], AbstractContextManager[Progress]]) -> None:
        self._loaded = loaded
        self._follow = follow

    @property
    def _principal(self) -> Principal:
        return self._loaded.principal()
