"""Events: pages, newest first, and the verification of their chain."""

from __future__ import annotations

import msgspec

from cumulant.core.events import Event
from cumulant.flows.ledger.event_pages import EventFilter, event_page
from cumulant.flows.ledger.refusals import ingest_if_possible
from cumulant.flows.ledger.run_events import Verified, verify
from cumulant.server.operation import ApiCall, ListPage, PageQuery, get
from cumulant.server.pages import Key, bad_cursor, check_limit, decode_cursor, encode_cursor


class EventQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`kind`: only these kinds, with a last `.` or `*` all that begin so; `run`: only of that run; `actor`: only by
    that principal; `text`: only with it in their own texts. A page may have fewer events than there are, or none:
    `next` continues the search.
    """

    kind: tuple[str, ...] = ()
    run: str = ""
    actor: str = ""
    text: str = ""


@get("/events", action="events.show")
def list_(call: ApiCall, query: EventQuery) -> ListPage[Event]:
    """List events, newest first."""
    cursor = decode_cursor(query.cursor)
    ingest_if_possible(call.project)
    wanted = EventFilter(kinds=query.kind, actor=query.actor, run=query.run, text=query.text)
    page = event_page(
        call.project,
        wanted,
        principal=call.principal,
        before=None if cursor is None else _seq(cursor),
        limit=check_limit(query.limit),
    )
    return ListPage(list(page.events), None if page.before is None else encode_cursor((page.before,)))


def _seq(cursor: Key) -> int:
    match cursor:
        case (int(seq),):
            return seq
        case _:
            raise bad_cursor()


class VerifyQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`head`: a hash of an event, as an earlier verification showed it, that the chain has to contain."""

    head: str = ""


@get("/events/verification", action="events.verify")
def verify_(call: ApiCall, query: VerifyQuery) -> Verified:
    """Verify the chain of events and the state rows."""
    call.check()
    return verify(call.project.journal(), known=query.head)


OPERATIONS = (list_, verify_)
