"""Calls of operations in this process, on a loaded project: the one path of commands that take `--server`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cumulant.core.progress import Progress, silent
from cumulant.server.client.caller import all_items
from cumulant.server.operation import ApiCall
from cumulant.server.operations import find_operation

if TYPE_CHECKING:
    from cumulant.project.project import Project


class LocalApi:
    """Operations of a loaded project, as its user. The caller closes the project. `note`: as in `ApiCall`."""

    def __init__(self, project: Project, note: Callable[[str], None]) -> None:
        self._loaded, self._note = project, note
        self.project = project.name

    def call(self, name: str, /, *, progress: Progress = silent, **arguments: Any) -> Any:
        """The result of the operation `name`. Raises CumulantError: that of the operation."""
        operation = find_operation(name)
        call = ApiCall(self._loaded, self._loaded.principal(), operation.action, progress=progress, note=self._note)
        return operation.run(call, **operation.bind(arguments))

    def pages(self, name: str, /, **arguments: Any) -> Iterator[Any]:
        return all_items(self, name, arguments)
