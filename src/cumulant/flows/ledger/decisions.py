"""What was decided about actions, as events: each is written before the action, and without it there is no action."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from cumulant.core.errors import CumulantError
from cumulant.core.events import Actor, Fact
from cumulant.core.occurrences import Occurrences
from cumulant.flows.identities.records import BY_TOKEN
from cumulant.ports.access import Decision, Principal, Resource
from cumulant.ports.journal import Freezing

if TYPE_CHECKING:
    from cumulant.project.project import Project


#: the action of requests that are refused before theirs is known, and the principal of those without a valid token
REQUEST, ANONYMOUS = "http.request", "anonymous"


class RecordedDecision(Fact, frozen=True, kw_only=True):
    """What events of decisions have in common. The event's actor is the principal.

    `policies` decided; `via` established the identity (`ports.access.Via`), and `token` is the name of its API token,
    where it acts by one; `source` is the host or address that it acts from, where that is known, and `trace` the trace
    of the request.
    """

    kind = ""
    action: str
    resource: str
    policies: tuple[str, ...] = ()
    via: str = ""
    token: str = ""
    source: str = ""
    trace: str = ""


class AccessRefused(RecordedDecision, frozen=True, kw_only=True):
    """A principal may not do an action.

    `reason`: `policy` (`policies` decided), `token` (a server needs one) or `origin` (a page or a host name of another
    place). `count` equal refusals between `first` and `last`; `server`: of that prediction server.
    """

    kind = "access.refused"
    reason: str = "policy"
    server: str = ""
    count: int = 1
    first: datetime | None = None
    last: datetime | None = None


class AccessAllowed(RecordedDecision, frozen=True, kw_only=True):
    """A principal may do an action that changes what others see, and is about to do it."""

    kind = "access.allowed"


class PersonalDataRead(RecordedDecision, frozen=True, kw_only=True):
    """A principal may do an action that shows rows that may be personal, whether or not it changes something too."""

    kind = "access.personal_data_read"


class RefusalKey(NamedTuple):
    """What equal refusals have in common."""

    principal: str
    action: str
    resource: str
    policies: tuple[str, ...]
    via: str = ""
    source: str = ""
    reason: str = "policy"
    token: str = ""


def record_allowed(
    project: Project, principal: Principal, action: str, resource: Resource, decision: Decision, *, personal: bool
) -> str | None:
    """The id of the event of an allowed action; None for a read where the journal is read-only and has no events.

    Raises:
        CumulantError: the journal does not take it, so that the action must not be done.
    """
    fact = (PersonalDataRead if personal else AccessAllowed)(
        action=action,
        resource=resource.name,
        policies=decision.policies,
        via=principal.via,
        token=principal.claims.get(BY_TOKEN, ""),
        source=principal.source,
        trace=principal.trace,
    )
    # A read of a copy or of a read-only disk changes nothing; an action that writes must fail there.
    return None if personal and _is_frozen(project) else _record(project, principal.id, fact)


def record_refused(project: Project, principal: Principal, action: str, resource: Resource, decision: Decision) -> None:
    """An event of a refusal; of equal ones in a server, of the first one and later of their number."""
    key = RefusalKey(
        principal.id,
        action,
        resource.name,
        decision.policies,
        principal.via,
        principal.source,
        token=principal.claims.get(BY_TOKEN, ""),
    )
    _count(project, key, trace=principal.trace)


def _count(project: Project, key: RefusalKey, *, trace: str = "") -> None:
    now, counter = datetime.now(UTC), project.refusals  # once: the end of `record_refusals` takes it away
    if counter is None:
        emit_refusal(project, key, Occurrences(1, now, now), trace=trace)
    elif (due := counter.add(key, now)) is not None:
        try:
            emit_refusal(project, *due)
        except (CumulantError, OSError, sqlite3.Error):  # reported with the next window; refused all the same
            counter.put_back(*due)


def record_refused_request(
    project: Project, reason: Literal["token", "origin"], *, principal: str, source: str
) -> None:
    """An event of a request that a server of the project refused before any action of it was known.

    Anybody may send such requests: they are refused also where the journal does not take the event.
    """
    with suppress(CumulantError, OSError, sqlite3.Error):
        _count(project, RefusalKey(principal, REQUEST, project.name, (), "http", source, reason))


def emit_refusal(project: Project, key: RefusalKey, occurrences: Occurrences, *, trace: str = "") -> None:
    """An event of equal refusals. Raises CumulantError: the journal does not take it."""
    if _is_frozen(project):
        return  # it is refused all the same
    several = occurrences.count > 1
    fact = AccessRefused(
        action=key.action,
        resource=key.resource,
        policies=key.policies,
        via=key.via,
        token=key.token,
        source=key.source,
        trace=trace,
        reason=key.reason,
        count=occurrences.count,
        first=occurrences.first if several else None,
        last=occurrences.last if several else None,
    )
    _record(project, key.principal, fact)


def _is_frozen(project: Project) -> bool:
    journal = project.journal()
    return isinstance(journal, Freezing) and journal.frozen


def _record(project: Project, actor: str, fact: Fact) -> str:
    with project.journal().transaction(actor=Actor(actor)) as transaction:
        return transaction.emit(fact).id
