"""The OpenAPI document of a running server: its paths, and the schema of each model's rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import msgspec

from cumulant.core.version import __version__
from cumulant.serving.endpoints.openapi_schemas import ERROR, answer, bodies, how_many, reference
from cumulant.serving.posted.label_inbox import LabelInbox, PostedLabels
from cumulant.serving.posted.posted_events import PostedEvents
from cumulant.serving.protocol import responses
from cumulant.serving.protocol.paths import ROUTES, Route
from cumulant.serving.protocol.tensors import InferResponse

if TYPE_CHECKING:
    from cumulant.serving.endpoints.scoring import ScoringService
    from cumulant.serving.models.model import Model, ModelSet

_ANSWERS: Mapping[str, type[msgspec.Struct]] = {
    "/": responses.ServerResponse,
    "/v2": responses.MetadataResponse,
    "/v2/health/live": responses.LiveResponse,
    "/v2/health/ready": responses.ReadyResponse,
    "/v1/models": responses.CardsResponse,
    "/v2/models/stats": responses.StatisticsResponse,
    "/v1/events": responses.EventsResponse,
    "/v1/labels": responses.LabelsResponse,
    "/openapi.json": responses.DocumentResponse,
    "v2:": responses.ModelResponse,
    "v2:ready": responses.ModelReadyResponse,
    "v2:config": responses.ConfigurationResponse,
    "v2:stats": responses.StatisticsResponse,
    "v1:": responses.CardResponse,
}
_OTHERS = (
    responses.ErrorResponse,
    responses.EmptyResponse,
    responses.IndexResponse,
    InferResponse,
    PostedEvents,
    PostedLabels,
)
_TEXT = {"/ping", "/health", "/version", "/metrics"}
#: paths of probes, which carry no token
_OPEN = {"/ping", "/health", "/v2/health/live", "/v2/health/ready"}


class DescribedServer(Protocol):
    """Traits of a server: `guarded`: by a token; `may_control`: models are loaded by request."""

    name: str
    may_control: bool
    score: ScoringService
    inbox: LabelInbox | None

    @property
    def guarded(self) -> bool: ...

    @property
    def models(self) -> ModelSet: ...


def document(app: DescribedServer) -> dict[str, Any]:
    """OpenAPI 3.1. Paths of models are written out for every model and version that is served."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        for path, model in _written_out(route, app):
            operation = _operation(route, path, model, app)
            paths[path] = {route.method.lower(): operation}
    shared: dict[str, Any] = {"schemas": _components()}
    if app.guarded:
        shared["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": app.name, "version": __version__},
        "paths": paths,
        "components": shared,
    }


@cache
def _components() -> Mapping[str, Any]:
    """Schemas of what is the same of every model, by the names of their types. They take milliseconds, once."""
    kinds = dict.fromkeys([*_ANSWERS.values(), *_OTHERS])
    schemas = msgspec.json.schema_components(kinds, schema_hook=_anything, ref_template="#/components/schemas/{name}")
    return schemas[1]


def _anything(kind: type) -> dict[str, Any]:
    """What is checked later, as the model needs it."""
    if kind is object:
        return {"description": "Any value."}  # an empty schema counts as none
    raise NotImplementedError


def _written_out(route: Route, app: DescribedServer) -> list[tuple[str, Model | None]]:
    """The paths that there are now of a route, each with the model that answers there."""
    if route.template.startswith("/v2/repository/models"):
        names = app.models.names() if app.may_control else []
        return [(_filled(route, model=name), app.models.get(name)) for name in names]
    if route.template == "/v1/events":
        return [(route.template, None)] if app.score.recorder is not None else []
    if route.template == "/v1/labels":
        return [(route.template, None)] if app.inbox is not None else []
    # Plain rows name no sequence, which a model with state needs.
    of_rows = _verb(route) in {"predict", "invocations"}
    return [
        (path, model) for path, model in _of_models(route, app) if model is None or not (of_rows and model.stateful)
    ]


def _of_models(route: Route, app: DescribedServer) -> list[tuple[str, Model | None]]:
    names = app.models.names()
    if route.template == "/invocations":
        return [(route.template, app.models.get(names[0]))] if len(names) == 1 else []
    if "{version}" in route.template:
        return [(_filled(route, model=model.name, version=model.version), model) for model in app.models]
    if "{model}" in route.template:
        return [(_filled(route, model=name), app.models.get(name)) for name in names]
    return [(route.template, None)]


def _filled(route: Route, **values: str) -> str:
    """Braces of a name are escaped with the rest: they would make it a template."""
    return route.template.format(**{name: quote(value, safe="") for name, value in values.items()})


def _operation(route: Route, path: str, model: Model | None, app: DescribedServer) -> dict[str, Any]:
    verb = _verb(route)
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()} {path}",
        "summary": route.summary,
        "responses": _responses(route, verb, model),
    }
    if model is not None:
        operation["tags"] = [model.name]
    content = bodies(route.template, verb, model)
    if content is not None:
        operation["requestBody"] = {
            "required": verb in {"infer", "predict", "invocations", "events", "labels"},
            "content": content,
        }
    if model is not None and model.reasons is not None and verb in {"predict", "invocations"}:
        operation["parameters"] = [{"name": "reasons", "in": "query", "schema": how_many(model.reasons)}]
    if app.guarded and route.template not in _OPEN:
        operation["security"] = [{"token": []}]
    return operation


def _verb(route: Route) -> str:
    last = route.template.rpartition("/")[2]
    return "" if last.startswith("{") else last


def _responses(route: Route, verb: str, model: Model | None) -> dict[str, Any]:
    good = {"description": "The answer.", "content": _good(route, verb, model)}
    answers: dict[str, Any] = {"200": good, "4XX": ERROR, "503": ERROR}
    if route.template in {"/ping", "/health"} or verb == "ready":
        answers["503"] = {**good, "description": "The server is draining."}
    if verb in {"infer", "predict", "invocations"}:
        answers["429"] = {**ERROR, "description": "Overload.", "headers": _retry()}
    if verb == "labels":
        answers["429"] = {**ERROR, "description": "As many labels wait as may.", "headers": _retry()}
    return answers


def _retry() -> Mapping[str, Any]:
    return {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}


def _good(route: Route, verb: str, model: Model | None) -> dict[str, Any]:
    if route.template in _TEXT:
        return {"text/plain": {"schema": {"type": "string"}}}
    content: dict[str, Any] = {"application/json": {"schema": _schema(route, verb, model)}}
    if verb == "infer":
        content["application/octet-stream"] = {}
    return content


def _schema(route: Route, verb: str, model: Model | None) -> Mapping[str, Any]:
    if model is not None and verb in {"infer", "predict", "invocations"}:
        return answer(verb, model)
    if route.template == "/v2/repository/index":
        return {"type": "array", "items": reference(responses.IndexResponse)}
    api = route.template.split("/")[1]
    return reference(_ANSWERS.get(route.template) or _ANSWERS.get(f"{api}:{verb}", responses.EmptyResponse))
