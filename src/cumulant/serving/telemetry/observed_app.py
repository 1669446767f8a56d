"""The application with someone watching: one note a request over HTTP, told when it is answered."""

from __future__ import annotations

import time
from collections.abc import Awaitable

from cumulant.core.traffic import printable_id
from cumulant.serving.gateway_headers import marks_of
from cumulant.serving.http.messages import Request, Response
from cumulant.serving.http.site import Handler
from cumulant.serving.protocol.paths import template
from cumulant.serving.telemetry.observation import Note, Watch

_MOST = 256


class Watched:
    """Answers as `handle` does, and tells `watch`. Where nobody watches, `handle` itself is to be used."""

    def __init__(self, handle: Handler, watch: Watch, *, behind_gateway: bool = False) -> None:
        """`behind_gateway`: requests have names of ours, see `gateway.Trust`."""
        self._handle, self._watch, self._behind_gateway = handle, watch, behind_gateway
        #: of paths that were asked for before; bounded, as callers choose them
        self._templates: dict[bytes, str] = {}

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        note = _note(request, self._template(request.target))
        if self._behind_gateway:
            marks = marks_of(request.headers)
            note.ours, note.request_id, note.caller_id = True, marks.request, marks.caller
        self._watch.begin(note)
        found = self._handle(request)
        if isinstance(found, Response):
            self._watch.end(note, found.status)
            return found
        return self._later(found, note)

    def _template(self, target: bytes) -> str:
        found = self._templates.get(target)
        if found is None:
            found = template(target)
            if len(self._templates) < _MOST:
                self._templates[target] = found
        return found

    async def _later(self, found: Awaitable[Response], note: Note) -> Response:
        # A connection that is lost cancels its request: 499, as proxies write it.
        status = 499
        try:
            response = await found
            status = response.status
            return response
        finally:
            self._watch.end(note, status)


def _note(request: Request, path: str) -> Note:
    headers = request.headers
    return Note(
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
