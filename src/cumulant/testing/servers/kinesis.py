"""An emulator of Kinesis for tests: kinesis-mock, which has the real numbers of messages, and shards that end."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cumulant.core.system.child_processes import start
from cumulant.testing.servers.programs import free_port, required_program

_READY_SECONDS = 120.0
#: how long the emulator takes for changes that take the service minutes
_SETTLED = "10ms"
_CHANGES = ("CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS", "UPDATE_SHARD_COUNT")


@contextmanager
def kinesis_server(folder: Path) -> Iterator[str]:
    """The address of a running emulator; it is gone afterwards. Any credentials are right.

    Raises:
        FileNotFoundError: it is not installed.
    """
    program = required_program("kinesis-mock")
    plain, encrypted = free_port(), free_port()
    settings = {f"{change}_DURATION": _SETTLED for change in _CHANGES} | {
        "KINESIS_MOCK_PLAIN_PORT": str(plain),
        "KINESIS_MOCK_TLS_PORT": str(encrypted),
        "SHARD_LIMIT": "1000",
        "LOG_LEVEL": "ERROR",
    }
    with (folder / "kinesis.log").open("wb") as log:
        process = start(
            [program], death_signal=signal.SIGKILL, env=os.environ | settings, stdout=log.fileno(), stderr=log
        )
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", plain), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the emulator did not start: see {folder / 'kinesis.log'}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{plain}"
    finally:
        process.kill()
        process.wait()
