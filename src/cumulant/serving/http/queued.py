"""Whole requests of one connection that wait for those before them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cumulant.serving.http.messages import Request

if TYPE_CHECKING:
    from cumulant.serving.http.site import Site


class Queued:
    """Requests and whether their connection is kept after them, in their order.

    The site counts their bodies too: a client decides how long they wait, as it need not read what is answered before.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._requests: deque[tuple[Request, bool]] = deque()

    def __len__(self) -> int:
        return len(self._requests)

    def fits(self, body: bytes) -> bool:
        """Whether the site can hold one more body."""
        return not body or self._site.held + len(body) <= self._site.limits.bodies

    @property
    def crowded(self) -> bool:
        """Whether so much waits that no more is read."""
        limits = self._site.limits
        return len(self) > limits.waiting or sum(len(one.body) for one, _ in self._requests) > limits.body

    @property
    def next_body(self) -> int:
        """Bytes of the body of the one that waited longest."""
        return len(self._requests[0][0].body)

    def add(self, request: Request, *, keep: bool) -> None:
        self._site.held += len(request.body)
        self._requests.append((request, keep))

    def pop(self) -> tuple[Request, bool]:
        """The one that waited longest."""
        request, keep = self._requests.popleft()
        self._site.held -= len(request.body)
        return request, keep

    def clear(self) -> None:
        while self._requests:
            self.pop()
