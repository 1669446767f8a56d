"""From a request to a call of an operation, and from its result to a response."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints
from urllib.parse import unquote

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from cumulant.core.errors import ForbiddenError, NotFoundError, RequestError
from cumulant.core.structs import json_value
from cumulant.flows.ledger.actions import permits
from cumulant.server.operation import ApiCall, Operation
from cumulant.server.problem import MEDIA_TYPE, ProblemDocument, problem_headers, problem_of
from cumulant.serving.errors import HttpError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Scope

    from cumulant.core.errors import CumulantError
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

JSON = "application/json"
#: largest body of a request, in bytes
MOST_BYTES = 1 << 20
_PROJECTS = "/v1/projects/"


def keep_segments(scope: Scope) -> None:
    """Let an encoded slash in a path of the API be a part of its segment, as the caller meant it.

    Servers decode a path before it is divided. From here on, the path has `%` and `/` within a segment encoded, which
    whoever reads its parameters decodes: each is decoded once, however it was encoded.
    """
    raw: bytes = scope.get("raw_path") or b""
    if b"%" in raw and scope["path"].startswith(_PROJECTS):
        segments = [unquote(each) for each in raw.partition(b"?")[0].decode("latin-1").split("/")]
        scope["path"] = "/".join(each.replace("%", "%25").replace("/", "%2F") for each in segments)


def project_of(request: Request) -> Project:
    """The project that the path names. Raises NotFoundError."""
    projects: Mapping[str, Project] = request.app.state.projects
    name = unquote(request.path_params["project"])
    project = projects.get(name)
    if project is None:
        raise _no_project(name)
    return project


def as_seen(request: Request, project: Project, action: str, error: CumulantError) -> CumulantError:
    """The error of a request; that of a name that no project has where the project is hidden from the caller."""
    return _no_project(project.name) if is_hidden(request, project, action, error) else error


def is_hidden(request: Request, project: Project, action: str, error: CumulantError) -> bool:
    """Whether an error must not tell that there is such a project: the caller may neither see it nor do the action.

    So nobody finds out which projects there are. A refusal is recorded before, as every one.
    """
    if getattr(request.state, "project", "") == project.name or may_see(project, request.state.principal):
        return False
    able = any(permits(project, request.state.principal, action, model=model) for model in (None, ""))
    return not able or isinstance(error, ForbiddenError)


def may_see(project: Project, principal: Principal) -> bool:
    """Whether the lists of projects show it to the principal."""
    return permits(project, principal, "project.overview")


def _no_project(name: str) -> NotFoundError:
    return NotFoundError(f'this server has no project named "{name[:80]}"', subject=name[:80], hint="GET /v1/projects")


async def arguments_of(request: Request, operation: Operation) -> dict[str, Any]:
    """The arguments of the operation's function: path, query and body, checked.

    Raises:
        RequestError: they do not fit the declared types.
        HttpError: the body is too large (413), or no JSON (415).
    """
    arguments: dict[str, Any] = {name: unquote(request.path_params[name]) for name in operation.parameters}
    types = operation.types
    query = read_query(request, types.get("query"))
    if query is not None:
        arguments["query"] = query
    if "body" in types:
        arguments["body"] = decode_body(await read_body(request), types["body"])
    return arguments


def read_query(request: Request, kind: type[msgspec.Struct] | None) -> msgspec.Struct | None:
    """The query parameters as a struct; None where the operation takes none.

    Raises:
        RequestError: a parameter is unknown, given twice or of another type.
    """
    known = {} if kind is None else get_type_hints(kind)  # without what is annotated
    values: dict[str, object] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            hint = f"it takes {', '.join(known)}" if known else "it takes none"
            raise RequestError(f'the query parameter "{name[:80]}" is not known', subject=name[:80], hint=hint)
        if get_origin(known[name]) is tuple:
            values[name] = (*values.get(name, ()), value)  # type: ignore[misc]
        elif name in values:
            raise RequestError(f'the query parameter "{name}" is given twice', subject=name)
        else:
            values[name] = value
    if kind is None:
        return None
    try:
        return msgspec.convert(values, kind, strict=False)
    except (msgspec.ValidationError, OverflowError) as error:
        raise RequestError(f"the query is invalid: {error}", hint="see /v1/openapi.json") from None


async def read_body(request: Request) -> bytes:
    """The body of a request, at most `MOST_BYTES`. Raises HttpError."""
    content_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if content_type != JSON:
        raise HttpError(415, f'the body is "{content_type[:80]}", and has to be {JSON}')
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise HttpError(413, f"the body is larger than {MOST_BYTES >> 20} MiB")
    return bytes(content)


def decode_body(content: bytes, kind: Any) -> Any:
    """Raises RequestError: it is no JSON of that type."""
    try:
        return msgspec.json.decode(content or b"{}", type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"the body is invalid: {error}", hint="see /v1/openapi.json") from None


async def run_operation(call: ApiCall, operation: Operation, arguments: dict[str, Any]) -> bytes:
    """The operation's result as JSON. Flows block: each takes a thread, but for what is done at once. Raises
    CumulantError.
    """
    result = None if operation.at_once is None else operation.at_once(call, **arguments)
    if result is not None:
        return encode(result)

    def run() -> bytes:
        return encode(operation.run(call, **arguments))

    return await run_in_threadpool(run)


def encode(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=json_value)


def entity_tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def json_response(content: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, status, {"cache-control": "no-store"} | dict(headers or {}), JSON)


def replayed_response(content: bytes, status: int, headers: Mapping[str, str]) -> Response:
    """A recorded response again: a result, or a problem document."""
    kind = JSON if status < 400 else MEDIA_TYPE
    return Response(content, status, {"cache-control": "no-store"} | dict(headers), kind)


def read_response(request: Request, content: bytes) -> Response:
    """The result of a read, or 304 where the caller has it already."""
    tag = entity_tag(content)
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return json_response(content, headers=headers)


def error_response(error: CumulantError) -> Response:
    return problem_response(problem_of(error), problem_headers(error))


def problem_response(problem: ProblemDocument, headers: Mapping[str, str] | None = None) -> Response:
    content = msgspec.json.encode(problem)
    return Response(content, problem.status, {"cache-control": "no-store"} | dict(headers or {}), MEDIA_TYPE)
