"""Sign-ins by a provider, each of which opens one session: what a response refers to is remembered until it expires."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.events import Actor
from cumulant.flows.identities.records import secret_hash

if TYPE_CHECKING:
    from cumulant.flows.identities.sessions import OpenedSession, Sessions
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal

#: the kind of the journal's rows
STATES = "sign_in_state"


def open_once(
    journal: Journal,
    sessions: Sessions,
    principal: Principal,
    *,
    state: str,
    expires: datetime,
    now: datetime,
    replaces: str = "",
    renews: bool = False,
) -> OpenedSession | None:
    """Open the session of a sign-in that the provider confirmed; None where one was opened by the same response."""
    key = secret_hash(state)
    outdated = [row.key for row in journal.rows(STATES) if msgspec.convert(row.value["expires"], datetime) <= now]
    with journal.transaction(actor=Actor(principal.id)) as transaction:
        if transaction.get(STATES, key) is not None:
            return None
        transaction.put(STATES, key, {"expires": msgspec.to_builtins(expires)})
        for old in outdated:
            transaction.delete(STATES, old)
        opened = sessions.open_within(transaction, principal, "oidc", now, replaces=replaces, renews=renews)
    sessions.remove_expired(now)
    return opened
