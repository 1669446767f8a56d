"""Results of any size: JSON lines that are sent as they are made, and never held as a whole."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from cumulant.core.errors import OverloadedError
from cumulant.server.operation import LINES, NOTE, ApiCall, LineStream

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.server.operation import Operation

_WAIT = "wait until one has ended"
#: streams that a server makes at once, of all callers and of each: each has a thread
MOST, _MOST_EACH = 4, 2
#: bytes that are sent together, and seconds in which the caller has to take them
_CHUNK, SEND_SECONDS = 1 << 16, 30.0


class LinePlaces:
    """The streams that are made, of all callers and of each, from the request to the end of its thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = Counter[str]()
        self._lock = threading.Lock()

    def take(self, principal: str) -> None:
        """Raises OverloadedError: as many are made as may at once, in all or of the principal."""
        with self._lock:
            if self._taken.total() >= self._most:
                raise OverloadedError(f"{self._most} exports run at once", hint=_WAIT, retry_after=30)
            if self._taken[principal] >= _MOST_EACH:
                raise OverloadedError(f"{principal} has {_MOST_EACH} exports already", hint=_WAIT, retry_after=30)
            self._taken[principal] += 1

    def leave(self, principal: str) -> None:
        with self._lock:
            self._taken[principal] -= 1
            self._taken += Counter()  # without those who have none


async def stream_lines(
    request: Request, project: Project, principal: Principal, operation: Operation, arguments: dict[str, Any]
) -> Response:
    """Answer with the lines of an operation.

    Raises:
        OverloadedError: as many are sent as may at once, in all or to this caller.
        CumulantError: that of the operation, before its first chunk. A later one ends the connection, so that nobody
            takes a part for the whole.
    """
    places: LinePlaces = request.app.state.line_streams
    places.take(principal.id)
    # One thread makes it all, since what it reads from belongs to a thread; the place is left when that has ended.
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, "lines")

    def end() -> None:
        thread.submit(places.leave, principal.id)
        thread.shutdown(wait=False)

    notes: list[str] = []
    call = ApiCall(project, principal, operation.action, note=notes.append)
    try:
        run = partial(copy_context().run, _begin, operation, call, arguments)
        first, lines = await loop.run_in_executor(thread, run)
    except BaseException:
        end()
        raise
    headers = {"cache-control": "no-store"} | ({NOTE: quote("; ".join(notes)[:1_000])} if notes else {})
    if request.method == "HEAD":
        thread.submit(lines.close)
        end()
        return Response(media_type=LINES, headers=headers)
    return _LineResponse(first, lines, thread, end, headers)


def _begin(
    operation: Operation, call: ApiCall, arguments: dict[str, Any]
) -> tuple[bytes, Generator[bytes, None, None]]:
    """The first chunk and the lines after it: what fails before it, such as a first query, is answered as an error."""
    stream = operation.run(call, **arguments)
    assert isinstance(stream, LineStream)
    return _next_chunk(stream.lines), stream.lines


class _LineResponse(StreamingResponse):
    """Sends what the thread makes, as long as the caller takes it; `end` is called once, whatever happens."""

    def __init__(
        self,
        first: bytes,
        lines: Generator[bytes, None, None],
        thread: ThreadPoolExecutor,
        end: Callable[[], None],
        headers: dict[str, str],
    ) -> None:
        super().__init__(_chunks(first, lines, thread), media_type=LINES, headers=headers)
        self._lines, self._thread, self._end = lines, thread, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:  # around all: who is gone already is sent nothing
            await super().__call__(scope, receive, send)
        finally:
            self._thread.submit(self._lines.close)
            self._end()

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Any) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        with suppress(TimeoutError):  # the connection ends before the lines do, which the caller notices
            await super().stream_response(send_in_time)


async def _chunks(
    chunk: bytes, lines: Generator[bytes, None, None], thread: ThreadPoolExecutor
) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    while chunk:
        yield chunk
        chunk = await loop.run_in_executor(thread, _next_chunk, lines)


def _next_chunk(lines: Generator[bytes, None, None]) -> bytes:
    chunk = bytearray()
    for line in lines:
        chunk += line + b"\n"
        if len(chunk) >= _CHUNK:
            break
    return bytes(chunk)
