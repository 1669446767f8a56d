"""Results of any size: JSON lines that are sent as they are made, and never held as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from cumulant.core.errors import OverloadedError
from cumulant.server.operation import LINES, NOTE, ApiCall, LineStream

if TYPE_CHECKING:
    from starlette.requests import Request

    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.server.operation import Operation

#: streams that a server makes at once: each has a thread
MOST = 4
#: bytes that are sent together
_CHUNK = 1 << 16


async def stream_lines(
    request: Request, project: Project, principal: Principal, operation: Operation, arguments: dict[str, Any]
) -> Response:
    """Answer with the lines of an operation.

    Raises:
        OverloadedError: as many are sent as may at once.
        CumulantError: that of the operation, before its first line. A later one ends the connection, so that nobody
            takes a part for the whole.
    """
    places: asyncio.Semaphore = request.app.state.line_streams
    if places.locked():
        raise OverloadedError(f"{MOST} exports run at once", hint="wait until one has ended", retry_after=30)
    notes: list[str] = []
    call = ApiCall(project, principal, operation.action, note=notes.append)
    stream = await run_in_threadpool(operation.run, call, **arguments)
    assert isinstance(stream, LineStream)
    headers = {"cache-control": "no-store"} | ({NOTE: quote("; ".join(notes)[:1_000])} if notes else {})
    if request.method == "HEAD":
        return Response(media_type=LINES, headers=headers)
    return StreamingResponse(_chunks(stream.lines, places), media_type=LINES, headers=headers)


async def _chunks(lines: Generator[bytes, None, None], places: asyncio.Semaphore) -> AsyncIterator[bytes]:
    """What is sent, made by one thread, since what it reads from belongs to a thread."""
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, "lines")
    async with places:
        try:
            while chunk := await loop.run_in_executor(thread, _next_chunk, lines):
                yield chunk
        finally:
            thread.submit(lines.close)
            thread.shutdown(wait=False)


def _next_chunk(lines: Generator[bytes, None, None]) -> bytes:
    chunk = bytearray()
    for line in lines:
        chunk += line + b"\n"
        if len(chunk) >= _CHUNK:
            break
    return bytes(chunk)
