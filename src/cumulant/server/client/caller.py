"""What calls operations of one project, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, cast

from cumulant.core.progress import Progress, silent
from cumulant.server.model_uri import split_uri

if TYPE_CHECKING:
    from cumulant.flows.reports.content import ReportData


class OperationCaller(Protocol):
    """Calls operations by name; path parameters and the fields of query and body are keywords."""

    @property
    def project(self) -> str:
        """The project's name."""
        ...

    def call(self, name: str, /, *, progress: Progress = silent, **arguments: Any) -> Any:
        """The result of an operation, of its declared type. Raises CumulantError."""
        ...

    def pages(self, name: str, /, **arguments: Any) -> Iterator[Any]:
        """All items of a list, page by page."""
        ...


def report_content(caller: OperationCaller, target: str) -> ReportData:
    """The content of the report of a run (`latest`, or the beginning of its id) or of a model. Raises NotFoundError."""
    if "/" in target:
        name, version = split_uri(target)
        return cast("ReportData", caller.call("models.report", model=name, version=version))
    return cast("ReportData", caller.call("runs.report", run=target))


def all_items(caller: OperationCaller, name: str, arguments: dict[str, Any]) -> Iterator[Any]:
    """All items of a list, page by page."""
    cursor = ""
    while True:
        page = caller.call(name, **arguments, cursor=cursor)
        yield from page.items
        if page.next is None:
            return
        cursor = page.next
