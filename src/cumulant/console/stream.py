"""One stream of server-sent events a tab: that something happened in a project, and of which kinds.

It carries kinds alone, without names of events, which a browser could not listen to all at once: what happened is read
by the pages, which check what the principal may see.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from cumulant.core.errors import CumulantError
from cumulant.flows.ledger.actions import check
from cumulant.server.streaming.event_stream import StreamRight, counted

if TYPE_CHECKING:
    from cumulant.console.page_request import PageRequest
    from cumulant.core.events import Event
    from cumulant.server.streaming.event_stream import EventFeed, EventFeeds


class Changes(msgspec.Struct, frozen=True):
    """Events up to `seq` are new, of these kinds."""

    seq: int
    kinds: tuple[str, ...]


async def event_stream(page: PageRequest) -> Response:
    """The stream from the event that the browser names (`Last-Event-ID`, or `after`), or from now.

    Raises:
        ForbiddenError: the principal may not see events.
        NotFoundError: no such project.
        OverloadedError: the principal has too many streams.
    """
    project = page.project
    await run_in_threadpool(check, project, page.principal, "events.show")
    head = (await run_in_threadpool(project.journal().head)).seq
    after = _after(page.request.headers.get("last-event-id", "") or page.query("after"), head)
    feeds: EventFeeds = page.request.app.state.feeds
    feeds.check_streams(page.principal.id)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"}
    right = StreamRight(page.request, project)
    messages = counted(feeds, page.principal.id, _messages(feeds.of(project), after, right))
    return StreamingResponse(messages, media_type="text/event-stream", headers=headers)


def _after(given: str, head: int) -> int:
    """The event after which the stream begins; a browser may name one of a chain that was restored to before it."""
    return min(int(given), head) if given.isascii() and given.isdecimal() and len(given) < 19 else head


async def _messages(feed: EventFeed, after: int, right: StreamRight) -> AsyncIterator[bytes]:
    yield b"id: %d\nretry: 2000\n\n" % after  # from where a browser goes on that is cut off before an event
    try:
        async for events in feed.listen(after, ()):
            if not await right.holds():
                return
            yield message(events)
    except CumulantError:  # the journal is away: the browser asks again, and is told so
        return


def message(events: Sequence[Event]) -> bytes:
    """A message on new events; where there are none, one by which the page knows that the connection is alive."""
    if not events:
        return b"event: idle\ndata: {}\n\n"
    changes = Changes(events[-1].seq, tuple(sorted({event.kind for event in events})))
    return b"id: %d\ndata: %s\n\n" % (changes.seq, msgspec.json.encode(changes))
