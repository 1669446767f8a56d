"""OpenTelemetry spans of requests, with the W3C context of the caller; needs the extra `otel`.

No body, no header and no path as it was written enters a span.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cumulant.core.errors import UsageError
from cumulant.core.version import __version__
from cumulant.serving.telemetry.observation import RequestNote

_HINT = 'pip install "cumulant[otel]"'
#: variables of OpenTelemetry, the stronger one first, and the protocol that is spoken
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


#: begin, or the ends of gRPC, of paths of probes
_PROBES, _CALLS = ("/v2/health/", "/ping", "/health", "/grpc.health.v1."), ("/ServerLive", "/ServerReady")


def is_probe(path: str) -> bool:
    """Whether a path is a health probe, whose frequent spans would hide the others."""
    return path.startswith(_PROBES) or path.endswith(_CALLS)


class Tracing:
    """A server span a request but probes, with the reads of stored features and the runs of the model below it.

    They are sent in batches as OTLP over HTTP by a thread of its own.

    The parent's flag decides whether a request is sampled; without a parent all are, or by `OTEL_TRACES_SAMPLER`.

    Raises:
        UsageError: the packages of the extra `otel` are not installed.
    """

    def __init__(self, endpoint: str | None, *, service: str, exporter: Any = None) -> None:
        try:
            from opentelemetry.context import Context
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, set_span_in_context
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ModuleNotFoundError:
            raise UsageError("traces need packages that are not installed", hint=_HINT) from None
        named = {"service.version": __version__}
        if "OTEL_SERVICE_NAME" not in os.environ:
            named["service.name"] = service
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _exporter(endpoint)))
        self._tracer = self._provider.get_tracer("cumulant", __version__)
        self._extract = TraceContextTextMapPropagator().extract
        self._none, self._server, self._below = Context(), SpanKind.SERVER, set_span_in_context
        self._open: dict[int, Any] = {}

    def on_begin(self, note: RequestNote) -> None:
        if is_probe(note.path):
            return
        parent = self._none
        if note.parent:
            carrier = {"traceparent": note.parent, "tracestate": note.state}
            parent = self._extract(carrier, self._none)
        name = note.path.lstrip("/") if note.protocol == "grpc" else f"{note.method} {note.path}"
        span = self._tracer.start_span(name, parent, self._server, start_attributes(note), start_time=note.began)
        note.trace_id = f"{span.get_span_context().trace_id:032x}"
        note.sampled = span.get_span_context().trace_flags.sampled
        if span.is_recording():
            self._open[id(note)] = span

    def on_end(self, note: RequestNote) -> None:
        span = self._open.pop(id(note), None)
        if span is None:
            return
        span.set_attributes(end_attributes(note))
        if is_failed(note):
            from opentelemetry.trace import StatusCode

            span.set_status(StatusCode.ERROR)
        self._add_stages(span, note)
        span.end(note.began + int(note.seconds * 1e9))

    def _add_stages(self, span: Any, note: RequestNote) -> None:
        """The parts of the work as spans below the request's."""
        below = self._below(span) if note.stages else None
        for stage in note.stages:
            start = note.began + int((stage.began - note.received) * 1e9)
            part = self._tracer.start_span(stage.name, below, start_time=start)
            part.end(start + int(stage.seconds * 1e9))

    def close(self) -> None:
        """Flush pending spans."""
        self._provider.shutdown()


def is_failed(note: RequestNote) -> bool:
    """Whether the request failed with a server error: HTTP 5xx, or such a code of gRPC."""
    return note.status in {2, 4, 12, 13, 14, 15} if note.protocol == "grpc" else note.status >= 500


def start_attributes(note: RequestNote) -> dict[str, str]:
    """Span attributes at the start, which a sampler may use."""
    common = {"client.address": note.client, "network.protocol.name": "http"}
    if note.protocol == "grpc":
        service, _, method = note.path.lstrip("/").rpartition("/")
        return {**common, "rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    return {**common, "http.request.method": note.method, "http.route": note.path, "url.scheme": "http"}


def end_attributes(note: RequestNote) -> dict[str, Any]:
    """Span attributes at the end."""
    status = "rpc.grpc.status_code" if note.protocol == "grpc" else "http.response.status_code"
    attributes: dict[str, Any] = {status: note.status}
    if is_failed(note):
        attributes["error.type"] = str(note.status)
    if note.model:
        attributes["cumulant.model"], attributes["cumulant.version"] = note.model, note.version
        attributes["cumulant.rows"], attributes["cumulant.cached"] = note.rows, note.cached
        attributes["cumulant.queue_seconds"] = note.waited or 0.0
    return attributes


def _exporter(endpoint: str | None) -> Any:
    """`endpoint` is the collector's base address; None: by the variables of OpenTelemetry."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError:
        raise UsageError("traces need packages that are not installed", hint=_HINT) from None
    if endpoint is None:
        return OTLPSpanExporter()
    return OTLPSpanExporter(endpoint=_traces_path(endpoint))


def collector_url(environment: Mapping[str, str]) -> str | None:
    """Where the variables of OpenTelemetry send traces over HTTP; None where they request none.

    Raises:
        UsageError: they request another protocol.
    """
    if not traces_requested(environment):
        return None
    own, base = (environment.get(name) for name in _ENDPOINTS)
    return own or _traces_path(base or "")


def _traces_path(endpoint: str) -> str:
    base = endpoint.rstrip("/")
    return base if base.endswith("/v1/traces") else f"{base}/v1/traces"


def traces_requested(environment: Mapping[str, str]) -> bool:
    """Whether the variables of OpenTelemetry request traces.

    Raises:
        UsageError: they request another protocol than OTLP over HTTP.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    if not any(environment.get(name) for name in _ENDPOINTS):
        return False
    name = next((name for name in _PROTOCOLS if environment.get(name)), "")
    if name and environment[name] != _PROTOCOL:
        raise UsageError(
            f"{name} is {environment[name]}, and traces are sent as {_PROTOCOL} alone",
            subject=name,
            hint=f"set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL={_PROTOCOL} and OTEL_EXPORTER_OTLP_TRACES_ENDPOINT to the"
            " collector's address of OTLP over HTTP, usually port 4318 and the path /v1/traces",
        )
    return True
