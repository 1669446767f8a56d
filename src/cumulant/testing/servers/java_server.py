"""A server on a virtual machine of Java, while a test or benchmark needs it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cumulant.core.system.child_processes import start

#: seconds until a server answers: its virtual machine compiles, on a busy machine
_READY_SECONDS = 180.0


@contextmanager
def java_server(
    command: Sequence[str], log: Path, answers: Callable[[], bool], *, env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A server that answers while the block runs; it writes to the file `log`.

    Raises:
        RuntimeError: it ended, or did not answer in time.
    """
    process = start_java(command, log, env=env)
    try:
        await_java(process, log, answers)
        yield
    finally:
        process.kill()
        process.wait()


def start_java(command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """The process of a server, which writes to the file `log`, and ends with this one."""
    with log.open("ab") as file:
        return start(command, death_signal=signal.SIGKILL, stdout=file.fileno(), stderr=file, env=env)


def await_java(process: subprocess.Popen[bytes], log: Path, answers: Callable[[], bool]) -> None:
    """Wait until the server answers.

    Raises:
        RuntimeError: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + _READY_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start: see {log}")
        time.sleep(0.2)
