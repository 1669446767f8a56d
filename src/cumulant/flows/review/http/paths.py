"""The paths of the review queue, and the OpenAPI document that says so."""

from __future__ import annotations

from typing import Any

import msgspec

from cumulant.core.version import __version__
from cumulant.flows.review.service import AnsweredCase
from cumulant.flows.review.views import CaseView
from cumulant.review.report import ReviewSummary
from cumulant.serving.protocol.paths import Route

#: what a person asks to see; more than this at once is of no use to one
MOST = 1_000


class Next(msgspec.Struct, forbid_unknown_fields=True):
    """`passed`: cases that are not to be given now."""

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
    Route("/", "GET", "Name and version of the server, and the model whose queue this is."),
    Route("/openapi.json", "GET", "This document."),
    Route("/ping", "GET", "Whether the server takes requests."),
    Route("/health", "GET", "Whether the server takes requests."),
    Route("/version", "GET", "Version of the server, as text."),
    Route("/v1/review/cases", "GET", "Cases, those that wait in the order in which they are given out."),
    Route("/v1/review/next", "POST", "The next case for the caller, kept for a while; null where none is left."),
    Route("/v1/review/report", "GET", "The queue in numbers."),
    Route("/v1/review/cases/{case}", "GET", "One case; the model's answer is hidden until the caller has decided."),
    Route("/v1/review/cases/{case}/decide", "POST", "Say what is true of a case."),
    Route("/v1/review/cases/{case}/skip", "POST", "Leave a case to others."),
    Route("/v1/review/cases/{case}/escalate", "POST", "Give a case to those who take escalated ones."),
    Route("/v1/review/cases/{case}/note", "POST", "Write something beside a case."),
    Route("/v1/review/cases/{case}/assign", "POST", "Give a case to one reviewer, or to all again."),
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
        description = "Who acts, where the token does not say it."
        parameters.append(
            {"name": "x-cumulant-user", "in": "header", "schema": {"type": "string"}, "description": description}
        )
    if "{case}" in route.template:
        parameters.append({"name": "case", "in": "path", "required": True, "schema": {"type": "string"}})
    if last in ("decide", "skip", "escalate", "assign"):
        description = "The revision of the case as it was seen; refused with 409 where it is another one by now."
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
