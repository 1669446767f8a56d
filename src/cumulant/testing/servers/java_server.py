"""A server on a virtual machine of Java, while a test or benchmark needs it."""

from __future__ import annotations

import signal
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
    with log.open("ab") as file:
        process = start(command, death_signal=signal.SIGKILL, stdout=file.fileno(), stderr=file, env=env)
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: see {log}")
            time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()
