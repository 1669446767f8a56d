"""Answers `/ready` for a gateway, on a socket that Envoy passes these requests to."""

from __future__ import annotations

import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

#: seconds for a request
_PATIENCE = 5.0
_POLL = 0.2


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    #: a connection that finds no room here is refused at once, and Envoy answers 503
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """No traceback where a caller was gone before its answer."""
        del request, client_address
        if not isinstance(sys.exception(), OSError):
            sys.stderr.write(f"a fault of /ready: {sys.exception()!r}\n")


@contextmanager
def serve_readiness(path: str, fault: Callable[[], str]) -> Iterator[None]:
    """Answer at the socket `path` while the block runs: 200, or 503 with the `fault` that there is."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE

        def do_HEAD(self) -> None:
            self._send_head(fault())

        def do_GET(self) -> None:
            reason = fault()
            self._send_head(reason)
            self.wfile.write(f"{reason or 'LIVE'}\n".encode())

        def _send_head(self, reason: str) -> None:
            self.send_response(HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK)
            self.send_header("content-type", "text/plain; charset=utf-8")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as the base names it
            """No line for each probe."""

        def address_string(self) -> str:
            return "local"

    with _Server(path, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(_POLL,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
