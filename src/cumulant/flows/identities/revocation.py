"""The end of all tokens, sessions, links and sign-ins under way, such as in a state that comes from a backup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant.core.events import Actor
from cumulant.core.ids import short
from cumulant.flows.identities import sessions, tokens
from cumulant.flows.identities.device_logins import DEVICES
from cumulant.flows.identities.last_use import forget_uses
from cumulant.flows.identities.records import LINKS, SESSIONS, TOKENS, ApiToken, Session, SessionEnded, TokenRevoked

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal


def revoke_everything(journal: Journal, actor: Actor) -> int:
    """Remove them in one transaction, with an event for each token and session; how many these were."""
    known_tokens, known_sessions = journal.rows(TOKENS), journal.rows(SESSIONS)
    others = [(kind, row.key) for kind in (LINKS, DEVICES) for row in journal.rows(kind)]
    if not (known_tokens or known_sessions or others):
        return 0
    with journal.transaction(actor=actor) as transaction:
        for row in known_tokens:
            token = msgspec.convert(row.value, ApiToken)
            transaction.delete(TOKENS, row.key)
            transaction.emit(TokenRevoked(token=short(row.key), name=token.name, principal=token.principal))
        for row in known_sessions:
            session = msgspec.convert(row.value, Session)
            transaction.delete(SESSIONS, row.key)
            transaction.emit(SessionEnded(session=short(row.key), principal=session.principal))
        for kind, key in others:
            transaction.delete(kind, key)
    forget_uses(journal, tokens.USES, {row.key for row in known_tokens})
    forget_uses(journal, sessions.USES, {row.key for row in known_sessions})
    return len(known_tokens) + len(known_sessions)
