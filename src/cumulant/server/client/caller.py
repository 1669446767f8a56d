"""What calls operations of one project, wherever it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, cast

from cumulant.core.errors import EngineUnavailableError, StepCancelledError, error_from
from cumulant.core.progress import Progress, silent
from cumulant.server.model_uri import split_uri

if TYPE_CHECKING:
    from cumulant.core.events import Event
    from cumulant.flows.reports.content import ReportData
    from cumulant.server.jobs import Job

#: between two questions how a job does
_JOB_SECONDS = 0.5


class OperationCaller(Protocol):
    """Calls operations by name; path parameters and the fields of query and body are keywords."""

    @property
    def project(self) -> str:
        """The project's name."""
        ...

    def call(self, name: str, /, *, progress: Progress = silent, **arguments: Any) -> Any:
        """The result of an operation, of its declared type. Raises CumulantError."""
        ...

    def submit(self, name: str, /, **arguments: Any) -> Job:
        """Begin a long operation as a job of the server. Raises UsageError: there is no server."""
        ...

    def pages(self, name: str, /, **arguments: Any) -> Iterator[Any]:
        """All items of a list, page by page."""
        ...

    def lines(self, name: str, /, **arguments: Any) -> Iterator[bytes]:
        """The lines of an operation whose result is a `LineStream`, as they come."""
        ...

    def events(
        self, *, after: int | None = None, kinds: tuple[str, ...] = (), seconds: float | None = None
    ) -> Iterator[Event]:
        """Events after that one (None: from now on) as they happen, each once; for so long, or for ever."""
        ...


def report_content(caller: OperationCaller, target: str) -> ReportData:
    """The content of the report of a run (`latest`, or the beginning of its id) or of a model. Raises NotFoundError."""
    if "/" in target:
        name, version = split_uri(target)
        return cast("ReportData", caller.call("models.report", model=name, version=version))
    return cast("ReportData", caller.call("runs.report", run=target))


def follow_job(caller: OperationCaller, job: str, progress: Progress = silent) -> Job:
    """Wait until a job has succeeded.

    Raises:
        CumulantError: its error. StepCancelledError: it was cancelled. EngineUnavailableError: its server ended.
    """
    reported: set[str] = set()
    while True:
        current = _job(caller, job)
        for step in current.steps:  # those between two questions, too
            if step not in reported:
                progress(step)
                reported.add(step)
        if current.status == "running":
            if current.share is not None or current.step not in reported:
                progress(current.step, current.share)
            time.sleep(_JOB_SECONDS)
        elif current.status == "succeeded":
            return current
        elif current.status == "failed":
            raise error_from(current.error or {})
        elif current.status == "lost":
            hint = "run it again: finished steps are kept"
            raise EngineUnavailableError(f"the server ended while job {job} ran", subject=job, hint=hint)
        else:
            hint = "finished steps are kept: run it again to continue from them"
            raise StepCancelledError(f"job {job} is cancelled", subject=job, hint=hint)


def _job(caller: OperationCaller, job: str) -> Job:
    try:
        return cast("Job", caller.call("jobs.show", job=job))
    except EngineUnavailableError as error:
        hint = f"the job may still run there: `cumulant jobs follow {job}` shows it once the server answers"
        raise EngineUnavailableError(error.message, subject=error.subject, hint=hint) from None


def all_items(caller: OperationCaller, name: str, arguments: dict[str, Any]) -> Iterator[Any]:
    """All items of a list, page by page."""
    cursor = ""
    while True:
        page = caller.call(name, **arguments, cursor=cursor)
        yield from page.items
        if page.next is None:
            return
        cursor = page.next
