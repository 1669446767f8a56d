"""The metrics of the project over HTTP on loopback, for Prometheus: `GET /metrics`, and probes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from cumulant.core.errors import CumulantError, RefusedError
from cumulant.core.network.hosts import Hosts
from cumulant.core.prometheus import TEXT
from cumulant.core.system.atomic_files import replace_file

#: in the supervisor's folder, where the controller is reached
FILE = "controller.json"
_SECONDS = 10.0
_JSON = "application/json"
_METRICS, _READY = "/metrics", "/v2/health/ready"
#: paths, and what a caller does there; None: a probe
ROUTES: Mapping[str, str | None] = {"/healthz": None, "/v2/health/live": None, _READY: None, _METRICS: "alerts.show"}


class ControllerAddress(msgspec.Struct, frozen=True):
    """Where the controller's metrics are, and the number of its process."""

    url: str
    pid: int


def read_address(stack: Path) -> ControllerAddress | None:
    """What `serve_metrics` has written to the supervisor's folder; None while no controller has."""
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((stack / FILE).read_bytes(), type=ControllerAddress)
    return None


def _respond(
    target: str, allow: Callable[[str], None], metrics: Callable[[], str], ready: Callable[[], bool]
) -> tuple[int, str, bytes]:
    """Status, content type and body for a path. Raises CumulantError: as `allow` and `metrics`."""
    path = urlsplit(target).path
    if path not in ROUTES:
        return _json(404, {"error": f"there is nothing at this path; see {_METRICS}"})
    action = ROUTES[path]
    if path == _READY:
        fresh = ready()
        return _json(200 if fresh else 503, {"ready": fresh})
    if action is None:
        return _json(200, {"ready": True})
    allow(action)
    return 200, TEXT, metrics().encode()


def _json(status: int, document: object) -> tuple[int, str, bytes]:
    return status, _JSON, msgspec.json.encode(document)


def _header(value: str | None) -> bytes | None:
    return None if value is None else value.encode("latin-1", "replace")


@contextmanager
def serve_metrics(
    stack: Path,
    metrics: Callable[[], str],
    *,
    allow: Callable[[str], None] = lambda _: None,
    ready: Callable[[], bool] = lambda: True,
) -> Iterator[str]:
    """Answer on a free port of loopback while the block lasts; its URL is in a file of the supervisor's folder.

    `metrics` gives the text of `/metrics`. `allow` raises RefusedError where a caller may not do an action: callers
    have no names, and may do what any user of this machine may. `ready`: whether this process makes progress.

    Raises:
        OSError: the folder cannot be written.
    """
    hosts = Hosts(local=True)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _SECONDS

        def do_GET(self) -> None:
            fault = hosts.fault(*(_header(self.headers.get(name)) for name in ("host", "origin")))
            try:
                answer = _json(403, {"error": fault}) if fault else _respond(self.path, allow, metrics, ready)
            except RefusedError as error:
                answer = _json(403, {"error": error.message})
            except CumulantError as error:
                answer = _json(503, {"error": error.message})
            status, content_type, body = answer
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Nothing: the log is of releases."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        url = f"http://127.0.0.1:{server.server_address[1]}"
        path = stack / FILE
        stack.mkdir(parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode(ControllerAddress(url, os.getpid())), durable=False)
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        try:
            yield url
        finally:
            server.shutdown()
            address = read_address(stack)
            if address is not None and address.pid == os.getpid():  # else it is another controller's
                path.unlink(missing_ok=True)
