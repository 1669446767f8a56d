"""What is known of a request while it is answered, for its span and its line in the access log."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Protocol

import msgspec


class RequestNote(msgspec.Struct, gc=False):
    """One request. `began`: nanoseconds since 1970; `received`: by `time.perf_counter`."""

    #: `http` or `grpc`
    protocol: str
    method: str
    #: the path's template, or the method of gRPC; never what a caller wrote
    path: str
    client: str
    began: int
    received: float
    #: headers of the W3C context, as they came
    parent: str = ""
    state: str = ""
    request_id: str = ""
    #: behind a gateway `request_id` is ours, and this is the caller's
    ours: bool = False
    caller_id: str = ""
    model: str = ""
    version: str = ""
    rows: int = 0
    #: seconds that it waited for its run; None: it did not
    waited: float | None = None
    cached: bool = False
    #: of HTTP, or the number of gRPC's code
    status: int = 0
    #: seconds from the request's last byte to its answer
    seconds: float = 0.0
    #: of the span, where there is one
    trace_id: str = ""


class RequestObserver(Protocol):
    """Hears of each request when it begins and when it is answered; neither may wait for anything."""

    def began(self, note: RequestNote) -> None: ...

    def ended(self, note: RequestNote) -> None: ...


class RequestObservation:
    """The request that is being answered now, for those who know something of it, and who is told of it at the end."""

    def __init__(self, observers: tuple[RequestObserver, ...]) -> None:
        self._observers = observers
        self._present: ContextVar[RequestNote | None] = ContextVar("note", default=None)

    def begin(self, note: RequestNote) -> None:
        """What is done from here on, in this context, belongs to `note`."""
        self._present.set(note)
        for observer in self._observers:
            observer.began(note)

    def end(self, note: RequestNote, status: int) -> None:
        """The request was answered."""
        note.status, note.seconds = status, time.perf_counter() - note.received
        for observer in self._observers:
            observer.ended(note)

    # --- what scoring knows

    def read(self, request_id: str) -> None:
        """The name that the caller gave in a body, or that an answer has."""
        if (note := self._present.get()) is None or request_id in {"", note.request_id}:
            return
        if note.ours:
            note.caller_id = request_id
        else:
            note.request_id = request_id

    def named(self, name: str) -> None:
        """Our id of the request, behind a gateway; what it had is the caller's."""
        if (note := self._present.get()) is not None:
            note.ours, note.request_id, note.caller_id = True, name, note.request_id

    def scored(self, model: str, version: str, rows: int) -> None:
        """A stream scores several times in one call: rows add up."""
        if (note := self._present.get()) is not None:
            note.model, note.version, note.rows = model, version, note.rows + rows

    def ran(self, waited: float) -> None:
        """The request's turn came after `waited` seconds."""
        if (note := self._present.get()) is not None:
            note.waited = (note.waited or 0.0) + waited

    def hit(self) -> None:
        """The answer came from the prediction cache."""
        if (note := self._present.get()) is not None:
            note.cached = True
