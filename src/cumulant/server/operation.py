"""An operation: one method of one path, the flow behind it, and the types that it takes and returns.

A function becomes one by a decorator, and its signature says the rest:

    @post("/models/{model}/alias", action="model.alias")
    def set_alias(call: ApiCall, model: str, body: AliasBody) -> ModelVersion: ...

Parameters named in the path are texts; `query` and `body` are structs; the result is anything that msgspec encodes.
The flow that the function calls checks the action; where it calls none, it calls `call.check()` itself.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Generator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_type_hints

import msgspec

from cumulant.core.errors import RequestError
from cumulant.core.progress import Progress, silent
from cumulant.flows.ledger.actions import check, find_action, permits

if TYPE_CHECKING:
    from cumulant.flows.overview.project_overview import OverviewMemory
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.server.jobs import Jobs

Method = Literal["GET", "POST", "PUT", "DELETE"]
Item = TypeVar("Item")
Run = Callable[..., object]
#: of an operation's function, on an event loop: its result, or None where it has to wait for something
RunAtOnce = Callable[..., object | None]

#: the media type of JSON lines; the header of a note on them, percent-encoded
LINES, NOTE = "application/x-ndjson", "cumulant-note"
#: the media type of a file that a request carries, and the largest one in bytes
BYTES, MOST_UPLOAD = "application/octet-stream", 64 << 20
#: of the answer to a path that the API has not
NO_PATH = "there is nothing at this path"
#: of a token that is valid in another project of the server
OTHER_PROJECT = "this token is not of this project"
_PARAMETER = re.compile(r"{(\w+)}")
#: most items of a page, and the default
MOST_ITEMS, DEFAULT_ITEMS = 1_000, 50


def _discard(sentence: str) -> None:
    del sentence


class ApiCall:
    """One request for an operation: of which project, by whom. `jobs`: those of the server; none in a job's process.
    `memory`: what the server remembers of the project.

    `note` is told what a result leaves out; a server tells it nobody.
    """

    def __init__(
        self,
        project: Project,
        principal: Principal,
        action: str,
        *,
        jobs: Jobs | None = None,
        memory: OverviewMemory | None = None,
        progress: Progress = silent,
        note: Callable[[str], None] = _discard,
    ) -> None:
        self.project, self.principal, self.action, self.progress = project, principal, action, progress
        self.jobs, self.memory, self.note = jobs, memory, note

    def check(self, *, personal: bool = False) -> None:
        """Check the operation's action; for what no flow checks. Raises RefusedError."""
        check(self.project, self.principal, self.action, personal=personal)

    def check_replay(self, operation: Operation, arguments: Mapping[str, Any]) -> None:
        """Check that the caller may still do what a recorded response is of; a read of rows is an event again.

        Raises:
            ForbiddenError: the principal may not, or its token is not good for it.
        """
        model = arguments.get("model", "")
        of_model = permits(self.project, self.principal, self.action, model=str(model))
        check(
            self.project,
            self.principal,
            self.action,
            model=str(model) if of_model else None,
            personal=operation.personal and not operation.long,  # the response of a long one has no rows
        )


class ListPage(msgspec.Struct, Generic[Item], frozen=True):
    """A part of a list; `next` continues it as the query parameter `cursor`: None at the end."""

    items: list[Item]
    next: str | None = None


class CountedPage(msgspec.Struct, Generic[Item], frozen=True):
    """A part of a list, as `ListPage`; `total`: how many items there are in all, null where they are not counted."""

    items: list[Item]
    next: str | None
    total: int | None


class LineStream:
    """The result of an operation of any size: JSON lines, made while they are read, by one thread."""

    def __init__(self, lines: Generator[bytes, None, None]) -> None:
        self.lines = lines


class PageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of a list."""

    limit: int = msgspec.field(default=DEFAULT_ITEMS)
    cursor: str = ""


class Operation(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """`path` is relative to that of a project. `long`: it may take minutes, so that it runs as a job. `personal`: its
    result has rows that may be personal. `secret`: it has a secret that is shown once, so that it is not stored.
    `at_once`: is tried before `run`, on the event loop.
    """

    name: str
    method: Method
    path: str
    action: str
    run: Run
    long: bool = False
    personal: bool = False
    secret: bool = False
    at_once: RunAtOnce | None = None

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    @cached_property
    def streams(self) -> bool:
        """Whether the result is a `LineStream`."""
        return self.types.get("return") is LineStream

    @cached_property
    def uploads(self) -> bool:
        """Whether the body of a request is a file, which its function takes as the path `upload`."""
        return "upload" in inspect.signature(self.run).parameters

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.run) or "").partition("\n\n")[0].replace("\n", " ")

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters in the path."""
        return tuple(_PARAMETER.findall(self.path))

    @cached_property
    def types(self) -> dict[str, Any]:
        """The types of `query`, `body` and `return`, where it has them."""
        hints = get_type_hints(self.run, include_extras=True)
        return {name: hints[name] for name in ("query", "body", "return") if name in hints}

    def bind(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the function from those of the path and the fields of query and body, by name.

        Raises:
            RequestError: they do not fit the declared types.
        """
        rest = dict(values)
        arguments: dict[str, Any] = {name: str(rest.pop(name)) for name in self.parameters}
        if self.uploads:
            arguments["upload"] = rest.pop("upload")
        for name in ("query", "body"):
            if name in self.types:
                try:
                    arguments[name] = msgspec.convert(
                        msgspec.to_builtins(rest), self.types[name], strict=name == "body"
                    )
                except msgspec.ValidationError as error:
                    raise RequestError(f"the {name} is invalid: {error}", subject=self.name) from None
        return arguments


def get(path: str, *, action: str) -> Callable[[Run], Operation]:
    return _operation("GET", path, action)


def post(
    path: str,
    *,
    action: str,
    long: bool = False,
    personal: bool = False,
    secret: bool = False,
    at_once: RunAtOnce | None = None,
) -> Callable[[Run], Operation]:
    return _operation("POST", path, action, long=long, personal=personal, secret=secret, at_once=at_once)


def delete(path: str, *, action: str) -> Callable[[Run], Operation]:
    return _operation("DELETE", path, action)


def _operation(
    method: Method,
    path: str,
    action: str,
    *,
    long: bool = False,
    personal: bool = False,
    secret: bool = False,
    at_once: RunAtOnce | None = None,
) -> Callable[[Run], Operation]:
    """Raises TerminalError: the action is not declared; when the module is imported, so that no server starts."""
    find_action(action)

    def make(function: Run) -> Operation:
        area = function.__module__.rpartition(".")[2]
        name = f"{area}.{function.__name__.rstrip('_')}"
        return Operation(
            name=name,
            method=method,
            path=path,
            action=action,
            run=function,
            long=long,
            personal=personal,
            secret=secret,
            at_once=at_once,
        )

    return make
