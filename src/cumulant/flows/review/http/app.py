"""The application of the review queue: the answer of each path, or the error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec

from cumulant.core.errors import (
    ConflictError,
    CumulantError,
    EngineUnavailableError,
    IntegrityError,
    LeaseHeldError,
    NotFoundError,
    RefusedError,
    RequestError,
    UsageError,
)
from cumulant.core.network.hosts import Hosts
from cumulant.core.structs import prepare_decoding
from cumulant.core.version import __version__
from cumulant.flows.review import service
from cumulant.flows.review.http.callers import CallerTokens
from cumulant.flows.review.service import AnsweredCase
from cumulant.flows.review.views import CaseView
from cumulant.review.cases import Draw, QueueState, ReviewCase
from cumulant.review.report import ReviewSummary
from cumulant.serving.errors import HttpError, headers_of, status_of
from cumulant.serving.http.messages import Request, Response, error_response, json_response
from cumulant.serving.protocol.paths import Route, allow_header, split_path
from cumulant.serving.protocol.probes import OPEN, answer_probe
from cumulant.serving.telemetry.access_log import write_fault

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: most cases of a page
MOST = 1_000

#: requests at work at once, and those that may wait for one: each takes a thread while it reads and writes
THREADS, WAITING = 4, 64
_STATES = ("waiting", "done", "expired", "all")
_Body = TypeVar("_Body", bound=msgspec.Struct)
Call = Callable[[], object]


class ReviewApplication:
    """Answers for the queue of one project. `close` waits for running requests. `local`: loopback, without tokens.

    Raises:
        UsageError: the project declares an invalid host.
    """

    def __init__(self, project: Project, callers: CallerTokens, *, local: bool) -> None:
        self._project, self._callers = project, callers
        prepare_decoding(ReviewCase, QueueState, Draw)  # the threads below read them
        self._hosts = Hosts(project.policies.serving.hosts, local=local)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="review")
        self._at_work = 0
        self.draining = False

    def close(self) -> None:
        self._threads.shutdown()

    def admitted(self, target: bytes, headers: dict[bytes, bytes]) -> bool:
        """Whether a request's body is read at all."""
        return target.startswith(OPEN) or self._callers.admitted(headers)

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        try:
            answer = self._route(request)
        except CumulantError as error:
            return refusal(error)
        except Exception:  # noqa: BLE001 - the edge: one request's fault must not end the server
            return _fault()
        return answer if isinstance(answer, Response) else self._apart(answer)

    async def _apart(self, call: Call) -> Response:
        """The verb reads and writes files: on a thread of its own."""
        if self._at_work >= THREADS + WAITING:
            return Response(
                429,
                msgspec.json.encode({"error": "too many requests at once; try again"}),
                headers=((b"retry-after", b"1"),),
            )
        self._at_work += 1
        try:
            return _answer(await asyncio.get_running_loop().run_in_executor(self._threads, call))
        except CumulantError as error:
            return refusal(error)
        except Exception:  # noqa: BLE001 - the edge, as above
            return _fault()
        finally:
            self._at_work -= 1

    # --- paths

    def _route(self, request: Request) -> Response | Call:
        parts = split_path(request.target)
        route = _match_route(parts)
        if request.method == "OPTIONS":
            return Response(200, b"", headers=((b"allow", route.takes),))
        if request.method != route.method and not (route.method == "GET" and request.method == "HEAD"):
            reason = f"this path takes {route.method}, not {request.method[:20]}"
            raise HttpError(405, reason, headers=((b"allow", allow_header(route.method)),))
        if (response := answer_probe(parts, ready=not self.draining)) is not None:
            return response
        if not self._callers.guarded:  # a token decides alone: no page of another place has one
            _check_origin(request, self._hosts)
        who = self._callers.principal(request.headers)
        if route.template == "/":
            return json_response({"name": "cumulant review", "version": __version__, "model": self._project.name})
        if route.template == "/openapi.json":
            return json_response(document(self._project.name, guarded=self._callers.guarded))
        return self._look(request, parts[2:], who) if route.method == "GET" else self._do(request, parts[2:], who)

    def _look(self, request: Request, parts: Sequence[str], who: Principal) -> Call:
        project = self._project
        match parts:
            case ["cases", case]:
                return lambda: service.show_case(project, case, principal=who)
            case ["report"]:
                return lambda: service.report(project, principal=who)
            case _:
                status, limit = _read_query(request)
                return lambda: service.list_cases(project, principal=who, status=status, limit=limit)

    def _do(self, request: Request, parts: Sequence[str], who: Principal) -> Call:
        body = _body(request, BODIES[parts[-1]])
        if parts[0] == "next":
            return lambda: service.next_case(self._project, principal=who, passed=body.passed)  # type: ignore[attr-defined]
        return lambda: self._change(parts[1], parts[2], body, who, _seen_revision(request))

    def _change(self, case: str, verb: str, body: Any, who: Principal, seen: str | None) -> object:
        project = self._project
        match verb:
            case "decide":
                return service.decide(project, case, body.label, principal=who, note=body.note, seen=seen)
            case "skip":
                return service.skip(project, case, principal=who, seen=seen)
            case "escalate":
                return service.escalate(project, case, principal=who, note=body.note, seen=seen)
            case "note":
                return service.note(project, case, body.text, principal=who)
            case _:
                return service.assign(project, case, body.to, principal=who, seen=seen)


def _match_route(parts: Sequence[str]) -> Route:
    for route in ROUTES:
        mine = route.parts
        if len(mine) == len(parts) and all(
            pattern in (part, "{case}") for pattern, part in zip(mine, parts, strict=True)
        ):
            return route
    raise NotFoundError("there is nothing at this path", hint="see /openapi.json")


def _check_origin(request: Request, hosts: Hosts) -> None:
    """Refuse requests that a page of another origin makes a browser here send, under this address or a name for it."""
    fault = hosts.fault(request.headers.get(b"host"), request.headers.get(b"origin"))
    if fault is not None:
        raise RefusedError(fault, hint="call 127.0.0.1 from a program, or give this server tokens")


def _read_query(request: Request) -> tuple[str, int]:
    """Raises RequestError for another query than `status` and `limit`."""
    query = request.target.partition(b"?")[2].decode("latin-1")
    given = {unquote(name): value for name, value in parse_qsl(query, keep_blank_values=True)}
    status, limit = given.pop("status", "waiting"), given.pop("limit", "20")
    if given:
        raise RequestError(f'there is no "{next(iter(given))[:40]}" to request', hint="status and limit")
    if status not in _STATES:
        raise RequestError(f'no case is "{status[:40]}"', subject="status", hint=f"one of {', '.join(_STATES)}")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 9 and 1 <= int(limit) <= MOST):
        raise RequestError(f"limit is a number from 1 to {MOST:,}", subject="limit")
    return status, int(limit)


def _body(request: Request, kind: type[_Body]) -> _Body:
    """Raises RequestError where the body is not that JSON object."""
    try:
        return msgspec.json.decode(request.body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise RequestError(f"the body does not fit: {error}", hint="see /openapi.json") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is no JSON: {error}") from None


def _seen_revision(request: Request) -> str | None:
    given = request.headers.get(b"if-match")
    return None if given is None or given.strip() == b"*" else given.decode("latin-1").strip().strip('"')


def _answer(document: object) -> Response:
    response = json_response(document)
    case = document.case if isinstance(document, service.AnsweredCase) else document
    revision = getattr(case, "revision", None)
    if revision is not None:
        response.headers = ((b"etag", f'"{revision}"'.encode()),)
    return response


def refusal(error: CumulantError) -> Response:
    """An error as the caller sees it: the document that `--json` prints, too."""
    return Response(_status(error), msgspec.json.encode(error.as_dict()), headers=headers_of(error))


def _status(error: CumulantError) -> int:
    match error:
        case ConflictError() | LeaseHeldError():
            return 409
        case RefusedError() if not isinstance(error, IntegrityError):
            return 403
        case HttpError() | NotFoundError() | UsageError() | EngineUnavailableError():
            return status_of(error)
        case _:
            return 500


def _fault() -> Response:
    write_fault()
    return error_response(500, "internal error")


class Next(msgspec.Struct, forbid_unknown_fields=True):
    """`passed`: cases to skip now."""

    passed: list[str] = []


class DecisionBody(msgspec.Struct, forbid_unknown_fields=True):
    """`label`: a label of the model, or a number."""

    label: str | int | float | bool
    note: str = ""


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Escalation(msgspec.Struct, forbid_unknown_fields=True):
    note: str = ""


class Noted(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class Assignment(msgspec.Struct, forbid_unknown_fields=True):
    """`to`: ada, or user:ada; null gives the case to everybody again."""

    to: str | None


ROUTES: tuple[Route, ...] = (
    Route("/", "GET", None, "Name and version of the server, and the model whose queue this is."),
    Route("/openapi.json", "GET", None, "This document."),
    Route("/ping", "GET", None, "Whether the server takes requests."),
    Route("/health", "GET", None, "Whether the server takes requests."),
    Route("/version", "GET", None, "Version of the server, as text."),
    Route("/v1/review/cases", "GET", "review.show", "Cases; waiting ones in the order in which they are assigned."),
    Route(
        "/v1/review/next",
        "POST",
        "review.answer",
        "The next case for the caller, kept for a while; null where none is left.",
    ),
    Route("/v1/review/report", "GET", "review.show", "The queue in numbers."),
    Route(
        "/v1/review/cases/{case}",
        "GET",
        "review.show",
        "One case; the model's answer is hidden until the caller has decided.",
    ),
    Route("/v1/review/cases/{case}/decide", "POST", "review.answer", "Say what is true of a case."),
    Route("/v1/review/cases/{case}/skip", "POST", "review.answer", "Leave a case to others."),
    Route("/v1/review/cases/{case}/escalate", "POST", "review.answer", "Give a case to those who take escalated ones."),
    Route("/v1/review/cases/{case}/note", "POST", "review.answer", "Write something beside a case."),
    Route("/v1/review/cases/{case}/assign", "POST", "review.assign", "Give a case to one reviewer, or to all again."),
)
BODIES: dict[str, type[msgspec.Struct]] = {
    "next": Next,
    "decide": DecisionBody,
    "skip": Nothing,
    "escalate": Escalation,
    "note": Noted,
    "assign": Assignment,
}
_ANSWERS: dict[str, Any] = {
    "cases": list[CaseView],
    "next": CaseView | None,
    "report": ReviewSummary,
    "{case}": CaseView,
    "decide": AnsweredCase,
    "skip": AnsweredCase,
    "escalate": AnsweredCase,
    "note": CaseView,
    "assign": CaseView,
}
_TEXT = {"/ping", "/health", "/version"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {name: {"type": "string"} for name in ("error", "code", "subject", "hint")}
    | {"retryable": {"type": "boolean"}},
}


def document(model: str, *, guarded: bool) -> dict[str, Any]:
    """OpenAPI 3.1 of the queue of that model."""
    kinds = [*_ANSWERS.values(), *BODIES.values()]
    schemas, kind_schemas = msgspec.json.schema_components(
        kinds, schema_hook=_any, ref_template="#/components/schemas/{name}"
    )
    answers = dict(zip(_ANSWERS, schemas, strict=False))
    bodies = dict(zip(BODIES, schemas[len(_ANSWERS) :], strict=True))
    components: dict[str, Any] = {"schemas": {**kind_schemas, "Error": _ERROR}}
    if guarded:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    paths = {route.template: {route.method.lower(): _operation(route, answers, bodies, guarded)} for route in ROUTES}
    info = {"title": f"review queue of {model}", "version": __version__}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def _operation(route: Route, answers: dict[str, Any], bodies: dict[str, Any], guarded: bool) -> dict[str, Any]:
    last = route.template.rpartition("/")[2]
    good = {"text/plain": {}} if route.template in _TEXT else {"application/json": {"schema": answers.get(last, {})}}
    error = {"description": "Refused.", "content": {"application/json": {"schema": {"$ref": _at("Error")}}}}
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()} {route.template}",
        "summary": route.summary,
        "parameters": _parameters(route, last),
        "responses": {"200": {"description": "The answer.", "content": good}, "4XX": error, "5XX": error},
    }
    if last in bodies and route.method == "POST":
        needed = last in ("decide", "note", "assign")
        operation["requestBody"] = {"required": needed, "content": {"application/json": {"schema": bodies[last]}}}
    if guarded and route.template not in ("/ping", "/health"):
        operation["security"] = [{"token": []}]
    return operation


def _parameters(route: Route, last: str) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    if route.template.startswith("/v1/review"):
        description = "The acting user, where the token names none."
        parameters.append(
            {"name": "x-cumulant-user", "in": "header", "schema": {"type": "string"}, "description": description}
        )
    if "{case}" in route.template:
        parameters.append({"name": "case", "in": "path", "required": True, "schema": {"type": "string"}})
    if last in ("decide", "skip", "escalate", "assign"):
        description = "The known revision of the case; refused with 409 where it has changed."
        parameters.append(
            {"name": "if-match", "in": "header", "schema": {"type": "string"}, "description": description}
        )
    if last == "cases":
        states = ["waiting", "done", "expired", "all"]
        parameters.append({"name": "status", "in": "query", "schema": {"enum": states, "default": "waiting"}})
        whole = {"type": "integer", "minimum": 1, "maximum": MOST, "default": 20}
        parameters.append({"name": "limit", "in": "query", "schema": whole})
    return parameters


def _any(kind: type) -> dict[str, Any]:
    """What has no type in the documents is a label."""
    if kind is object:
        return {"description": "A label: text, a number or a truth value."}
    raise NotImplementedError


def _at(name: str) -> str:
    return f"#/components/schemas/{name}"
