"""Queue of complete requests of one connection."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from cumulant.serving.http.messages import Request
from cumulant.serving.http.site_state import SiteState


class QueuedRequest(NamedTuple):
    """Queued request; `keep`: the connection stays open after it; `head`: bytes of its target and headers."""

    request: Request
    keep: bool
    head: int


class RequestQueue(deque[QueuedRequest]):
    """Requests of one connection in their order; the site counts their heads and bodies."""

    def __init__(self, site: SiteState[Any]) -> None:
        super().__init__()
        self._site = site
        #: of their bodies
        self._bytes = 0

    def fits(self, body: bytes, head: int) -> bool:
        """Whether the site has memory for one more request."""
        site, limits = self._site, self._site.limits
        return (not body or site.body_bytes + len(body) <= limits.bodies) and site.head_bytes + head <= limits.heads

    @property
    def crowded(self) -> bool:
        """Whether the queue is so long that reading pauses."""
        limits = self._site.limits
        return len(self) > limits.waiting or self._bytes > limits.body

    @property
    def next_body(self) -> int:
        """Bytes of the body of the oldest request."""
        return len(self[0].request.body)

    def add(self, request: Request, head: int, *, keep: bool) -> None:
        size = len(request.body)
        self._bytes += size
        self._site.body_bytes += size
        self._site.head_bytes += head
        self.append(QueuedRequest(request, keep, head))

    def take(self) -> tuple[Request, bool]:
        """Remove and return the oldest request."""
        request, keep, head = self.popleft()
        size = len(request.body)
        self._bytes -= size
        self._site.body_bytes -= size
        self._site.head_bytes -= head
        return request, keep

    def clear(self) -> None:
        while self:
            self.take()
