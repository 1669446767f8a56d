"""The server of the review queue: it claims the address, announces it, answers and drains."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.network.hosts import is_loopback
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.refusals import record_refusals
from cumulant.flows.review.http.app import ReviewApplication
from cumulant.flows.review.http.callers import CallerTokens, TokenHolder
from cumulant.flows.review.views import policy_of
from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.site import HttpSite
from cumulant.serving.sockets import bind, split_address, url_of
from cumulant.serving.workers.event_loops import end_on_signals, new_loop, restore_signals
from cumulant.serving.workers.listeners import Listeners

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: an answer is a label and a note
_BODY = 64 * 1024
_LIMITS = HttpLimits(body=_BODY, bodies=64 * _BODY)
_DRAIN_SECONDS = 10.0


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """Where the queue is answered; `guarded`: callers need a token."""

    url: str
    pid: int
    model: str
    guarded: bool


@verb("review.serve")
def serve(
    project: Project,
    *,
    principal: Principal,
    http: str,
    callers: Sequence[TokenHolder] = (),
    insecure: bool = False,
    announce: Callable[[Opened], None] = lambda _: None,
) -> None:
    """Serve the project's queue until SIGTERM or SIGINT; running requests are finished first.

    Off loopback callers need tokens, or `insecure` trusts the network. An unnamed caller, where possible, acts as
    `principal`.

    Raises:
        UsageError: the project has no queue, or the address cannot be used.
        PortInUseError: the address is taken.
        StorageError: the salt of personal values cannot be made.
    """
    policy_of(project)
    project.salt_source.ensure()
    known = CallerTokens(callers, principal)
    host, port = split_address(http)
    with restore_signals(), bind(host, port, insecure=insecure or known.guarded) as listener:
        opened = Opened(url=url_of(listener), pid=os.getpid(), model=project.name, guarded=known.guarded)

        async def answer() -> None:
            ended, doors = asyncio.Event(), Listeners([listener])
            site = HttpSite(app, _LIMITS, app.admitted if known.guarded else None)
            with end_on_signals(ended):
                await doors.open(site)
                site.start()
                announce(opened)
                await ended.wait()
                app.draining = True
                doors.close()
                await site.drain(_DRAIN_SECONDS)

        app = ReviewApplication(project, known, local=not known.guarded and is_loopback(host))
        with record_refusals(project, lambda text: sys.stderr.write(f"{text}\n")):
            try:
                with asyncio.Runner(loop_factory=new_loop) as runner:
                    runner.run(answer())
            finally:
                app.close()
