"""The connections of a listening socket are taken as they come, many at a time."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

#: connections that are taken before those that are open are read again
_AT_ONCE = 128
#: of this process or of the machine none is left: files, or memory for them
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: seconds until it is tried again then
_PAUSE = 1.0


class Closable(Protocol):
    """What takes connections until it is closed, and its socket with it."""

    def close(self) -> None: ...


async def take_connections(
    protocol: Callable[[], asyncio.BaseProtocol],
    listener: socket.socket,
    *,
    backlog: int,
    tls: ssl.SSLContext | None = None,
    handshake: float | None = None,
) -> Closable:
    """Take connections from a bound socket, each to be handled by one `protocol`.

    Args:
        protocol: makes what handles a connection.
        listener: not blocking; it is closed with what is returned.
        backlog: connections that may wait to be taken.
        tls: what each connection is encrypted with.
        handshake: seconds that it may take.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.BaseEventLoop):  # takes as many connections at a time as wait
        return await loop.create_server(
            protocol, sock=listener, backlog=backlog, ssl=tls, ssl_handshake_timeout=handshake
        )
    listener.listen(backlog)
    return _Accepting(loop, protocol, listener, tls, handshake)


class _Accepting:
    """For uvloop, whose servers take one connection each time that the loop has read and answered what came
    (libuv's pull request 3696). Where that takes 5 ms, the last of a thousand new connections waits for 5 s.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: Callable[[], asyncio.BaseProtocol],
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        handshake: float | None,
    ) -> None:
        self._loop, self._protocol, self._listener = loop, protocol, listener
        self._tls, self._handshake = tls, handshake
        self._tasks: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._start()

    def _start(self) -> None:
        self._loop.add_reader(self._listener, self._take)

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._wait(error)
                    return
                continue  # the client has ended it meanwhile
            connection.setblocking(False)  # noqa: FBT003 - the socket's own name for it
            opened = self._loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=self._handshake
            )
            task: asyncio.Task[object] = self._loop.create_task(opened)
            self._tasks.add(task)
            task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, OSError):  # of which the errors of TLS are a kind: the client's, or the network's
            self._loop.call_exception_handler({"message": "a connection could not be opened", "exception": error})

    def _wait(self, error: OSError) -> None:
        self._loop.call_exception_handler({"message": "no connection can be taken", "exception": error})
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(_PAUSE, self._start)

    def close(self) -> None:
        """Take no more connections."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
