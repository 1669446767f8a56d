"""Events: pages, newest first, and the verification of their chain."""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated, Literal

import msgspec

from cumulant.core.events import Event
from cumulant.flows.governance.checkpoints import WrittenCheckpoint, write_checkpoint
from cumulant.flows.ledger.event_pages import EventFilter, event_page
from cumulant.flows.ledger.refusals import ingest_if_possible
from cumulant.flows.ledger.run_events import Verified, first_break, verify
from cumulant.ports.journal import Journal
from cumulant.server.operation import ApiCall, LineStream, ListPage, PageQuery, get, post
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


class ExportQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`format`: `json` has events with their hashes, so that others can verify them; `ocsf` OCSF 1.4 in CloudEvents
    1.0. `kind`: only these kinds, as in lists; `run`: only of that run; `after`: only events after this one.
    """

    format: Literal["json", "ocsf"] = "json"
    kind: tuple[str, ...] = ()
    run: str = ""
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0


@get("/events/export", action="events.export")
def export(call: ApiCall, query: ExportQuery) -> LineStream:
    """Export events, oldest first, a JSON line each; `cumulant-note`, a header, says where their chain breaks."""
    call.check()
    journal = call.project.journal()
    broken = first_break(journal, after=query.after)
    if broken is not None:
        call.note(f"the chain of events does not hold: event {broken.seq} {broken.problem}")
    return LineStream(_lines(journal, query))


def _lines(journal: Journal, query: ExportQuery) -> Generator[bytes, None, None]:
    events = journal.events(kinds=query.kind, run=query.run or None, after=query.after)
    if query.format == "json":
        yield from map(msgspec.json.encode, events)
        return
    from cumulant.flows.governance.ocsf import encode
    from cumulant.flows.governance.row_changes import events_with_changes

    yield from encode(events_with_changes(journal, events))


class CheckpointBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


@post("/events/checkpoint", action="events.checkpoint", long=True)
def checkpoint(call: ApiCall, body: CheckpointBody) -> WrittenCheckpoint:
    """Verify all events, sign them up to the newest one, and write the checkpoint to the environment's `audit`."""
    del body
    return write_checkpoint(call.project, principal=call.principal, whole=True)


OPERATIONS = (list_, verify_, export, checkpoint)
