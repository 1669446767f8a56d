"""Listening socket of the log process."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cumulant.core.errors import PortInUseError, UsageError


@contextmanager
def open_listener(path: Path) -> Iterator[socket.socket]:
    """Listening socket at `path`, for this user only; a stale one of a killed process is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise UsageError(
                f"the socket of the prediction log cannot be made: {error.strerror or error}",
                subject=str(path),
                hint="name a short path in a folder that can be written",
            ) from error
        finally:
            os.umask(before)
        listener.listen(64)
        listener.setblocking(False)  # noqa: FBT003
        inode = path.stat().st_ino
        yield listener
        if path.exists() and path.stat().st_ino == inode:
            path.unlink()
    finally:
        listener.close()


def _remove_stale(path: Path) -> None:
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise UsageError("there is something else at the socket's path", subject=str(path), hint="name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            pass
    raise PortInUseError(
        "another log process serves this socket", subject=str(path), hint="end it, or name another socket"
    )
