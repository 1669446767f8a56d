"""Files that requests carry: kept on the disk while an operation reads them, and removed with its answer.

A process of its own reads each, whose memory is bounded: a small file may become very large when it is unpacked.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.concurrency import run_in_threadpool

from cumulant.core.errors import DataError, DeadlineError, OverloadedError, RequestError, TerminalError, error_from
from cumulant.server.handler import json_response
from cumulant.server.jobs import JobMessage, job_request, start_process
from cumulant.server.operation import MOST_UPLOAD
from cumulant.serving.errors import HttpError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from cumulant.project.project import Project
    from cumulant.server.operation import ApiCall, Operation

#: the longest name of a file
_LONGEST = 200
#: bytes that the process which reads a file may hold, and seconds that it may take
MOST_MEMORY, _MOST_SECONDS = 768 << 20, 600.0
#: seconds after which a file is one of a server that was killed
_LEFT_OVER = 3_600.0


async def run_with_upload(
    request: Request, call: ApiCall, operation: Operation, arguments: dict[str, Any], places: asyncio.Semaphore
) -> Response:
    """The answer of an operation that reads the body of the request as a file, whose name its query gives.

    Raises:
        OverloadedError: as many files are on their way as may be.
        RequestError: the name is none of a file.
        HttpError: 413, the file is too large.
        CumulantError: that of the operation, also where the caller may not do it, before the body is read.
    """
    await run_in_threadpool(call.check)
    if places.locked():
        raise OverloadedError("too many files are on their way", hint="send it again later", retry_after=30)
    name = str(arguments["query"].name)
    if name != Path(name).name or len(name) > _LONGEST or not name.isprintable() or name in ("", ".", ".."):
        raise RequestError("`name` is no name of a file", subject=name[:80], hint="without a folder: scores.csv")
    async with places:
        place = _folder(call.project)
        place.mkdir(mode=0o700, exist_ok=True)
        with TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as folder:
            path = Path(folder) / name
            await _receive(request, path)
            return json_response(await run_in_threadpool(_run_apart, call, operation, arguments, path))


def sweep_uploads(project: Project) -> None:
    """Remove the files of servers that were killed."""
    with suppress(OSError):
        for folder in _folder(project).iterdir():
            if time.time() - folder.stat().st_mtime > _LEFT_OVER:
                shutil.rmtree(folder, ignore_errors=True)


def _folder(project: Project) -> Path:
    return project.state / ".uploads"  # backups leave hidden folders out


def _run_apart(call: ApiCall, operation: Operation, arguments: dict[str, Any], path: Path) -> bytes:
    """The operation's result, by a process that is killed where it takes too long. Raises CumulantError."""
    arguments = arguments | {"upload": path}
    request = job_request(call.project, call.principal, operation.name, operation.action, arguments)
    request = msgspec.structs.replace(request, memory=MOST_MEMORY)
    # Its drafts are below the file's folder, and go with it.
    process = start_process(request, env=os.environ | {"TMPDIR": str(path.parent)})
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(_MOST_SECONDS, end)
    timer.start()
    try:
        assert process.stdout is not None
        with process.stdout as stream:
            lines = stream.read().splitlines()
    finally:
        process.wait()
        timer.cancel()
    if late.is_set():
        hint = "divide the file, or run the command on the server's machine"
        raise DeadlineError(f"the file was not read within {_MOST_SECONDS:g} s", subject=path.name, hint=hint)
    return _result(lines[-1] if lines else b"", path.name)


def _result(line: bytes, name: str) -> bytes:
    try:
        message = msgspec.json.decode(line, type=JobMessage)
    except msgspec.DecodeError:  # an engine without memory ends its process
        hint = "divide the file, or run the command on the server's machine"
        text = "the process that read the file has ended: it takes more memory than it may, or is damaged"
        raise DataError(text, subject=name, hint=hint) from None
    if message.error is not None:
        raise error_from(message.error, fallback=TerminalError)
    return msgspec.json.encode(message.result)


async def _receive(request: Request, path: Path) -> None:
    size = 0
    with path.open("wb") as stream:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MOST_UPLOAD:
                raise HttpError(413, f"the file is larger than {MOST_UPLOAD >> 20} MiB")
            await run_in_threadpool(stream.write, chunk)
