"""JSON lines on standard error: one per request with the access log, and one per internal error.

They contain no data of callers: no body, no raw path, no header but a printable request id.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from queue import Full, Queue
from typing import BinaryIO

import msgspec

from cumulant.serving.http.refusals import HttpRefusal
from cumulant.serving.telemetry.observation import RequestNote

#: lines that wait to be written; more are dropped and counted
_MOST = 8192
_encode = msgspec.json.Encoder().encode


class AccessLog:
    """Access log with a thread of its own; lines beyond its queue are dropped, and the next line has their number."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = sys.stderr.buffer if stream is None else stream
        self._lines: Queue[bytes | None] = Queue(_MOST)
        self.dropped = 0
        self._reported = 0
        self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._thread.start()

    def on_begin(self, note: RequestNote) -> None:
        """Nothing is written before the answer."""

    def on_end(self, note: RequestNote) -> None:
        self._put(line_of(note))

    def log_refusal(self, refusal: HttpRefusal) -> None:
        """Write refusals of incomplete requests, which have no `RequestNote`."""
        self._put(refusal_line(refusal))

    def _put(self, line: dict[str, object]) -> None:
        if (lost := self.dropped - self._reported) > 0:
            line["dropped"] = lost
        try:
            self._lines.put_nowait(_encode(line) + b"\n")
        except Full:
            self.dropped += 1
        else:
            self._reported += lost

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line)
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                self.dropped += 1  # the reader is gone; requests are still served
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()  # the end may have been waiting behind the last line

    def close(self, patience: float = 2.0) -> None:
        """Write what waits, for at most `patience` seconds."""
        try:
            self._lines.put(None, timeout=patience)
        except Full:
            return
        self._thread.join(patience)


def line_of(note: RequestNote) -> dict[str, object]:
    """Line of an answered request."""
    ok = note.status == 0 if note.protocol == "grpc" else note.status < 500
    line: dict[str, object] = {
        "time": datetime.fromtimestamp(note.began / 1e9, UTC).isoformat(timespec="milliseconds"),
        "level": "info" if ok else "error",
        "protocol": note.protocol,
        "method": note.method,
        "path": note.path,
        "status": note.status,
        "ms": round(note.seconds * 1000, 3),
        "client": note.client,
    }
    more = {
        "request_id": note.request_id,
        "caller_id": note.caller_id,
        "trace_id": note.trace_id,
        "model": note.model,
        "version": note.version,
    }
    line.update({name: value for name, value in more.items() if value})
    if note.model:
        line["rows"] = note.rows
    if note.waited is not None:
        line["queue_ms"] = round(note.waited * 1000, 3)
    if note.cached:
        line["cached"] = True
    return line


def refusal_line(refusal: HttpRefusal) -> dict[str, object]:
    """Line of refusals of incomplete requests; it contains no request data."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": "info",
        "protocol": "http",
        "refused": refusal.reason,
        "status": refusal.status,
        "client": refusal.client,
        "times": refusal.times,
    }


def fault_line(error: BaseException, *, where: Mapping[str, str] | None = None) -> bytes:
    """Line of an internal error: its class and code locations, without its message, which may contain request data."""
    frames = traceback.extract_tb(error.__traceback__)
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": "error",
        "error": type(error).__qualname__,
        "at": [f"{frame.filename.rpartition('/src/')[2]}:{frame.lineno} {frame.name}" for frame in frames],
        **(where or {}),
    }
    return _encode(line) + b"\n"


def write_fault() -> None:
    """Write the exception that is being handled."""
    error = sys.exc_info()[1]
    if error is not None:
        sys.stderr.write(fault_line(error).decode())
        sys.stderr.flush()
