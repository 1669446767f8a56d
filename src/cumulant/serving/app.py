"""The ASGI application: Open Inference Protocol v2 over HTTP, and plain JSON rows."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from cumulant.core.errors import CumulantError, NotFoundError, RequestError
from cumulant.core.servable import Answer
from cumulant.core.version import __version__
from cumulant.serving import tensors
from cumulant.serving.errors import HttpError, status_of, text_of
from cumulant.serving.http import (
    Receive,
    Response,
    Scope,
    Send,
    encode,
    error_response,
    header,
    json_response,
    read_body,
    send_response,
)
from cumulant.serving.metrics import Metrics
from cumulant.serving.models import ModelSet, ServedModel

BODY_LIMIT = 8 * 1024 * 1024
_MAX_ID = 256

Work = Callable[[ServedModel, bytes, str], tuple[bytes, int]]


class Prediction(Answer, kw_only=True, omit_defaults=True):
    """The answer to one plain JSON row."""

    model: str
    version: str
    request_id: str
    #: columns that were ignored, and why
    warnings: tuple[str, ...] = ()


class Predictions(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer to several plain JSON rows, in their order."""

    model: str
    version: str
    request_id: str
    predictions: list[Answer]
    warnings: tuple[str, ...] = ()


class Application:
    """Answers for the models of a `ModelSet`.

    Every fault of a request is a 4xx with `{"error": "..."}`, and the connection goes on. 503: the store of
    the features does not answer, or the server is draining.
    """

    def __init__(self, models: ModelSet, *, body_limit: int = BODY_LIMIT) -> None:
        self.models = models
        self.metrics = Metrics()
        self.draining = False
        self._limit = body_limit
        self._decode_infer = msgspec.json.Decoder(tensors.InferRequest).decode
        self._decode_rows = msgspec.json.Decoder().decode
        self._work: dict[str, Work] = {"infer": self._infer, "predict": self._predict}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send_response(send, await self._respond(scope, receive))
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        try:
            return await self._route(scope, receive)
        except CumulantError as error:
            headers = ((b"retry-after", b"1"),) if status_of(error) == 503 else ()
            return error_response(status_of(error), text_of(error), headers)
        except Exception:  # noqa: BLE001 - the edge: one request's fault must not end the server
            traceback.print_exc(file=sys.stderr)
            return error_response(500, "internal error")

    async def _route(self, scope: Scope, receive: Receive) -> Response:
        path, method = scope["path"].rstrip("/"), scope["method"]
        match path.split("/")[1:]:
            case ["v1" | "v2" as api, "models", name, *rest]:
                version, verb = _verb(path, rest)
                if (api, verb) in (("v2", "infer"), ("v1", "predict")):
                    _allow(method, "POST")
                    return await self._score(scope, receive, verb, name, version)
                _allow(method, "GET")
                return self._describe(path, api, verb, name, version)
            case parts:
                found = self._server(parts)
                if found is None:
                    raise _no_path(path)
                _allow(method, "GET")
                return found

    def _server(self, parts: Sequence[str]) -> Response | None:
        match parts:
            case [] | ["v2"]:
                more = {"extensions": []} if parts else {"links": ["/v2", "/v1/models", "/metrics"]}
                return json_response({"name": "cumulant", "version": __version__} | more)
            case ["v2", "health", "live"]:
                return json_response({"live": True})
            case ["v2", "health", "ready"]:
                return json_response({"ready": not self.draining}, 503 if self.draining else 200)
            case ["v1", "models"]:
                return json_response({"models": [_card(model) for model in self.models]})
            case ["metrics"]:
                return Response(200, self.metrics.text().encode(), b"text/plain; version=0.0.4; charset=utf-8")
            case _:
                return None

    def _describe(self, path: str, api: str, verb: str, name: str, version: str | None) -> Response:
        model = self.models.get(name, version)
        match api, verb:
            case "v2", "":
                return json_response(_metadata(model, [one.version for one in self.models.versions(name)]))
            case "v2", "ready":
                return json_response({"name": model.name, "ready": not self.draining}, 503 if self.draining else 200)
            case "v1", "":
                return json_response(_card(model))
            case _:
                raise _no_path(path)

    async def _score(self, scope: Scope, receive: Receive, verb: str, name: str, version: str | None) -> Response:
        started = time.perf_counter()
        model = self.models.get(name, version)
        rows, status = 0, 500
        try:
            body = await read_body(scope, receive, self._limit)
            content, rows = self._work[verb](model, body, _request_id(scope))
            status = 200
            return Response(status, content)
        except CumulantError as error:
            status = status_of(error)
            raise
        finally:
            seconds = time.perf_counter() - started
            self.metrics.observe(model.name, model.version, verb, status=status, rows=rows, seconds=seconds)

    def _predict(self, model: ServedModel, body: bytes, request_id: str) -> tuple[bytes, int]:
        rows, single = _rows(_decoded(self._decode_rows, body), model)
        answers = model.answer(rows)
        warnings = model.warnings(rows)
        if single:
            one = answers[0]
            prediction = Prediction(
                prediction=one.prediction,
                probability=one.probability,
                probabilities=one.probabilities,
                state_age=one.state_age,
                model=model.name,
                version=model.version,
                request_id=request_id,
                warnings=warnings,
            )
            return encode(prediction), 1
        several = Predictions(
            model=model.name, version=model.version, request_id=request_id, predictions=answers, warnings=warnings
        )
        return encode(several), len(answers)

    def _infer(self, model: ServedModel, body: bytes, request_id: str) -> tuple[bytes, int]:  # noqa: ARG002
        request: tensors.InferRequest = _decoded(self._decode_infer, body)
        if request.id is not None and len(request.id) > _MAX_ID:
            raise RequestError(f"the id is longer than {_MAX_ID} characters")
        wanted = [output.name for output in request.outputs]
        tensors.from_answers((), model.servable, wanted)  # refuses an unknown output before the work
        answers = model.answer(tensors.to_rows(request.inputs, model.schema.fields, model.schema.unread))
        warnings = model.schema.warnings({tensor.name for tensor in request.inputs})
        ages = [answer.state_age for answer in answers if answer.state_age is not None]
        response = tensors.InferResponse(
            model_name=model.name,
            model_version=model.version,
            outputs=tensors.from_answers(answers, model.servable, wanted),
            id=request.id,
            parameters=({"state_age": max(ages)} if ages else {})
            | ({"warnings": "\n".join(warnings)} if warnings else {}),
        )
        return encode(response), len(answers)


async def _lifespan(receive: Receive, send: Send) -> None:
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def _verb(path: str, rest: Sequence[str]) -> tuple[str | None, str]:
    """Version and verb of what follows `/models/NAME`."""
    match rest:
        case []:
            return None, ""
        case ["versions", version]:
            return version, ""
        case ["versions", version, verb]:
            return version, verb
        case [verb]:
            return None, verb
        case _:
            raise _no_path(path)


def _allow(method: str, allowed: str) -> None:
    if method != allowed and not (allowed == "GET" and method == "HEAD"):
        raise HttpError(405, f"this path takes {allowed}, not {method[:20]}")


def _no_path(path: str) -> NotFoundError:
    hint = "see /v2 for the server and /v1/models for its models"
    return NotFoundError(f"there is nothing at {path[:200]}", subject=path[:200], hint=hint)


def _request_id(scope: Scope) -> str:
    """The caller's `X-Request-Id` where it is short printable ASCII; else a new one. Sent in bodies only."""
    found = header(scope, b"x-request-id")
    if found and len(found) <= _MAX_ID and found.isascii() and found.decode("ascii").isprintable():
        return found.decode("ascii")
    return os.urandom(8).hex()


def _decoded(decode: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(f"the request does not have the expected form: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the body is no valid JSON: {error}") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply") from None


def _rows(value: object, model: ServedModel) -> tuple[list[object], bool]:
    """The rows in a body, and whether it was one bare row."""
    if isinstance(value, list):
        return value, False
    if isinstance(value, dict) and value.keys() == {"rows"} and "rows" not in model.schema.fields:
        if not isinstance(value["rows"], list):
            raise RequestError('"rows" must be a list of objects', subject="rows")
        return value["rows"], False
    return [value], True


def _metadata(model: ServedModel, versions: Sequence[str]) -> dict[str, object]:
    """Model metadata of the protocol: the request fields as tensors, the kinds of answer as outputs."""
    required = set(model.schema.required)
    return {
        "name": model.name,
        "versions": list(versions),
        "platform": "cumulant_servable",
        "inputs": [
            {
                "name": field.name,
                "datatype": tensors.DATATYPES[field.dtype],
                "shape": [-1],
                "parameters": {"type": field.dtype, "optional": field.name not in required},
            }
            for field in model.schema.fields.values()
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, (datatype, shape) in tensors.outputs(model.servable).items()
        ],
    }


def _card(model: ServedModel) -> dict[str, object]:
    """What a caller needs to know of a model: its task, request fields and an example row."""
    required = set(model.schema.required)
    return {
        "name": model.name,
        "version": model.version,
        "task": model.servable.task,
        "classes": list(model.servable.classes),
        "threshold": model.servable.threshold,
        "request": [
            {"name": field.name, "type": field.dtype, "required": field.name in required, "zone": field.zone}
            for field in model.schema.fields.values()
        ],
        "example": model.servable.example,
    }
