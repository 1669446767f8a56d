"""Files that requests carry: kept on the disk while an operation reads them, and removed with its answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

from starlette.concurrency import run_in_threadpool

from cumulant.core.errors import OverloadedError, RequestError
from cumulant.server.handler import json_response, run_operation
from cumulant.server.operation import MOST_UPLOAD
from cumulant.serving.errors import HttpError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from cumulant.server.operation import ApiCall, Operation

#: the longest name of a file
_LONGEST = 200


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
        with TemporaryDirectory(prefix="cumulant-upload-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / name
            await _receive(request, path)
            return json_response(await run_operation(call, operation, arguments | {"upload": path}))


async def _receive(request: Request, path: Path) -> None:
    size = 0
    with path.open("wb") as stream:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MOST_UPLOAD:
                raise HttpError(413, f"the file is larger than {MOST_UPLOAD >> 20} MiB")
            await run_in_threadpool(_write, stream, chunk)


def _write(stream: BinaryIO, chunk: bytes) -> None:
    stream.write(chunk)
