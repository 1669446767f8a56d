"""Calls of operations in this process, on a loaded project: the one path of commands that take `--server`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cumulant.core.errors import UsageError
from cumulant.core.progress import Progress, silent
from cumulant.ports.journal_store import fits_kinds
from cumulant.server.client.caller import all_items
from cumulant.server.jobs import Job, Jobs
from cumulant.server.operation import ApiCall, LineStream
from cumulant.server.operations import find_operation

if TYPE_CHECKING:
    from cumulant.core.events import Event
    from cumulant.project.project import Project

#: seconds of one wait for the journal
_WAIT = 5.0


class LocalApi:
    """Operations of a loaded project, as its user. The caller closes the project. `note`: as in `ApiCall`."""

    def __init__(self, project: Project, note: Callable[[str], None]) -> None:
        self._loaded, self._note = project, note
        self.project = project.name

    def call(self, name: str, /, *, progress: Progress = silent, **arguments: Any) -> Any:
        """The result of the operation `name`. Raises CumulantError: that of the operation."""
        operation = find_operation(name)
        call = ApiCall(
            self._loaded,
            self._loaded.principal(),
            operation.action,
            jobs=Jobs() if name.startswith("jobs.") else None,
            progress=progress,
            note=self._note,
        )
        return operation.run(call, **operation.bind(arguments))

    def submit(self, name: str, /, **arguments: Any) -> Job:
        del arguments
        raise UsageError(
            "without a server the command does its work itself", subject=name, hint="name the server: --server URL"
        )

    def pages(self, name: str, /, **arguments: Any) -> Iterator[Any]:
        return all_items(self, name, arguments)

    def lines(self, name: str, /, **arguments: Any) -> Iterator[bytes]:
        stream: LineStream = self.call(name, **arguments)
        return stream.lines

    def events(
        self, *, after: int | None = None, kinds: tuple[str, ...] = (), seconds: float | None = None
    ) -> Iterator[Event]:
        journal = self._loaded.journal()
        until = None if seconds is None else time.monotonic() + seconds
        seq = journal.head().seq if after is None else after
        while True:
            for event in journal.events(after=seq):
                seq = event.seq
                if fits_kinds(event.kind, kinds):
                    yield event
            remaining = _WAIT if until is None else until - time.monotonic()
            if remaining <= 0:
                return
            journal.wait(seq, min(remaining, _WAIT))
