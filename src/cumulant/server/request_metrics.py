"""Requests that the API answers, for Prometheus: counts and durations by route, which callers do not choose."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING

from cumulant.core.prometheus import Family, Series
from cumulant.serving.histogram import SECONDS, Histogram

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: `project`: which the path names; empty: none that this server has
_LABELS = ("project", "method", "route")
#: methods that have series of their own; others are what callers write
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER = "other"
#: in a scope, the list of the route's path template
_ROUTE = "cumulant.route"
_FAILED = 500
FAMILIES = {
    "cumulant_api_requests_total": Family("counter", "Requests answered, by path template.", (*_LABELS, "status")),
    "cumulant_api_request_seconds": Family(
        "histogram", "Time until the answer was whole; of a stream of events until its end.", _LABELS, SECONDS
    ),
    "cumulant_api_open_requests": Family("gauge", "Requests under way, with open streams of events.", ("project",)),
}


def note_route(app: ASGIApp) -> ASGIApp:
    """`app`, a router, which says what route it took to a counter outside of it; what is between may copy the scope."""

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        finally:
            if _ROUTE in scope and "route" in scope:
                scope[_ROUTE][:] = [getattr(scope["route"], "path", _OTHER)]

    return noted


class ApiRequestCounter:
    """What one process has answered, for these projects. It is written on the event loop; `series` may be called from
    any thread.
    """

    def __init__(self, projects: Container[str]) -> None:
        self._projects = projects
        self._requests: Counter[tuple[str, str, str, str]] = Counter()
        self._seconds: dict[tuple[str, str, str], Histogram] = {}
        self._open: Counter[str] = Counter()

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """`app`, whose HTTP requests are counted; of an error that `app` does not answer, as status 500."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            status, began = _FAILED, time.monotonic()
            scope[_ROUTE] = route = [_OTHER]

            async def send_counted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            named = self._named(scope["path"])
            self._open[named] += 1
            try:
                await app(scope, receive, send_counted)
            finally:
                self._open[named] -= 1
                self._add(named, scope["method"], route[0], status, time.monotonic() - began)

        return counted

    def _named(self, path: str) -> str:
        """The project whose pages or operations a path is below; empty: none of this server."""
        parts = path.removeprefix("/v1").split("/", 3)
        return parts[2] if len(parts) > 2 and parts[1] == "projects" and parts[2] in self._projects else ""

    def _add(self, project: str, method: str, route: str, status: int, seconds: float) -> None:
        method = method if method in _METHODS else _OTHER
        self._requests[project, method, route, str(status)] += 1
        if (project, method, route) not in self._seconds:
            self._seconds[project, method, route] = Histogram(SECONDS)
        self._seconds[project, method, route].observe(seconds)

    def series(self, projects: Container[str]) -> Iterator[Series]:
        """Of the requests for these projects; `""` stands for those that are for none."""
        for project, count in sorted(dict(self._open).items()):
            if project in projects:
                yield Series("cumulant_api_open_requests", (project,), count)
        for labels, count in sorted(dict(self._requests).items()):
            if labels[0] in projects:
                yield Series("cumulant_api_requests_total", labels, count)
        for names, histogram in sorted(dict(self._seconds).items()):
            if names[0] in projects:
                yield Series("cumulant_api_request_seconds", names, histogram.total, list(histogram.counts))
