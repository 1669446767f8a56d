"""Observation of requests for traces and the access log."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import msgspec


class RequestStage(NamedTuple):
    """A part of the work on a request; `began` by `time.perf_counter`."""

    name: str
    began: float
    seconds: float


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
    #: whether that span is recorded, and its parts
    sampled: bool = False
    stages: list[RequestStage] = []


#: stages of a request that are kept; a stream may have any number
_MOST_STAGES = 32


class RequestObserver(Protocol):
    """Observer of the begin and end of each request; neither call may block."""

    def on_begin(self, note: RequestNote) -> None: ...

    def on_end(self, note: RequestNote) -> None: ...


class RequestObservation:
    """Collects what is known of the current request, and notifies the observers."""

    def __init__(self, observers: tuple[RequestObserver, ...]) -> None:
        self._observers = observers
        self._present: ContextVar[RequestNote | None] = ContextVar("note", default=None)

    def begin(self, note: RequestNote) -> None:
        """Start a request: `note` is the current one in this context."""
        self._present.set(note)
        for observer in self._observers:
            observer.on_begin(note)

    def end(self, note: RequestNote, status: int) -> None:
        """End a request with its status."""
        note.status, note.seconds = status, time.perf_counter() - note.received
        for observer in self._observers:
            observer.on_end(note)

    def sampled_trace(self) -> str:
        """The trace of the current request; empty where none is recorded."""
        note = self._present.get()
        return note.trace_id if note is not None and note.sampled else ""

    # --- what scoring knows

    def record_stage(self, name: str, began: float, seconds: float) -> None:
        """Record a part of the work on a request that is traced."""
        note = self._present.get()
        if note is not None and note.sampled and len(note.stages) < _MOST_STAGES:
            note.stages.append(RequestStage(name, began, seconds))

    def record_id(self, request_id: str) -> None:
        """Record the request id of a body or an answer."""
        if (note := self._present.get()) is None or request_id in {"", note.request_id}:
            return
        if note.ours:
            note.caller_id = request_id
        else:
            note.request_id = request_id

    def record_server_id(self, name: str) -> None:
        """Record the server's request id behind a gateway; the former one is the caller's."""
        if (note := self._present.get()) is not None:
            note.ours, note.request_id, note.caller_id = True, name, note.request_id

    def record_rows(self, model: str, version: str, rows: int) -> None:
        """Record scored rows; those of a stream are summed."""
        if (note := self._present.get()) is not None:
            note.model, note.version, note.rows = model, version, note.rows + rows

    def record_run(self, waited: float) -> None:
        """Record a run that began after `waited` seconds."""
        if (note := self._present.get()) is not None:
            note.waited = (note.waited or 0.0) + waited

    def record_hit(self) -> None:
        """Record a hit of the prediction cache."""
        if (note := self._present.get()) is not None:
            note.cached = True
