"""Observation of calls over gRPC."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from cumulant.core.traffic import printable_id
from cumulant.serving.telemetry.observation import RequestNote, RequestObservation

Handler = Any  # None where there is no such method, which the library's types leave out
_OK, _CANCELLED = 0, 1


class ObservingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its types only
    """Reports every call of a known method to `watch`, when it begins and ends."""

    def __init__(self, watch: RequestObservation) -> None:
        self._watch = watch

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(details)
        if handler is not None and handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._around(handler.unary_unary, details))
        if handler is not None and inspect.iscoroutinefunction(handler.stream_stream):
            return grpc.stream_stream_rpc_method_handler(self._around(handler.stream_stream, details))
        return handler

    def _around(self, inner: Callable[[Any, Any], Any], details: grpc.HandlerCallDetails) -> Callable[[Any, Any], Any]:
        async def observed(request: Any, context: Any) -> Any:
            note = _note(details, context)
            self._watch.begin(note)
            status = _CANCELLED
            try:
                response = await inner(request, context)
                status = _OK
                return response
            finally:
                self._watch.end(note, _code(context) or status)

        return observed


def _note(details: grpc.HandlerCallDetails, context: Any) -> RequestNote:
    metadata = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
    return RequestNote(
        "grpc",
        "POST",
        details.method,
        context.peer().rpartition(":")[0],
        time.time_ns(),
        time.perf_counter(),
        parent=metadata.get("traceparent", ""),
        state=metadata.get("tracestate", ""),
        request_id=printable_id(metadata.get("x-request-id", "").encode("latin-1", "replace")),
    )


def _code(context: Any) -> int:
    code = context.code()
    return int(code.value[0]) if isinstance(code, grpc.StatusCode) else int(code or 0)
