"""Queries of the events of a journal in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cumulant.ports.journal_store import divide_kinds

if TYPE_CHECKING:
    from psycopg import Connection

_EVENTS = (
    "SELECT seq, kind, run, envelope FROM events WHERE scope = %(scope)s AND seq > %(after)s"
    "{kinds}{run}{before} ORDER BY seq LIMIT %(limit)s"
)
_OF_KINDS = " AND kind = ANY(%(kinds)s)"
_OF_GROUPS = " AND (kind = ANY(%(kinds)s) OR kind ^@ ANY(%(prefixes)s))"


class EventChoice(NamedTuple):
    """Events of these kinds, of a run, and below the number `before`, as `Journal.events` has them."""

    kinds: Sequence[str] = ()
    run: str | None = None
    before: int | None = None


def read_events(
    connection: Connection, scope: str, choice: EventChoice, after: int, limit: int
) -> list[tuple[Any, ...]]:
    """At most `limit` events above the number `after`, in order: (number, kind, run, envelope)."""
    exact, prefixes = divide_kinds(choice.kinds)
    query = _EVENTS.format(
        kinds=_OF_GROUPS if prefixes else _OF_KINDS if exact else "",
        run="" if choice.run is None else " AND run = %(run)s",
        before="" if choice.before is None else " AND seq < %(before)s",
    )
    values = {"scope": scope, "after": after, "limit": limit, "kinds": exact, "prefixes": prefixes}
    return connection.execute(query, {**values, "run": choice.run, "before": choice.before}).fetchall()
