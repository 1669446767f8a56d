"""A reverse proxy on the loopback that makes an HTTP service slow and unreliable, for tests of what uses it.

Requests are passed on unchanged, `Host` included, so that signatures of S3 stay valid.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self, cast
from urllib.parse import urlsplit

#: headers that belong to one connection
_OWN = {"connection", "keep-alive", "transfer-encoding", "content-length"}
_CHUNK = 1 << 16


class FaultProxy:
    """Serves `url` while the block is open; passes requests on to `target`, such as `http://127.0.0.1:8333`.

    Attributes, which may be changed while it serves:
        delay: seconds that each call waits before it is passed on.
        refused: the share of calls that get 503 and are not passed on.
        lost: the share of calls that are passed on and whose answer is not returned: the connection is closed.
        every: of so many calls the last one gets 503; 0 for none.
        faulty_path: restricts the faults to paths that contain this text.
        calls: how many calls came.
        faults: how many of them were refused or lost.
    """

    def __init__(
        self, target: str, *, delay: float = 0.0, refused: float = 0.0, lost: float = 0.0, every: int = 0, seed: int = 1
    ) -> None:
        self.delay, self.refused, self.lost, self.every = delay, refused, lost, every
        self.faulty_path = ""
        self.calls = self.faults = 0
        self._target = urlsplit(target)
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fault(self, path: str) -> str:
        """What becomes of the next call: `refused`, `lost` or nothing."""
        with self._lock:
            self.calls += 1
            if self.faulty_path not in path:
                return ""
            drawn = self._random.random()
            refused = drawn < self.refused or bool(self.every and self.calls % self.every == 0)
            kind = "refused" if refused else "lost" if drawn < self.refused + self.lost else ""
            self.faults += bool(kind)
            return kind

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._target.hostname or "", self._target.port or 80, timeout=60)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    #: an answer is sent in several writes
    wbufsize = _CHUNK

    @property
    def _proxy(self) -> FaultProxy:
        return cast("_Server", self.server).proxy

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(_CHUNK)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self._body()
        if self._proxy.delay:
            time.sleep(self._proxy.delay)
        fault = self._proxy.fault(self.path)
        if fault == "refused":
            self._answer(503, [("Content-Type", "text/plain")], b"the proxy refuses this call")
            return
        status, headers, content = self._pass_on(body)
        if fault == "lost":
            self.close_connection = True
            return
        self._answer(status, headers, content)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while length := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = self._proxy.connect()
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _OWN | {"expect"}:
                    connection.putheader(name, value)
            if body or self.command in ("PUT", "POST"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            return response.status, self._own_length(response), response.read()
        except OSError:
            return 502, [], b"the service does not answer"
        finally:
            connection.close()

    def _own_length(self, response: http.client.HTTPResponse) -> list[tuple[str, str]]:
        """The answer's headers; the length too where the answer to `HEAD` has no content to count."""
        dropped = _OWN - {"content-length"} if self.command == "HEAD" else _OWN
        return [(name, value) for name, value in response.getheaders() if name.lower() not in dropped]

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD" and status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass
