"""HTTP application with observation of its requests."""

from __future__ import annotations

import time
from collections.abc import Awaitable

from cumulant.core.traffic import printable_id
from cumulant.serving.gateway_headers import marks_of
from cumulant.serving.http.messages import Request, Response
from cumulant.serving.http.site import Handler
from cumulant.serving.protocol.paths import path_template
from cumulant.serving.telemetry.observation import RequestNote, RequestObservation

_MOST = 256


class ObservedApp:
    """Handler that observes the requests of `handle`."""

    def __init__(self, handle: Handler, watch: RequestObservation, *, behind_gateway: bool = False) -> None:
        """`behind_gateway`: requests carry ids of the server, see `gateway_headers.Trust`."""
        self._handle, self._watch, self._behind_gateway = handle, watch, behind_gateway
        #: of paths that were asked for before; bounded, as callers choose them
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
