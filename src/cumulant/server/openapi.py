"""OpenAPI 3.1 of the API, made from the types of its operations."""

from __future__ import annotations

import functools
from typing import Any, get_origin, get_type_hints

import msgspec

from cumulant.core.version import __version__
from cumulant.server.jobs import Job
from cumulant.server.operation import BYTES, LINES, Operation
from cumulant.server.operation_list import OPERATIONS
from cumulant.server.problem import MEDIA_TYPE, ProblemDocument

_PROJECT = {"name": "project", "in": "path", "required": True, "schema": {"type": "string"}}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same request under the same key happens once and has the same response, for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


@functools.cache
def document() -> dict[str, Any]:
    """The document; it is the same for every server of one version."""
    kinds: list[Any] = [ProblemDocument, Job]
    for each in OPERATIONS:
        kinds += [each.types[name] for name in _documented(each)]
    schemas, components = msgspec.json.schema_components(
        kinds, schema_hook=_any_schema, ref_template="#/components/schemas/{name}"
    )
    rest = iter(schemas[2:])
    paths: dict[str, Any] = {}
    for each in OPERATIONS:
        parts: dict[str, Any] = {name: next(rest) for name in _documented(each)}
        place = "/v1/projects/{project}" + each.path
        paths.setdefault(place, {})[each.method.lower()] = _operation(each, parts, schemas[1])
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cumulant", "version": __version__},
        "paths": paths | _further_paths(),
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _documented(operation: Operation) -> list[str]:
    """Of which types a schema is made."""
    names = ("body",) if operation.streams else ("body", "return")
    return [name for name in names if name in operation.types]


def _operation(operation: Operation, schemas: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [_PROJECT]
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in operation.parameters
    ]
    query = operation.types.get("query")
    parameters += [] if query is None else _query_parameters(query)
    responses: dict[str, Any] = {"200": _response("The result.", schemas.get("return", {}))}
    if operation.long:
        responses = {"202": _response("The job that does it.", job)}
    if operation.streams:
        lines = {LINES: {"schema": {"type": "string"}}}
        responses = {"200": {"description": "The result, a JSON document a line.", "content": lines}}
    elif not operation.writes:
        responses["304"] = {"description": "The result is that of `If-None-Match`."}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.name.partition(".")[0]],
        "parameters": [*parameters, _KEY] if operation.writes and not operation.uploads else parameters,
        "responses": responses | _errors(),
        "x-action": operation.action,
    }
    if operation.uploads:
        described["requestBody"] = {
            "required": True,
            "content": {BYTES: {"schema": {"type": "string", "format": "binary"}}},
        }
    if "body" in operation.types:
        required = any(field.required for field in msgspec.structs.fields(operation.types["body"]))
        described["requestBody"] = {
            "required": required,
            "content": {"application/json": {"schema": schemas["body"]}},
        }
    return described


def _query_parameters(kind: type[msgspec.Struct]) -> list[dict[str, Any]]:
    hints = get_type_hints(kind)
    described = []
    for field in msgspec.structs.fields(kind):
        schema = msgspec.json.schema(hints[field.name])
        several = get_origin(hints[field.name]) is tuple
        options = {"style": "form", "explode": True} if several else {}
        if not field.required and field.default is not msgspec.NODEFAULT and field.default not in (None, ()):
            schema = schema | {"default": field.default}
        described.append({"name": field.name, "in": "query", "required": field.required, "schema": schema} | options)
    return described


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _errors() -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {
        "4XX": {"description": "Refused.", "content": content},
        "5XX": {"description": "Failed.", "content": content},
    }


def _further_paths() -> dict[str, Any]:
    """What is no operation of a project's flows."""
    any_object: dict[str, Any] = {"type": "object"}
    text = {"type": "string"}
    stream = {
        "operationId": "events.stream",
        "summary": "Events as they happen, as server-sent events; `Last-Event-ID` continues after an event.",
        "tags": ["events"],
        "parameters": [
            _PROJECT,
            {"name": "after", "in": "query", "schema": {"type": "integer"}},
            {
                "name": "kind",
                "in": "query",
                "description": "Only these kinds; with a last `.` or `*` all that begin so.",
                "schema": {"type": "array", "items": text},
                "style": "form",
            },
        ],
        "responses": {"200": {"description": "The stream.", "content": {"text/event-stream": {"schema": text}}}}
        | _errors(),
        "x-action": "events.show",
    }
    return {
        "/v1": {"get": _plain_get("server.describe", "What this server is, and who the caller is for it.", any_object)},
        "/v1/projects": {
            "get": _plain_get("projects.list", "The projects of this server.", {"type": "array", "items": any_object})
        },
        "/v1/projects/{project}/events/stream": {"get": stream},
    }


def _plain_get(name: str, summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    responses = {"200": _response("The result.", schema)} | _errors()
    return {"operationId": name, "summary": summary, "tags": ["server"], "responses": responses}


def _any_schema(kind: type) -> dict[str, Any]:
    """What has no type in the documents: labels, values of users."""
    if kind in (object, msgspec.Raw):
        return {"description": "Any value."}
    raise NotImplementedError(kind)
