"""The HTTP application: who sends a request and whether it may, routing, and scoring requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Literal
from urllib.parse import unquote

import msgspec

from cumulant.core.errors import CumulantError, NotFoundError, RequestError
from cumulant.core.network.hosts import Hosts
from cumulant.core.prometheus import Series
from cumulant.core.version import __version__
from cumulant.serving.access.control import AccessControl
from cumulant.serving.admin import (
    answer_metrics,
    answer_repository,
    answer_statistics,
    model_configuration,
    model_metadata,
)
from cumulant.serving.endpoints import invocations, plain_rows
from cumulant.serving.endpoints.authorization import RequestCheck
from cumulant.serving.endpoints.openapi import document
from cumulant.serving.endpoints.request_bodies import LARGE as LARGE_BODY
from cumulant.serving.endpoints.request_bodies import (
    BodyReader,
    decoded_memory,
    is_large,
)
from cumulant.serving.endpoints.scoring import Scoring, ScoringService, read_inference
from cumulant.serving.errors import HttpError, headers_of, status_of
from cumulant.serving.http.bodies import LEAST_COMPRESSED, compress_response, decompress
from cumulant.serving.http.messages import Request, Response, error_response, json_response
from cumulant.serving.models.control import Control, Fleet, SingleWorker
from cumulant.serving.models.model import Model, ModelSet
from cumulant.serving.models.overload_watch import OverloadWatch
from cumulant.serving.models.store_check import StoreCheck
from cumulant.serving.posted.label_inbox import LabelInbox
from cumulant.serving.protocol.inference import HEADER_LENGTH, read_call, write_answer
from cumulant.serving.protocol.json_size import check_decoded, most_decoded
from cumulant.serving.protocol.paths import allow_header, answer_options, find_route, split_path
from cumulant.serving.protocol.probes import answer_probe
from cumulant.serving.protocol.responses import LiveResponse, ModelReadyResponse, ReadyResponse, ServerResponse
from cumulant.serving.telemetry.access_log import write_fault
from cumulant.serving.telemetry.metrics import Metrics, model_series

BODY_LIMIT = 8 * 1024 * 1024
_MAX_KNOWN = 256
#: the verb, and the name in the counts, of paths that take raw tensors
_TENSORS = "infer"
#: what there is, and nothing else: shared memory, tracing and logging by request are not
_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "parameters",
    "sequence",
    "model_repository",
    "model_configuration",
    "statistics",
    "schedule_policy",
)

Verb = Callable[[Model, Request], Scoring[Response]]


class ServingApplication:
    """Serves the models of a `ModelSet`.

    Every error of a request is a 4xx with `{"error": "..."}`, and the connection stays open. 429: overload. 503: the
    online store does not answer, or the server is draining.
    """

    def __init__(
        self,
        models: ModelSet,
        *,
        body_limit: int = BODY_LIMIT,
        name: str = "cumulant",
        access: AccessControl | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        self._models = models
        self.metrics = Metrics()
        #: scores a request over any protocol, and counts it
        self.score = ScoringService(self.metrics)
        self.draining = False
        self.name = name
        #: of requests over any protocol
        self.access = access or AccessControl(server=name)
        self.access.served = self._names
        self.requests = RequestCheck(self.access, hosts or Hosts(local=False), self._names)
        #: all workers; who loads and unloads models on them, and whether by request
        self.fleet: Fleet = SingleWorker(_Self(self))
        self.control: Control | None = None
        self.may_control = False
        #: where posted labels go; None: nowhere
        self.inbox: LabelInbox | None = None
        self.body_limit = body_limit
        self._store_check, self._overload_watch = StoreCheck(), OverloadWatch()
        #: how many requests connections refused so far, since too many waited
        self.refused_by_head: Callable[[], int] = int
        #: reads large bodies beside the event loop
        self.reader = BodyReader(most_decoded(body_limit))
        #: known scoring paths: a path is parsed once
        self._known: dict[bytes, tuple[Verb, str, Model]] = {}
        self._verbs: dict[tuple[str, str], Verb] = {
            ("v2", _TENSORS): self._infer,
            ("v1", "predict"): partial(plain_rows.read, self.score),
            ("v1", "invocations"): invocations.read,
        }

    @property
    def models(self) -> ModelSet:
        """The served models; setting them swaps versions."""
        return self._models

    @models.setter
    def models(self, models: ModelSet) -> None:
        self._models = models
        self._known.clear()

    def _names(self) -> list[str]:
        return self._models.names()

    def join(self, fleet: Fleet, control: Control, may_control: bool) -> None:
        """Connect the application to the other workers and to model control."""
        self.fleet, self.control, self.may_control = fleet, control, may_control

    def metadata(self) -> dict[str, Any]:
        """Server metadata of the protocol."""
        return {"name": self.name, "version": __version__, "extensions": list(_EXTENSIONS)}

    def series(self) -> list[Series]:
        """Metric series of this process."""
        series = self.metrics.series()
        for model in self._models:
            series += model_series(model)
        return series

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        try:
            self.requests.check(request)
            if (encoding := request.headers.get(b"content-encoding")) is not None:
                request.body = decompress(request.body, encoding, self.body_limit)
            known = self._known.get(request.target)
            if known is not None and request.method == "POST" and len(request.body) <= LARGE_BODY:
                response = self.score(request, *known)
            else:
                response = self._route(request)
        except CumulantError as error:
            return _error(error)
        except Exception:  # noqa: BLE001 - the edge: one request's fault must not end the server
            return _fault()
        if isinstance(response, Response):
            return compress_response(response, request) if len(response.body) >= LEAST_COMPRESSED else response
        return self._later(response, request)

    async def _later(self, response: Awaitable[Response], request: Request) -> Response:
        try:
            return compress_response(await response, request)
        except CumulantError as error:
            return _error(error)
        except Exception:  # noqa: BLE001 - the edge, as above
            return _fault()

    @property
    def guarded(self) -> bool:
        """Whether callers need a token."""
        return self.access.callers.guarded

    # --- paths

    def _route(self, request: Request) -> Response | Awaitable[Response]:
        path = unquote(request.target.partition(b"?")[0].decode("latin-1"), errors="replace").rstrip("/")
        method = request.method
        if method == "OPTIONS":
            return answer_options(request.target)
        parts = split_path(request.target)
        if find_route(parts) is None:  # no action is declared for it
            raise _no_shared_memory() if _SHARED_MEMORY.intersection(parts[1:2]) else _no_path(path)
        match parts:
            case ["v1" | "v2" as api, "models", name, *rest]:
                version, verb = _verb(path, rest)
                if (api, verb) in self._verbs:
                    _allow(method, "POST")
                    known = self._verbs[api, verb], verb, self.models.get(name, version)
                    if len(self._known) < _MAX_KNOWN and b"?" not in request.target:
                        self._known[request.target] = known
                    return self._score(request, *known)
                if (api, name, verb) == ("v2", "stats", "") and version is None:
                    return self._get(path, ["v2", "models", "stats"], request)
                _allow(method, "GET")
                return self._describe(api, verb, name, version)
            case ["v1", "events" | "labels"] | ["v2", "repository", *_] | ["invocations"]:
                _allow(method, "POST")
                return self._post(parts[1:], request)
            case _:
                return self._get(path, parts, request)

    def _only_model(self) -> Model:
        """The only served model, for paths without a name."""
        names = self.models.names()
        if len(names) != 1:
            hint = f"send it to one of {', '.join(names)} at /v1/models/NAME/invocations" if names else None
            raise HttpError(404, f"this server has {len(names)} models, and /invocations names none", hint=hint)
        return self.models.get(names[0])

    def _get(self, path: str, parts: Sequence[str], request: Request) -> Response | Awaitable[Response]:
        method, response = request.method, self._of_server(parts, request)
        if response is None:
            raise _no_path(path)
        if not isinstance(response, Response) and method not in {"GET", "HEAD"}:
            response.close()
        _allow(method, "GET")
        return response

    def _of_server(self, parts: Sequence[str], request: Request) -> Response | Coroutine[Any, Any, Response] | None:
        content: object
        match parts:
            case []:
                content = ServerResponse(self.name, __version__, ["/v2", "/v1/models", "/metrics", "/openapi.json"])
            case ["v2"]:
                content = self.metadata()
            case ["v2", "health", "live"]:
                content = LiveResponse(live=True)
            case ["v2", "health", "ready"]:
                return self._ready()
            case ["v1", "models"]:
                content = {"models": [model.card() for model in self.models]}
            case ["openapi.json"]:
                content = document(self)
            case ["v2", "models", "stats"]:
                return answer_statistics(self.fleet, list(self.models))
            case ["metrics"]:
                return answer_metrics(self.fleet, request.headers.get(b"accept", b""))
            case _:
                return answer_probe(parts, ready=not self.draining)
        return json_response(content)

    def _ready(self) -> Response:
        """A server whose online store does not answer stays ready: another one would not answer either."""
        self._store_check.renew(self._models)
        unreachable: list[Literal["online"]] = ["online"] if self._store_check.unreachable else []
        overloaded = self._overload_watch.read(self._models, self.refused_by_head())
        response = ReadyResponse(ready=not self.draining, unreachable=unreachable, overloaded=overloaded)
        return json_response(response, 503 if self.draining else 200)

    def _describe(self, api: str, verb: str, name: str, version: str | None) -> Response | Awaitable[Response]:
        model = self.models.get(name, version)
        match api, verb:
            case "v2", "":
                return json_response(model_metadata(model, [served.version for served in self.models.versions(name)]))
            case "v2", "ready":
                return json_response(ModelReadyResponse(model.name, not self.draining), 503 if self.draining else 200)
            case "v2", "config":
                return json_response(model_configuration(model))
            case "v2", "stats":
                return answer_statistics(self.fleet, [model] if version else self.models.versions(name))
            case _:
                return json_response(model.card())

    def _post(self, parts: Sequence[str], request: Request) -> Response | Awaitable[Response]:
        if not parts:
            return self._score(request, invocations.read, "invocations", self._only_model())
        if parts[0] == "repository":
            control = self.control if self.may_control or parts[1:] == ["index"] else None
            return answer_repository(control, request, parts[1:])
        check_decoded(request.body, most_decoded(self.body_limit))
        if parts == ["labels"]:
            if self.inbox is None:
                raise RequestError("this server keeps no labels", hint="start it with --labels DIR")
            return self.inbox.post(request)
        if self.score.recorder is None:
            raise RequestError("no model here has stored state")
        return self.score.recorder.post(request)

    # --- scoring

    def _score(self, request: Request, read: Verb, endpoint: str, model: Model) -> Response | Awaitable[Response]:
        if is_large(request, tensors=endpoint == _TENSORS):
            return self._score_large(request, read, endpoint, model)
        return self.score(request, read, endpoint, model)

    async def _score_large(self, request: Request, read: Verb, endpoint: str, model: Model) -> Response:
        """Read a large body on another thread, and again where the model was swapped in that time."""

        def memory(request: Request) -> int:
            return decoded_memory(request, tensors=endpoint == _TENSORS, csv=endpoint == "invocations")

        async with self.reader(read, model, request, len(request.body), memory) as given:
            if any(model is served for served in self._models):
                response = self.score(request, given, endpoint, model)
                return response if isinstance(response, Response) else await response
        again = self._route(request)
        return again if isinstance(again, Response) else await again

    def _infer(self, model: Model, request: Request) -> Scoring[Response]:
        call = read_call(
            request.body, request.headers.get(HEADER_LENGTH), received=request.received, client=request.client
        )
        return read_inference(model, call, write_answer)


class _Self:
    """Duties of an application without a fleet: its own metrics."""

    def __init__(self, app: ServingApplication) -> None:
        self._app = app

    async def do(self, verb: str, arguments: Mapping[str, Any]) -> Any:  # noqa: ARG002 - as Duties
        return [msgspec.to_builtins(series) for series in self._app.series()] if verb == "metrics" else None


_SHARED_MEMORY = {"systemsharedmemory", "cudasharedmemory"}


def _verb(path: str, rest: Sequence[str]) -> tuple[str | None, str]:
    """Version and verb in the path after `/models/NAME`."""
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


def _error(error: CumulantError) -> Response:
    return error_response(status_of(error), error.full_text, headers_of(error))


def _fault() -> Response:
    write_fault()
    return error_response(500, "internal error")


def _allow(method: str, allowed: str) -> None:
    if method != allowed and not (allowed == "GET" and method == "HEAD"):
        text = f"this path takes {allowed}, not {method[:20]}"
        raise HttpError(405, text, headers=((b"allow", allow_header(allowed)),))


def _no_shared_memory() -> RequestError:
    hint = "send tensors in the body, as binary tensor data where size matters"
    return RequestError("this server has no shared memory with its callers", hint=hint)


def _no_path(path: str) -> NotFoundError:
    hint = "see /v2 for the server and /v1/models for its models"
    return NotFoundError(f"there is nothing at {path[:200]}", subject=path[:200], hint=hint)
