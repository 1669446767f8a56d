"""A small model server for tests of gateways: it answers with its name, and remembers what it was sent."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from cumulant.core.traffic import SHADOW_HEADER, Certificates


class Received(msgspec.Struct, frozen=True):
    """One request that reached an arm. Header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def shadow(self) -> bool:
        return self.headers.get(SHADOW_HEADER) == "1"


class ArmServer:
    """Serves on a loopback port until `stop`. `delay` (seconds) and `status` set how it answers.

    `stop` cuts every connection, as the end of a process does; `start` takes the same port again. With `tls` it shows
    that certificate.
    """

    def __init__(self, name: str, *, tls: Certificates | None = None) -> None:
        self.name = name
        self.tls = tls
        self.delay = 0.0
        self.status = 200
        self.received: list[Received] = []
        self._server: _Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"

    def posts(self, *, shadow: bool = False) -> list[Received]:
        """Requests for predictions, mirrored or not."""
        return [request for request in list(self.received) if request.shadow == shadow]

    def start(self) -> ArmServer:
        self._server = _Server(self, self._port)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.cut()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, arm: ArmServer, port: int) -> None:
        self.arm = arm
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)
        if arm.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(arm.tls.certificate, arm.tls.private_key)
            # The greeting is the handler's, in a thread of its own.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A gateway may go away at any moment."""

    def cut(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._answer(200, {"ready": True})

    def do_POST(self) -> None:
        arm = self.server.arm
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body()
        arm.received.append(Received(self.path, headers, body))
        if arm.delay:
            time.sleep(arm.delay)
        self._answer(arm.status, {"served_by": arm.name})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        head = (
            f"HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"cumulant-arm: made up by {self.server.arm.name}\r\ncumulant-request-id: made up\r\n"
            "x-request-id: made up\r\n\r\n"
        )
        self.wfile.write(head.encode() + body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Nothing: tests print too much already."""
