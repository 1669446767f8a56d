"""The ASGI application of the API: routes of all operations, problem documents for every error."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cumulant.core.clock import SystemClock
from cumulant.core.errors import CumulantError, ForbiddenError, NotFoundError
from cumulant.core.prometheus import OPEN_METRICS, TEXT, accepts_open_metrics, exposition
from cumulant.core.version import __version__
from cumulant.flows.access.allowed import allowed
from cumulant.flows.observe.families import FAMILIES as PROJECT_FAMILIES
from cumulant.flows.observe.project_metrics import project_series
from cumulant.project.redaction import redaction_of
from cumulant.server.handler import (
    arguments_of,
    as_seen,
    encode,
    error_response,
    json_response,
    keep_segments,
    problem_response,
    project_of,
    read_response,
    replayed_response,
    run_operation,
)
from cumulant.server.idempotency import IdempotentRequest
from cumulant.server.jobs import Jobs
from cumulant.server.openapi import document
from cumulant.server.operation import NO_PATH, ApiCall, Operation
from cumulant.server.operation_list import OPERATIONS
from cumulant.server.overviews import Overviews
from cumulant.server.problem import problem, problem_of
from cumulant.server.project_routes import PREFIX, ProjectRoutes
from cumulant.server.request_metrics import FAMILIES, ApiRequestCounter, note_route
from cumulant.server.response_headers import ResponseHeaders
from cumulant.server.streaming.event_stream import EventFeeds, stream_events
from cumulant.server.streaming.line_streams import MOST as MOST_LINE_STREAMS
from cumulant.server.streaming.line_streams import LinePlaces, stream_lines
from cumulant.server.streaming.uploads import run_with_upload
from cumulant.serving.telemetry.access_log import write_fault

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from cumulant.project.project import Project

#: files that requests carry at once
_MOST_UPLOADS = 4
#: recorded in place of a response with a secret, which is stored nowhere
_SHOWN_ONCE = problem(
    409,
    "this request has been done, and its response with a secret was sent once",
    code="conflict",
    hint="where it did not arrive, revoke what it created and send the request under a new key",
)
Endpoint = Callable[[Request], Awaitable[Response]]
Middleware = Callable[["ASGIApp"], "ASGIApp"]


class ProjectSummary(msgspec.Struct, frozen=True):
    """A project that this server has."""

    name: str
    environment: str
    tenant: str
    region: str


class ServerDescription(msgspec.Struct, frozen=True):
    """What this server is, and who the caller is for it."""

    name: str
    version: str
    principal: str
    projects: list[ProjectSummary]


class Application(Starlette):
    """Starlette, whose answer to an unknown error has our headers too: it is made outside of all its middlewares."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            keep_segments(scope)
        await ResponseHeaders(super().__call__)(scope, receive, send)


def create_application(
    projects: Mapping[str, Project],
    *,
    authenticate: Middleware,
    pages: Sequence[BaseRoute] = (),
    jobs: Jobs,
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]] | None = None,
) -> Starlette:
    """The API of these projects.

    `authenticate` is an ASGI middleware that sets `request.state.principal` or answers 401; `pages` are further
    routes, such as those of the console.
    """
    routes: list[BaseRoute] = [
        Route("/v1/health/live", _live),
        Route("/v1/openapi.json", _openapi),
        Route("/v1", _describe),
        Route("/v1/projects", _list_projects),
        Route("/v1/metrics", _metrics),
        Route(f"{PREFIX}/events/stream", stream_events),
        ProjectRoutes(_operation_routes()),
        *pages,
    ]
    handlers: dict[Any, Any] = {
        CumulantError: _on_known_error,
        HTTPException: _on_http_exception,
        ClientDisconnect: _on_disconnect,
        Exception: _on_unknown_error,
    }
    application = Application(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    application.state.projects = projects
    application.state.jobs = jobs
    application.state.feeds = EventFeeds()
    application.state.requests = ApiRequestCounter(projects)
    application.state.overviews = Overviews()
    application.state.line_streams = LinePlaces(MOST_LINE_STREAMS)
    application.state.uploads = asyncio.Semaphore(_MOST_UPLOADS)
    application.add_middleware(note_route)
    application.add_middleware(authenticate)
    application.add_middleware(application.state.requests.middleware)
    return application


def _operation_routes() -> list[Route]:
    """One route a path, so that a method that it has not is answered with those that it has."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for each in OPERATIONS:
        by_path.setdefault(each.path, {})[each.method] = _endpoint(each)
    return [Route(PREFIX + path, _by_method(endpoints), methods=list(endpoints)) for path, endpoints in by_path.items()]


def _by_method(endpoints: Mapping[str, Endpoint]) -> Endpoint:
    async def answer(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return answer


def _endpoint(operation: Operation) -> Endpoint:
    async def answer(request: Request) -> Response:
        project = project_of(request)
        try:
            return await answer_of(request, project)
        except CumulantError as error:
            raise await run_in_threadpool(as_seen, request, project, operation.action, error) from error

    async def answer_of(request: Request, project: Project) -> Response:
        state = request.app.state
        memory = state.overviews.memory(project)
        call = ApiCall(project, request.state.principal, operation.action, jobs=state.jobs, memory=memory)
        arguments = await arguments_of(request, operation)
        if operation.streams:
            return await stream_lines(request, project, request.state.principal, operation, arguments)
        if operation.uploads:
            return await run_with_upload(request, call, operation, arguments, state.uploads)
        if not operation.writes:
            return read_response(request, await run_operation(call, operation, arguments))
        key = request.headers.get("idempotency-key")
        if key is None:
            return await _write(call, operation, arguments)
        return await _write_once(request, key, call, operation, arguments)

    return answer


async def _write(call: ApiCall, operation: Operation, arguments: dict[str, Any]) -> Response:
    if not operation.long:
        return json_response(await run_operation(call, operation, arguments))
    assert call.jobs is not None
    await run_in_threadpool(call.check)
    submit = partial(call.jobs.submit, call.project, call.principal, operation.name, operation.action)
    job = await run_in_threadpool(submit, arguments)
    place = f"/v1/projects/{call.project.name}/jobs/{job.id}"
    return json_response(encode(job), status=202, headers={"location": place})


async def _write_once(
    request: Request, key: str, call: ApiCall, operation: Operation, arguments: dict[str, Any]
) -> Response:
    content = encode([request.method, request.url.path, request.url.query, arguments])
    once = IdempotentRequest(call.project.journal(), key, call.principal.id, content)
    known = await run_in_threadpool(once.begin)
    if known is not None:
        await run_in_threadpool(call.check_replay, operation, arguments)
        headers = {"idempotency-replayed": "true"}
        return replayed_response(known.body.encode(), known.status, headers)
    try:
        response = await _write(call, operation, arguments)
    except CumulantError as error:
        failure, passing = problem_of(error), error.retryable or isinstance(error, ForbiddenError)
        await run_in_threadpool(once.end, failure.status, msgspec.json.encode(failure), retryable=passing)
        raise
    if operation.secret:
        await run_in_threadpool(once.end, 409, msgspec.json.encode(_SHOWN_ONCE))
    else:
        await run_in_threadpool(once.end, response.status_code, bytes(response.body))
    return response


async def _live(request: Request) -> Response:
    del request
    return json_response(b'{"live":true}')


async def _describe(request: Request) -> Response:
    visible = await run_in_threadpool(_visible, request)
    described = ServerDescription("cumulant", __version__, request.state.principal.id, _summaries(visible))
    return read_response(request, encode(described))


async def _list_projects(request: Request) -> Response:
    visible = await run_in_threadpool(_visible, request)
    return read_response(request, encode(_summaries(visible)))


async def _metrics(request: Request) -> Response:
    open_metrics = accepts_open_metrics(request.headers.get("accept", ""))
    counts: ApiRequestCounter = request.app.state.requests

    def read() -> str:
        visible = allowed(request.state.principal, "stack.show", _visible(request))
        names = {project.name for project in visible}
        if len(names) == len(request.app.state.projects):  # sign-ins and unknown paths are of all projects
            names.add("")
        now = SystemClock().now()
        of_projects = [series for project in visible for series in project_series(project, now)]
        families = {**PROJECT_FAMILIES, **FAMILIES}
        return exposition(families, [*of_projects, *counts.series(names)], open_metrics=open_metrics)

    text = await run_in_threadpool(read)
    return Response(text, media_type=OPEN_METRICS if open_metrics else TEXT)


def _visible(request: Request) -> list[Project]:
    """The projects that the caller may look at; of a token that one which it is of, whatever its scope."""
    projects: Mapping[str, Project] = request.app.state.projects
    if bound := getattr(request.state, "project", ""):
        return [projects[bound]]
    return allowed(request.state.principal, "project.overview", projects.values())


def _summaries(projects: Sequence[Project]) -> list[ProjectSummary]:
    return [
        ProjectSummary(project.name, project.environment, project.scope.tenant, project.scope.region)
        for project in projects
    ]


async def _openapi(request: Request) -> Response:
    return read_response(request, encode(document()))


async def _on_known_error(request: Request, error: CumulantError) -> Response:
    projects: Mapping[str, Project] = request.app.state.projects
    for project in projects.values():  # an error may hold the secret of a URL
        error = error.reworded(redaction_of(project))
    return error_response(error)


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        return error_response(NotFoundError(NO_PATH, hint="see /v1/openapi.json"))
    code = "method" if error.status_code == 405 else "request"
    detail = f"{request.method} is not possible at this path" if error.status_code == 405 else str(error.detail)
    return problem_response(problem(error.status_code, detail, code=code), error.headers)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    """The caller is gone before its request had arrived."""
    del request, error
    return Response(status_code=400)


async def _on_unknown_error(request: Request, error: Exception) -> Response:
    """What is no error of ours: its text may hold data, so that it is in this server's log alone, under a number."""
    del request, error
    number = uuid.uuid4().hex[:12]
    sys.stderr.write(f"error {number}\n")
    write_fault()
    hint = f"the server's log has it under {number}"
    return problem_response(problem(500, "internal error", code="unexpected", hint=hint))
