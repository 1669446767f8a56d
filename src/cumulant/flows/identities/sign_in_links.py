"""One-time links, with which the user of the machine signs in where no provider is configured."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import RefusedError
from cumulant.core.events import Actor
from cumulant.flows.identities.records import (
    LINKS,
    SignInLink,
    new_secret,
    principal_of,
    read_record,
    row_value,
    secret_hash,
)
from cumulant.flows.ledger.actions import verb

if TYPE_CHECKING:
    from cumulant.flows.identities.sessions import OpenedSession, Sessions
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project

#: how long a link can be used
LIFE = timedelta(minutes=10)


@verb("identities.session_link")
def create_link(project: Project, *, principal: Principal, clock: Clock | None = None) -> str:
    """The code of a new link that opens one session of `principal`, within 10 minutes.

    Raises:
        RefusedError: the principal acts by HTTP, where a session or a token would outlive itself by a link.
    """
    if principal.via == "http":
        raise RefusedError("links are created on the machine of the project", subject=principal.id)
    code, now = new_secret(), (clock or SystemClock()).now()
    record = SignInLink(principal=principal.id, groups=principal.groups, tenant=principal.tenant, expires=now + LIFE)
    journal = project.journal()
    outdated = [row.key for row in journal.rows(LINKS) if msgspec.convert(row.value, SignInLink).expires <= now]
    with journal.transaction(actor=Actor(principal.id)) as transaction:
        transaction.put(LINKS, secret_hash(code), row_value(record), expect=0)
        for key in outdated:
            transaction.delete(LINKS, key)
    return code


def use_link(
    journal: Journal, sessions: Sessions, code: str, now: datetime, *, replaces: str = ""
) -> OpenedSession | None:
    """Open the session of a link and remove the link, in one transaction; None where it is unknown, used or expired."""
    known = read_record(journal.get(LINKS, secret_hash(code)), SignInLink)
    if known is None or now >= known.expires:
        return None
    principal = principal_of(known)
    with journal.transaction(actor=Actor(principal.id)) as transaction:
        if transaction.get(LINKS, secret_hash(code)) is None:
            return None  # another request was first
        transaction.delete(LINKS, secret_hash(code))
        opened = sessions.open_within(transaction, principal, "link", now, replaces=replaces)
    sessions.remove_expired(now)
    return opened


def link_url(base: str, code: str) -> str:
    """The link of a code, at the console's address."""
    return f"{base.rstrip('/')}/login?{urlencode({'code': code})}"
