"""Events of a project as they happen, as server-sent events.

One thread a project waits for the journal, however many listen. A listener that comes again names the last event that
it has had (`Last-Event-ID`), and gets those after it: none is lost, and none comes twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from cumulant.core.errors import CumulantError, ForbiddenError, OverloadedError, RequestError
from cumulant.flows.ledger.actions import check, permits
from cumulant.ports.journal_store import fits_kinds
from cumulant.server.handler import as_seen, project_of, read_query

if TYPE_CHECKING:
    from starlette.requests import Request

    from cumulant.core.events import Event
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project

#: seconds between two comments that keep an idle connection open; of one wait for the journal, and after its failure
HEARTBEAT, _WAIT, _AGAIN = 15.0, 5.0, 2.0
#: events that are read at once
_READ = 200
#: streams of one principal at the same time: one caller must not take all of the server's connections
MOST_STREAMS = 100


class StreamQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: begin after this event (default: now, or `Last-Event-ID`); `kind`: only these kinds, as in lists."""

    after: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    kind: tuple[str, ...] = ()


class EventFeed:
    """Wakes listeners of one project's events."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "events")
        self._task: asyncio.Task[None] | None = None
        self._listeners = 0
        self._closed = False

    async def listen(self, after: int, kinds: tuple[str, ...]) -> AsyncIterator[list[Event]]:
        """Lists of events after `after`, for ever; an empty one where nothing happened for `HEARTBEAT` seconds."""
        self._listeners += 1
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
        try:
            seq = after
            while not self._closed:
                changed = self._changed  # taken before reading: what comes meanwhile sets it
                events = await run_in_threadpool(_read_events, self._journal, seq)
                if events:
                    seq = events[-1].seq
                    yield [event for event in events if fits_kinds(event.kind, kinds)]
                    continue
                try:
                    await asyncio.wait_for(changed.wait(), HEARTBEAT)
                except TimeoutError:
                    yield []
        finally:
            self._listeners -= 1
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        head = 0
        while True:
            try:
                if await loop.run_in_executor(self._thread, self._journal.wait, head, _WAIT):
                    head = (await run_in_threadpool(self._journal.head)).seq
                    self._wake()
            except CumulantError:  # the journal is away: listeners stay, and see what they missed
                await asyncio.sleep(_AGAIN)
                self._wake()

    def close(self) -> None:
        """End all listening."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class EventFeeds:
    """The feeds of a server's projects, each made when somebody listens first, and who listens how often."""

    def __init__(self) -> None:
        self._feeds: dict[str, EventFeed] = {}
        self._streams = Counter[str]()

    def check_streams(self, principal: str) -> None:
        """Raises OverloadedError: the principal has as many streams as it may have at once."""
        if self._streams[principal] >= MOST_STREAMS:
            raise OverloadedError(
                f"{principal} listens to {MOST_STREAMS} streams of events already",
                hint="close one of them",
                retry_after=30,
            )

    @contextmanager
    def stream(self, principal: str) -> Iterator[None]:
        """Counts a stream while it lasts. Raises OverloadedError, as `check_streams`: another one came before it."""
        self.check_streams(principal)
        self._streams[principal] += 1
        try:
            yield
        finally:
            self._streams[principal] -= 1
            if not self._streams[principal]:
                del self._streams[principal]

    def of(self, project: Project) -> EventFeed:
        if project.name not in self._feeds:
            self._feeds[project.name] = EventFeed(project.journal())
        return self._feeds[project.name]

    def close(self) -> None:
        """End all streams."""
        for feed in self._feeds.values():
            feed.close()


async def stream_events(request: Request) -> Response:
    """Answer with the stream of a project's events.

    Raises:
        RequestError: `Last-Event-ID` is no number of an event.
        ForbiddenError: the principal may not see events.
        OverloadedError: it has too many streams.
    """
    project = project_of(request)
    query = read_query(request, StreamQuery)
    assert isinstance(query, StreamQuery)
    try:
        await run_in_threadpool(check, project, request.state.principal, "events.show")
    except ForbiddenError as error:
        raise await run_in_threadpool(as_seen, request, project, "events.show", error) from error
    after = await run_in_threadpool(_first, project, query, request.headers.get("last-event-id"))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    if request.method == "HEAD":
        return Response(media_type="text/event-stream", headers=headers)
    feeds, principal = request.app.state.feeds, request.state.principal.id
    feeds.check_streams(principal)
    events = counted(feeds, principal, _encoded(feeds.of(project), after, query.kind, StreamRight(request, project)))
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def counted(feeds: EventFeeds, principal: str, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The messages of a stream, which counts as one of the principal's from the first to the last of them."""
    try:
        with feeds.stream(principal):
            async for message in messages:
                yield message
    except OverloadedError:
        return


class StreamRight:
    """Whether the caller of a stream may still see events: its token or session may have ended, or its role."""

    def __init__(self, request: Request, project: Project) -> None:
        self._request, self._project = request, project

    async def holds(self) -> bool:
        is_valid = getattr(self._request.state, "is_valid", None)
        if is_valid is not None and not await is_valid():
            return False
        return await run_in_threadpool(permits, self._project, self._request.state.principal, "events.show")


def _first(project: Project, query: StreamQuery, last: str | None) -> int:
    head = project.journal().head().seq
    if last is not None and last.strip():
        if not last.strip().isascii() or not last.strip().isdecimal() or len(last) > 18:
            raise RequestError("Last-Event-ID is no number of an event", subject="Last-Event-ID")
        after = int(last)
    else:
        after = head if query.after is None else query.after
    return min(after, head)  # one of a chain that was restored to before it would be waited for in vain


async def _encoded(feed: EventFeed, after: int, kinds: tuple[str, ...], right: StreamRight) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    async for events in feed.listen(after, kinds):
        if not await right.holds():
            return
        if not events:
            yield b": idle\n\n"
        for event in events:
            data = msgspec.json.encode(event)
            yield b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.kind.encode(), data)


def _read_events(journal: Journal, after: int) -> list[Event]:
    return list(journal.events(after=after, limit=_READ))
