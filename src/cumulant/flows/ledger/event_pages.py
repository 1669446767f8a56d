"""Events as pages, the newest first, with filters; a page reads a bounded part of the chain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.events import Event
from cumulant.flows.ledger.actions import verb
from cumulant.ports.journal_store import fits_kinds

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project

#: most events of a page, and those that one page reads at most
MOST, SEARCHED = 1_000, 10_000
#: events that are read at once
_CHUNK = 500


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`kinds`: as `fits_kinds` has them. `text`: anywhere in the event's own texts,
    in any case.
    """

    kinds: tuple[str, ...] = ()
    actor: str = ""
    run: str = ""
    text: str = ""

    def matches(self, event: Event) -> bool:
        if not fits_kinds(event.kind, self.kinds):
            return False
        if self.run and event.run != self.run:
            return False
        if self.actor and self.actor not in (event.actor, event.actor.partition(":")[2]):
            return False
        return not self.text or self.text.casefold() in _texts(event).casefold()


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events, the newest first. `before` continues with older ones; None at the first event.

    `searched_to`: the oldest event that was read, where the search ended before the page was full.
    """

    events: tuple[Event, ...]
    before: int | None
    newest: int
    searched_to: int | None = None


@verb("events.show")
def event_page(
    project: Project, query: EventFilter, *, principal: Principal, before: int | None = None, limit: int = 50
) -> EventPage:
    """The newest `limit` events that match, of those with a smaller `seq` than `before`.

    Raises:
        UsageError: `limit` is not 1 to 1,000.
    """
    if not 1 <= limit <= MOST:
        raise UsageError(f"limit is {limit}, and has to be 1 to {MOST:,}", subject="limit")
    journal = project.journal()
    newest = journal.head().seq
    end = newest + 1 if before is None else max(1, min(before, newest + 1))
    events: list[Event] = []
    lowest = end
    for begin, chunk in _chunks(journal, query, end, limit):
        for event in chunk:
            if query.matches(event):
                events.append(event)
            if len(events) == limit:
                return EventPage(events=tuple(events), before=event.seq if event.seq > 1 else None, newest=newest)
        lowest = begin
        if end - lowest >= SEARCHED:
            break
    if lowest > 1:
        return EventPage(events=tuple(events), before=lowest, newest=newest, searched_to=lowest)
    return EventPage(events=tuple(events), before=None, newest=newest)


def _chunks(journal: Journal, query: EventFilter, end: int, first: int) -> Iterator[tuple[int, list[Event]]]:
    """Events below `end` in chunks, the newest first, each with the smallest `seq` that it covers.

    The newest chunk has `first` events, so that a page without filters reads no other; each next one is twice as long.
    """
    while end > 1:
        begin = max(1, end - min(first, _CHUNK))
        chunk = list(journal.events(after=begin - 1, before=end, kinds=query.kinds, run=query.run or None))
        yield begin, chunk[::-1]
        end, first = begin, 2 * first


def _texts(event: Event) -> str:
    return "\n".join(
        (event.kind, event.actor, event.reason or "", event.run or "", msgspec.json.encode(event.data).decode())
    )
