"""Supervision of the log process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import msgspec

from cumulant.core.system.child_processes import RestartDelay, start, stop
from cumulant.core.units import show_duration
from cumulant.serving.prediction_log.log_command import log_command
from cumulant.serving.settings import Settings

#: seconds between two checks of the process, and before it is restarted: until then workers have the records in memory
_CHECK_SECONDS, _LONGEST_DELAY = 0.25, 1.0
#: a process that ends within this many seconds of its start is started again with a delay
_SHORT_LIFE = 5.0
#: of a process that no request waits for: a third of the weight of a worker that shares its core, which is still enough
#: for more records than such a worker answers
_NICE = 5
#: after which rows are in a part; each one that is uploaded is a request to a store
_VISIBLE, _UPLOADED = "1s", "5s"
#: seconds to write pending records, beside other work: records lost by a kill are not counted
_PATIENCE = 60.0


@contextmanager
def log_socket_folder(settings: Settings) -> Iterator[Settings]:
    """The settings with a place for the log's socket that only this user can reach; unchanged without a log."""
    if settings.log is None or settings.log_socket is not None:
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="cumulant-") as folder:
        yield msgspec.structs.replace(settings, log_socket=str(Path(folder) / "log"))


@asynccontextmanager
async def run_log_process(settings: Settings, salt: bytes = b"") -> AsyncIterator[None]:
    """Keep the log process running; at the end of the block it writes what is pending. `salt`: key of hashes."""
    if settings.log is None or settings.log_socket is None:
        yield
        return
    current: list[subprocess.Popen[bytes]] = [_start(settings, salt)]
    keeper = asyncio.ensure_future(_keep(settings, salt, current))
    try:
        yield
    finally:
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper
        await asyncio.to_thread(stop, current[0], _PATIENCE)


async def _keep(settings: Settings, salt: bytes, current: list[subprocess.Popen[bytes]]) -> None:
    started, delay = time.monotonic(), RestartDelay(_LONGEST_DELAY)
    while True:
        code = current[0].poll()
        if code is None:
            await asyncio.sleep(_CHECK_SECONDS)
            continue
        sys.stderr.write(f"the log process ended with code {code}; another one takes its place\n")
        if time.monotonic() - started > _SHORT_LIFE:
            delay.reset()
        await asyncio.sleep(delay.after_end())
        started = time.monotonic()
        current[0] = _start(settings, salt)


def _start(settings: Settings, salt: bytes) -> subprocess.Popen[bytes]:
    """Start the log process; the salt is passed on standard input, not in arguments or variables."""
    line = log_command(
        str(settings.log_socket),
        str(settings.log),
        upload=settings.log_upload,
        visible=_VISIBLE if settings.log_upload is None else _UPLOADED,
        keep=show_duration(timedelta(seconds=settings.log_keep)),
        key_stdin=bool(salt),
        region=settings.region,
        nice=0 if settings.log_write == "durable" else _NICE,
        parent=os.getpid(),
    )
    return start(line, content=salt or None)
