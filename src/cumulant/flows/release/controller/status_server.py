"""The status of releases over HTTP on loopback: `GET /v1/releases/{id}` and `/v1/releases/{id}/verdict`.

The verdict fits Argo Rollouts' web metric: `{"status": "running", "value": 0, ...}`, where `value` is 1 once the
candidate was promoted. `GET /metrics` tells Prometheus of alerts and of who is told of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from cumulant.core.errors import CumulantError, RefusedError
from cumulant.core.network.hosts import Hosts
from cumulant.core.network.path_template import fits_template
from cumulant.core.structs import prepare_decoding
from cumulant.core.system.atomic_files import replace_file
from cumulant.flows.alerting.views import exposition
from cumulant.flows.release import store
from cumulant.flows.release.controller.rollback_outbox import recorded_rollbacks
from cumulant.flows.release.views import reason_text, sentence, view
from cumulant.release.state import Release

if TYPE_CHECKING:
    from cumulant.flows.stack.desired_state import Rollback
    from cumulant.ports.journal import Journal

#: in the supervisor's folder, where the controller is reached
FILE = "controller.json"
_SECONDS = 10.0
_JSON = "application/json"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class StatusRoute(NamedTuple):
    """A path; `{release}` stands for any text. `action`: what a caller does there; None: a probe."""

    template: str
    action: str | None

    def matches(self, parts: Sequence[str]) -> bool:
        return fits_template(self.template.strip("/").split("/"), parts)


ROUTES = (
    StatusRoute("/healthz", None),
    StatusRoute("/v2/health/live", None),
    StatusRoute("/metrics", "alerts.show"),
    StatusRoute("/v1/releases", "release.show"),
    StatusRoute("/v1/releases/{release}", "release.show"),
    StatusRoute("/v1/releases/{release}/verdict", "release.show"),
)


def respond(journal: Journal, target: str, allow: Callable[[str], None] = lambda _: None) -> tuple[int, object]:
    """Status and document for a path, or its text. `allow` raises RefusedError where a caller may not do an action."""
    parts = [unquote(part) for part in urlsplit(target).path.split("/") if part]
    route = next((route for route in ROUTES if route.matches(parts)), None)
    if route is None:
        return 404, {"error": "there is nothing at this path; see /v1/releases"}
    if route.action is None:
        return 200, {"ready": True}
    allow(route.action)
    if route.template == "/metrics":
        return 200, exposition(journal)
    releases = sorted(
        (past for model in store.list_models(journal) for past in store.list_releases(journal, model)),
        key=lambda past: (past.begun, past.id),
        reverse=True,
    )
    if len(parts) == 2:
        return 200, [view(past, recorded_rollbacks(journal, past.model)) for past in releases]
    release = next((past for past in releases if parts[2] in (past.id, "latest")), None)
    if release is None:
        return 404, {"error": f'no release has the id "{parts[2]}"; "latest" is the newest'}
    returns = recorded_rollbacks(journal, release.model)
    return 200, verdict(release, returns) if len(parts) == 4 else view(release, returns)


def verdict(release: Release, returns: Sequence[Rollback] = ()) -> dict[str, object]:
    """What an automation asks: the status, and 1 once the candidate was promoted; no data is never success."""
    return {
        "release": release.id,
        "model": release.model,
        "candidate": release.candidate.version,
        "champion": release.champion.version,
        "status": release.status,
        "over": release.over,
        "value": int(release.status == "promoted"),
        "step": release.step.label,
        "weight": release.weight,
        "reason": reason_text(release, returns),
        "sentence": sentence(release, returns),
    }


def _encoded(document: object) -> tuple[str, bytes]:
    """Content type and body."""
    if isinstance(document, str):
        return _PROMETHEUS, document.encode()
    return _JSON, msgspec.json.encode(document)


def _header(value: str | None) -> bytes | None:
    return None if value is None else value.encode("latin-1", "replace")


@contextmanager
def serve_status(
    stack: Path, journal: Callable[[], Journal], allow: Callable[[str], None] = lambda _: None
) -> Iterator[str]:
    """Answer on a free port of loopback while the block lasts; its URL is in a file of the supervisor's folder.

    `allow` is as in `respond`: callers have no names: they may do what any user of this machine may.

    Raises:
        OSError: the folder cannot be written.
    """
    hosts = Hosts(local=True)

    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS

        def do_GET(self) -> None:
            kind = _JSON
            fault = hosts.fault(*(_header(self.headers.get(name)) for name in ("host", "origin")))
            try:
                if fault is not None:
                    status, body = 403, msgspec.json.encode({"error": fault})
                else:
                    status, document = respond(journal(), self.path, allow)
                    kind, body = _encoded(document)
            except RefusedError as error:
                status, body = 403, msgspec.json.encode({"error": error.message})
            except CumulantError as error:
                status, body = 503, msgspec.json.encode({"error": error.message})
            self.send_response(status)
            self.send_header("content-type", kind)
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
        replace_file(path, msgspec.json.encode({"url": url, "pid": os.getpid()}), durable=False)
        prepare_decoding(Release)  # the thread reads it, and so does the controller
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        try:
            yield url
        finally:
            server.shutdown()
            path.unlink(missing_ok=True)
