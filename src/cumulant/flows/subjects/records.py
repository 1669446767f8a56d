"""Rows and events of the journal that name a subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant.flows.ledger.ledger_records import API_REQUEST
from cumulant.flows.subjects.places import Receipt, Subject, SubjectPlace, erased_receipt, kept_receipt
from cumulant.review.queue import CLOSED, OPEN

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context

CASES, EVENTS, RESPONSES = "review cases", "events", "responses of the API"


def find_cases(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Review cases whose reference names the subject as their key."""
    return [
        SubjectPlace(store=CASES, where=f"{kind}/{row.key}", rows=1)
        for kind in (OPEN, CLOSED)
        for row in context.project.journal().rows(kind)
        if subject.is_named_in(str(row.value.get("ref") or ""))
    ]


def erase_cases(context: Context, subject: Subject) -> Receipt:
    """Delete these cases with their answers and notes."""
    places = find_cases(context, subject)
    with context.transaction() as transaction:
        for place in places:
            kind, _, key = place.where.partition("/")
            transaction.delete(kind, key)
    return Receipt(
        store=CASES,
        status="erased" if places else "nothing",
        rows=len(places),
        rewritten=tuple(place.where for place in places),
        reason="exported files and labels that came of them stay" if places else "",
    )


def find_events(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Events whose data name the subject by its value. Those of erasures name its hash."""
    named = msgspec.json.encode(subject.value).decode()
    return [
        SubjectPlace(store=EVENTS, where=f"event {event.seq}", rows=1)
        for event in context.project.journal().events()
        if named in msgspec.json.encode(event.data).decode()
    ]


def keep_events(context: Context, subject: Subject) -> Receipt:
    return kept_receipt(EVENTS, find_events(context, subject), "events are chained by hashes and cannot be changed")


def find_responses(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Responses to requests under a key, which are kept for a day, that name the subject."""
    return [
        SubjectPlace(store=RESPONSES, where=row.key, rows=1)
        for row in context.project.journal().rows(API_REQUEST)
        if subject.is_named_in(str(row.value.get("body") or ""))
    ]


def erase_responses(context: Context, subject: Subject) -> Receipt:
    """Delete these responses: the same request under the same key would be done again."""
    places = find_responses(context, subject)
    with context.transaction() as transaction:
        for place in places:
            transaction.delete(API_REQUEST, place.where)
    return erased_receipt(RESPONSES, places, [], "")
