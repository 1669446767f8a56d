"""What the connections of one listening socket share: handler, limits, turns, and the memory that they take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.messages import Headers, Request, Response
from cumulant.serving.http.overload import Turns
from cumulant.serving.http.refusals import Refusals

Handler = Callable[[Request], Response | Awaitable[Response]]
#: by path and headers, whether a request's body is to be read at all; the handler refuses it otherwise
Admitted = Callable[[bytes, Headers], bool]
C = TypeVar("C")


class SiteState(Generic[C]):
    """Shared by the connections `C` of a site; `urgent` paths skip the queue."""

    def __init__(
        self,
        handle: Handler,
        limits: HttpLimits,
        admitted: Admitted | None = None,
        refusals: Refusals | None = None,
        *,
        urgent: Callable[[bytes], object] = lambda _: False,
        turns: Turns | None = None,
    ) -> None:
        self.handle = handle
        self.admitted = admitted
        self.limits = limits
        self.refusals = refusals or Refusals()
        self.urgent = urgent
        self.turns = Turns(limits.turn, limits.queue) if turns is None else turns
        self.connections: set[C] = set()
        #: bytes of bodies that are not whole yet, or wait behind others
        self.body_bytes = 0
        #: bytes that the heads of requests take which wait
        self.head_bytes = 0
        self.draining = False
        #: set when the last connection is closed while the site drains
        self.empty = asyncio.Event()

    def remove(self, connection: C) -> None:
        """Remove a closed connection."""
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self.empty.set()
