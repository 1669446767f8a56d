"""The Open Inference Protocol v2 over gRPC: what each method answers.

Messages are read here rather than by gRPC, which answers a broken one with UNKNOWN and writes a traceback.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import grpc
import msgspec
from google.protobuf.json_format import ParseDict

from cumulant.core.errors import CumulantError, NotFoundError
from cumulant.core.traffic import REQUEST_HEADER
from cumulant.ports.access import Principal
from cumulant.serving.access.control import token_needed
from cumulant.serving.admin import (
    gather_series,
    model_configuration,
    model_metadata,
    model_statistics,
    no_parameters,
    require_control,
)
from cumulant.serving.app import ServingApplication
from cumulant.serving.endpoints.authorization import PREDICT
from cumulant.serving.endpoints.scoring import Scoring, read_inference
from cumulant.serving.errors import HttpError
from cumulant.serving.gateway_headers import new_name
from cumulant.serving.grpc.actions import METHOD_ACTIONS, SHARED_MEMORY, method_name
from cumulant.serving.grpc.codec import (
    is_large,
    parsed,
    read_call,
    read_message,
    stream_answer,
    stream_error,
    write_answer,
)
from cumulant.serving.grpc.errors import code_of, details_of, trailing_of
from cumulant.serving.grpc.messages import SERVICE, message_class
from cumulant.serving.models.model import Model
from cumulant.serving.telemetry.access_log import write_fault

Context = grpc.aio.ServicerContext[Any, Any]
Document = dict[str, Any]

#: of a number of 64 bits
_DIGITS = 18


class ReceivedRequest(msgspec.Struct, gc=False):
    """A `ModelInferRequest` with its time, deadline, client and principal."""

    message: Any
    raws: Any
    received: float
    #: the caller's deadline by `time.perf_counter`; None: it has none
    deadline: float | None
    client: str
    principal: str = ""
    #: our id of it, behind a gateway; empty: none was chosen
    name: str = ""


class Shutdown:
    """End of the server, for calls that wait without limit: streams and watches."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()

    async def or_read(self, context: Context) -> bytes | None:
        """The next message of a stream; None at its end.

        Raises:
            HttpError: 503, the server ends.
        """
        reading = asyncio.ensure_future(context.read())
        ending = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise HttpError(503, "the server is ending", hint="open the stream again")
            body = reading.result()
            return body if isinstance(body, bytes) else None
        finally:
            reading.cancel()
            ending.cancel()


class Service:
    """Answers for an application's models; the same models, metrics, token and control as over HTTP."""

    def __init__(self, app: ServingApplication, shutdown: Shutdown) -> None:
        self._app, self._shutdown = app, shutdown

    def handlers(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """For `grpc.aio.Server.add_generic_rpc_handlers`."""
        unary: Mapping[str, Callable[[Any], Document | Awaitable[Document]]] = {
            "ServerLive": lambda _: {"live": True},
            "ServerReady": lambda _: {"ready": not self._app.draining},
            "ServerMetadata": lambda _: self._app.metadata(),
            "ModelReady": self._ready,
            "ModelMetadata": self._metadata,
            "ModelConfig": lambda request: {"config": _config(self._model(request))},
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(_unary(self._app, name, answer)) for name, answer in unary.items()
        }
        methods.update((name, grpc.unary_unary_rpc_method_handler(no_shared_memory)) for name in SHARED_MEMORY)
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self.infer)
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self.stream)
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    # --- inference

    async def infer(self, body: bytes, context: Context) -> bytes:
        """`ModelInfer`."""
        received = time.perf_counter()
        try:
            caller = identify(self._app, context, PREDICT)
            name = self._name(context)
            message, raws = read_message(body)
            self._app.access.check(caller, PREDICT, message.model_name)
            response = self._score(message, raws, len(body), received, context, caller=caller, name=name)
            return response if isinstance(response, bytes) else await response
        except CumulantError as error:
            await refuse(context, error)
        except Exception:  # noqa: BLE001 - the edge: one request's fault must not end the server
            await refuse(context, fault())

    async def stream(self, _: object, context: Context) -> None:
        """`ModelStreamInfer`: one answer a request, in their order; a request that is refused ends nothing."""
        try:
            caller = identify(self._app, context, PREDICT)
            while (body := await self._shutdown.or_read(context)) is not None:
                await context.write(await self._one_of_stream(body, context, caller))
        except CumulantError as error:
            await refuse(context, error)

    async def _one_of_stream(self, body: bytes, context: Context, caller: Principal) -> bytes:
        received, message = time.perf_counter(), None
        try:
            message, raws = read_message(body)
            self._app.access.check(caller, PREDICT, message.model_name)
            response = self._score(message, raws, len(body), received, context, caller=caller)
            return stream_answer(response if isinstance(response, bytes) else await response)
        except CumulantError as error:
            return stream_error(details_of(error), message)
        except Exception:  # noqa: BLE001 - the edge, as above
            return stream_error(details_of(fault()), message)

    def _name(self, context: Context) -> str:
        """Behind a gateway, our id of a call, which its trailing metadata and its access line name; else empty."""
        if self._app.score.marks is None:
            return ""
        name = new_name()
        context.set_trailing_metadata(((REQUEST_HEADER, name),))
        if self._app.score.watch is not None:
            self._app.score.watch.record_server_id(name)
        return name

    def _score(
        self,
        message: Any,
        raws: Any,
        size: int,
        received: float,
        context: Context,
        *,
        caller: Principal,
        name: str = "",
    ) -> bytes | Awaitable[bytes]:
        model = self._model_of(message)
        client, remaining = context.peer().rpartition(":")[0], context.time_remaining()
        deadline = None if remaining is None else time.perf_counter() + remaining
        request = ReceivedRequest(message, raws, received, deadline, client, caller.id, name)
        if is_large(message, raws, size):
            return self._apart(request, size, model)
        return self._app.score(request, _read, "grpc", model)

    async def _apart(self, request: ReceivedRequest, size: int, model: Model) -> bytes:
        """A large request is read on another thread; again where the model was swapped in that time."""
        async with self._app.reader(_read, model, request, size) as scoring:
            if any(model is served for served in self._app.models):
                response = self._app.score(request, scoring, "grpc", model)
                return response if isinstance(response, bytes) else await response
        return await self._apart(request, size, self._model_of(request.message))

    def _model_of(self, message: Any) -> Model:
        return self._app.models.get(message.model_name, message.model_version or None)

    # --- models

    def _model(self, request: Any) -> Model:
        return self._app.models.get(request.name, request.version or None)

    def _ready(self, request: Any) -> Document:
        """A missing model is not ready, rather than an error: clients wait for it."""
        try:
            self._model(request)
        except NotFoundError:
            return {"ready": False}
        return {"ready": not self._app.draining}

    def _metadata(self, request: Any) -> Document:
        model = self._model(request)
        return model_metadata(model, [served.version for served in self._app.models.versions(model.name)])

    async def _statistics(self, request: Any) -> Document:
        if request.version:
            models = [self._model(request)]
        else:
            models = self._app.models.versions(request.name) if request.name else list(self._app.models)
        series = await gather_series(self._app.fleet)
        return {"model_stats": [model_statistics(model, series) for model in models]}

    # --- repository

    async def _index(self, request: Any) -> Document:
        if self._app.control is None:
            raise HttpError(503, "the server is starting")
        return {"models": await self._app.control.index(ready_only=request.ready)}

    async def _load(self, request: Any) -> Document:
        control = require_control(self._app.control if self._app.may_control else None)
        if request.parameters:
            raise no_parameters()
        await control.load(request.model_name)
        return {}

    async def _unload(self, request: Any) -> Document:
        control = require_control(self._app.control if self._app.may_control else None)
        await control.unload(request.model_name)
        return {}


async def no_shared_memory(_: bytes, context: Context) -> NoReturn:
    """Methods of an extension that this server lacks: refused with a reason rather than as unknown."""
    details = "this server has no shared memory with its callers; send tensors in raw_input_contents"
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, details)


def identify(app: ServingApplication, context: Context, action: str) -> Principal:
    """Who calls a method of that action.

    Raises:
        HttpError: 401, a token is needed and the call's metadata do not carry it.
    """
    callers, token = app.access.callers, b""
    if callers.guarded:
        given = next((value for key, value in context.invocation_metadata() or () if key == "authorization"), "")
        token = given if isinstance(given, bytes) else str(given).encode()
    principal = callers.identify(token)
    if principal is None:
        app.access.record(callers.anonymous, action, None, "token")
        raise token_needed()
    return principal


async def refuse(context: Context, error: CumulantError) -> NoReturn:
    """End the call with the error."""
    await context.abort(code_of(error), details_of(error), trailing_of(error))


def fault() -> CumulantError:
    """Error for the caller of an internal fault, which is written to standard error."""
    write_fault()
    return CumulantError("internal error")


def _read(model: Model, request: ReceivedRequest) -> Scoring[bytes]:
    remaining = None if request.deadline is None else request.deadline - time.perf_counter()
    call = read_call(
        request.message, request.raws, received=request.received, remaining=remaining, client=request.client
    )
    return read_inference(model, call, write_answer)


def _unary(
    app: ServingApplication, name: str, answer: Callable[[Any], Document | Awaitable[Document]]
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    """Handler of a method that `answer` answers with a document."""
    parse, response_class = message_class(f"{name}Request").FromString, message_class(f"{name}Response")
    action = METHOD_ACTIONS[method_name(name)]

    async def handle(body: bytes, context: Context) -> bytes:
        try:
            if action is None:
                request = parsed(parse, body)
            else:
                caller = identify(app, context, action)
                request = parsed(parse, body)
                app.access.check(caller, action, _named_model(request))
            answered = answer(request)
            document = answered if isinstance(answered, dict) else await answered
            return ParseDict(document, response_class(), ignore_unknown_fields=True).SerializeToString()  # type: ignore[no-any-return]
        except CumulantError as error:
            await refuse(context, error)
        except Exception:  # noqa: BLE001 - the edge: one request's fault must not end the server
            await refuse(context, fault())

    return handle


def _named_model(request: Any) -> str | None:
    """The model that a message names; None where it is about the server."""
    return getattr(request, "model_name", "") or getattr(request, "name", "") or None


def _config(model: Model) -> Document:
    """Configuration of a model; the protocol's message has only whole numbers for the versions of its policy."""
    configuration = model_configuration(model)
    whole = model.version.isdecimal() and len(model.version) <= _DIGITS
    return configuration if whole else {**configuration, "version_policy": {}}
