"""The process of the data plane, which gets the project's secret through a pipe."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from cumulant.core.errors import UsageError
from cumulant.core.system.child_processes import start

_LONGEST_SALT = 4096


def spawn(
    line: Sequence[str],
    *,
    stderr: int | IO[bytes],
    salt: bytes | None = None,
    own_session: bool = False,
    death_signal: signal.Signals | None = None,
) -> subprocess.Popen[bytes]:
    """Start the data plane as `start` does. It reads `salt` from a pipe: no argument, variable or file holds it.

    Raises:
        UsageError: the salt is longer than a pipe is sure to take at once.
    """
    with _piped(salt) as pipes:
        return start(
            [*line, *(word for pipe in pipes for word in ("--salt-file", f"/dev/fd/{pipe}"))],
            stderr=stderr,
            env=None if salt is None else _without(salt),
            own_session=own_session,
            pass_fds=pipes,
            death_signal=death_signal,
        )


@contextmanager
def _piped(salt: bytes | None) -> Iterator[list[int]]:
    """The descriptor at which `salt` can be read once, where there is one."""
    if salt is None:
        yield []
        return
    if len(salt) > _LONGEST_SALT:
        raise UsageError(f"the salt has more than {_LONGEST_SALT} bytes", hint="32 random bytes are enough")
    reader, writer = os.pipe()
    try:
        with open(writer, "wb") as stream:  # noqa: PTH123 - no path
            stream.write(salt)
        yield [reader]
    finally:
        os.close(reader)


def _without(secret: bytes) -> dict[str, str]:
    """The environment but for a variable in which a driver may have found the secret: the server has no need of it."""
    return {name: value for name, value in os.environ.items() if value.encode(errors="replace") != secret}
