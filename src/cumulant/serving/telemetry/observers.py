"""Observers of a worker's requests by its settings: access log, traces, both or none."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from cumulant.core.traffic import printable_id
from cumulant.serving.gateway_headers import marks_of
from cumulant.serving.http.messages import Request, Response
from cumulant.serving.http.refusals import HttpRefusal
from cumulant.serving.http.site_state import Handler
from cumulant.serving.models.model import ModelSet
from cumulant.serving.protocol.paths import path_template
from cumulant.serving.settings import Settings
from cumulant.serving.telemetry.access_log import AccessLog
from cumulant.serving.telemetry.observation import RequestNote, RequestObservation

if TYPE_CHECKING:
    from cumulant.serving.telemetry.tracing import Tracing

_MOST = 256


class ObservedApp:
    """Handler that observes the requests of `handle`."""

    def __init__(self, handle: Handler, watch: RequestObservation, *, behind_gateway: bool = False) -> None:
        """`behind_gateway`: requests carry ids of the server, see `gateway_headers.Trust`."""
        self._handle, self._watch, self._behind_gateway = handle, watch, behind_gateway
        #: path templates by target; bounded, as callers choose targets
        self._templates: dict[bytes, str] = {}

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        note = _note(request, self._template(request.target))
        if self._behind_gateway:
            marks = marks_of(request.headers)
            note.ours, note.request_id, note.caller_id = True, marks.request, marks.caller
        self._watch.begin(note)
        response = self._handle(request)
        if isinstance(response, Response):
            self._watch.end(note, response.status)
            return response
        return self._later(response, note)

    def _template(self, target: bytes) -> str:
        known = self._templates.get(target)
        if known is None:
            known = path_template(target)
            if len(self._templates) < _MOST:
                self._templates[target] = known
        return known

    async def _later(self, pending: Awaitable[Response], note: RequestNote) -> Response:
        # A connection that is lost cancels its request: 499, as proxies write it.
        status = 499
        try:
            response = await pending
            status = response.status
            return response
        finally:
            self._watch.end(note, status)


def _note(request: Request, path: str) -> RequestNote:
    headers = request.headers
    return RequestNote(
        "http",
        request.method,
        path,
        request.client,
        time.time_ns(),
        request.received,
        parent=headers.get(b"traceparent", b"").decode("latin-1"),
        state=headers.get(b"tracestate", b"").decode("latin-1"),
        request_id=printable_id(headers.get(b"x-request-id", b"")),
    )


class RequestObservers:
    """The configured observers; `watch` is None where there are none.

    Raises:
        UsageError: as `Tracing`.
    """

    def __init__(self, settings: Settings) -> None:
        # The tracer first: what it adds to a note at the end stands in the log's line.
        self._tracing: Tracing | None = None
        if settings.traces is not None:
            # Not before it is wanted: its packages are an extra.
            from cumulant.serving.telemetry.tracing import Tracing

            self._tracing = Tracing(settings.traces or None, service=settings.name)
        self._behind_gateway = settings.gateway_key is not None
        self._log = AccessLog() if settings.access_log else None
        observers = tuple(observer for observer in (self._tracing, self._log) if observer is not None)
        self.watch = RequestObservation(observers) if observers else None

    def wrap(self, handle: Handler) -> Handler:
        """`handle` with observation, where any is configured."""
        return handle if self.watch is None else ObservedApp(handle, self.watch, behind_gateway=self._behind_gateway)

    def log_refusal(self, refusal: HttpRefusal) -> None:
        """Log refusals of incomplete requests."""
        if self._log is not None:
            self._log.log_refusal(refusal)

    def follow(self, models: ModelSet) -> None:
        """Observe the runs of `models`."""
        for model in models:
            model.runner.observer = self.watch

    def close(self) -> None:
        """Flush the log and the traces."""
        for observer in (self._tracing, self._log):
            if observer is not None:
                observer.close()
