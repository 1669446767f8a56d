"""Sockets of the log process: the one that listens, and the connection of a worker."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import PortInUseError, UsageError
from cumulant.serving.prediction_log.entry import COUNTER, HEAD, MAX_FRAME, Hello

if TYPE_CHECKING:
    from cumulant.serving.prediction_log.confirmations import Confirmations
    from cumulant.serving.prediction_log.row_streams import PatternStream


_RECEIVE = 256 * 1024


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


class GarbageError(Exception):
    """Bytes that no worker sends."""


class WorkerConnection:
    """Frames received on a socket.

    Attributes:
        hello: the worker's first frame, once it came.
        closed: it said goodbye.
        streams: the patterns that it sent, by number.
        confirmations: of a worker whose requests wait for the disk.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.hello: Hello | None = None
        self.closed = False
        self.streams: dict[int, PatternStream] = {}
        self.confirmations: Confirmations | None = None
        self._channel = channel
        self._buffer = bytearray()
        self._counter: int | None = None

    @property
    def incomplete_bytes(self) -> int:
        """Bytes of a frame that is not complete."""
        return len(self._buffer)

    def fileno(self) -> int:
        return self._channel.fileno()

    def receive(self) -> bool:
        """Read available bytes; False at the end of the connection."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._channel, _RECEIVE, 1)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        for descriptor in descriptors:
            if self._counter is None:
                self._counter = descriptor
            else:
                os.close(descriptor)
        self._buffer += data
        return bool(data)

    def send(self, data: bytes) -> bool:
        """Send a few bytes; False where the worker does not accept them."""
        try:
            return self._channel.send(data) == len(data)
        except OSError:
            return False

    def frames(self) -> Iterator[tuple[int, memoryview]]:
        """Kind and payload of each complete frame; a payload is valid until the next one is asked for.

        Raises:
            GarbageError: a length that no frame has.
        """
        place = 0
        try:
            with memoryview(self._buffer) as view:
                while place + HEAD.size <= len(view):
                    size, kind = HEAD.unpack_from(view, place)
                    if not 1 <= size <= MAX_FRAME:
                        raise GarbageError
                    end = place + 4 + size
                    if end > len(view):
                        break
                    with view[place + HEAD.size : end] as payload:
                        yield kind, payload
                    place = end
        finally:
            del self._buffer[:place]

    def last(self) -> int | None:
        """Last sequence number of the worker, read from its shared memory."""
        if self._counter is None:
            return None
        with contextlib.suppress(OSError):
            data = os.pread(self._counter, COUNTER.size, 0)
            if len(data) == COUNTER.size:
                return int(COUNTER.unpack(data)[0])
        return None

    def close(self) -> None:
        self._channel.close()
        if self._counter is not None:
            os.close(self._counter)
            self._counter = None
