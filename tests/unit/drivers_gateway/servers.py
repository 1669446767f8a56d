"""Servers that misbehave on purpose, and callers that write bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
Behaviour = Callable[[socket.socket, bytes], bool]


def says(answer: bytes, *, ends: bool = True) -> Behaviour:
    """Answer so; end the connection then, or wait for more."""

    def behave(connection: socket.socket, request: bytes) -> bool:
        connection.sendall(answer)
        return not ends

    return behave


class Server:
    """Healthy when asked for its health; else as `behave` says, which returns whether the connection goes on."""

    def __init__(self, behave: Behaviour | None = None) -> None:
        self.behave = behave or says(OK, ends=False)
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._clogged = threading.Event()
        self._waiting: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._clogged.is_set():
                connection, _ = self._listener.accept()
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while request := read_request(connection):
                if request.startswith(b"GET /v2/health/ready"):
                    connection.sendall(OK)
                    continue
                self.requests.append(request)
                if not self.behave(connection, request):
                    return

    def clog(self) -> None:
        """Take no connection any more: whoever connects waits, as to a machine that is gone."""
        self._clogged.set()
        socket.create_connection(self._listener.getsockname()).close()  # ends the accept that waits
        self._accepting.join()  # one that comes later would take a connection, and leave its place to another
        self._listener.listen(0)
        for _ in range(8):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(self._listener.getsockname())
            self._waiting.append(waiting)

    def close(self) -> None:
        # A blocked accept holds the listener open until it is shut down.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for waiting in self._waiting:
            waiting.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def read_request(connection: socket.socket) -> bytes:
    """One request whose body has a length, or comes in chunks that end."""
    found = b""
    while b"\r\n\r\n" not in found:
        if not (part := connection.recv(65536)):
            return b""
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    chunked = b"transfer-encoding: chunked" in head.lower()
    while (chunked and not body.endswith(b"0\r\n\r\n")) or len(body) < length:
        if not (part := connection.recv(65536)):
            return b""
        body += part
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def served(behave: Behaviour | None = None) -> Iterator[Server]:
    server = Server(behave)
    try:
        yield server
    finally:
        server.close()


def talk(address: str, *parts: bytes, timeout: float = 30.0) -> bytes:
    """All that comes back until the connection ends or one answer with a length is whole."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        with contextlib.suppress(OSError):
            for part in parts:
                connection.sendall(part)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                found += part
        return found


def status(answer: bytes) -> int:
    """Of the first answer; 0: none."""
    parts = answer.split(b" ", 2)
    return int(parts[1]) if len(parts) > 1 and answer.startswith(b"HTTP/1.1 ") else 0
