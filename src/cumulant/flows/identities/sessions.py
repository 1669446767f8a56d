"""Sessions of signed-in browsers: opened by a sign-in, looked up for each request, listed and ended."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import UsageError
from cumulant.core.events import Actor
from cumulant.core.ids import short
from cumulant.flows.identities.last_use import LastUse, forget_uses, last_uses
from cumulant.flows.identities.records import (
    SESSIONS,
    Session,
    SessionEnded,
    SessionMethod,
    SessionOpened,
    new_secret,
    read_record,
    row_value,
    secret_hash,
)
from cumulant.flows.identities.tokens import choose, may_manage
from cumulant.flows.ledger.actions import verb

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal, Transaction
    from cumulant.project.project import Project
    from cumulant.project.sign_in_section import SessionLimits

#: the reports of when sessions were used
USES = "session_use"
#: uses are recorded this many times within the time after which an unused session ends
_RECORDS = 6


class OpenedSession(NamedTuple):
    """A session and the secret that its cookie carries."""

    secret: str
    session: Session


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """A session without its secret. `used`: to within a sixth of the time after which an unused one ends."""

    id: str
    principal: str
    groups: tuple[str, ...]
    method: SessionMethod
    opened: datetime
    expires: datetime
    used: datetime


class Sessions:
    """The sessions of a project, for a process that serves requests."""

    def __init__(self, journal: Journal, limits: SessionLimits) -> None:
        self._journal, self._limits = journal, limits
        self._uses = LastUse(USES, limits.idle / _RECORDS)

    def open(self, principal: Principal, method: SessionMethod, now: datetime, *, replaces: str = "") -> OpenedSession:
        """Open a session with a new secret; it takes the place of the one whose secret the browser had, if any."""
        with self._journal.transaction(actor=Actor(principal.id)) as transaction:
            opened = self.open_within(transaction, principal, method, now, replaces=replaces)
        self.remove_expired(now)
        return opened

    def open_within(
        self,
        transaction: Transaction,
        principal: Principal,
        method: SessionMethod,
        now: datetime,
        *,
        replaces: str = "",
        renews: bool = False,
    ) -> OpenedSession:
        """`open` in the caller's transaction, whose actor is the principal. `renews`: the session that it takes the
        place of was checked again, and ends when that one would have.
        """
        secret, expires = new_secret(), now + self._limits.longest
        previous = read_record(transaction.get(SESSIONS, secret_hash(replaces)), Session) if replaces else None
        if renews and previous is not None and previous.principal == principal.id:
            expires = min(expires, previous.expires)
        session = Session(
            principal=principal.id,
            groups=principal.groups,
            tenant=principal.tenant,
            method=method,
            opened=now,
            expires=expires,
        )
        if replaces:
            _end(transaction, secret_hash(replaces))
        key = secret_hash(secret)
        transaction.put(SESSIONS, key, row_value(session), expect=0)
        transaction.emit(SessionOpened(session=short(key), method=method, expires=session.expires))
        return OpenedSession(secret, session)

    def find(self, secret: str, now: datetime) -> Session | None:
        """The session of a cookie, whose use is recorded; None where it is unknown, ended or expired, or has to be
        checked at the provider before it counts again.
        """
        session = self._alive(secret, now)
        if session is None or self._is_due(session, now):
            return None
        self._uses.record(self._journal, secret_hash(secret), now)
        return session

    def is_renewable(self, secret: str, now: datetime) -> bool:
        """Whether the session of a cookie counts no more, and does again once the provider has signed its user in."""
        session = self._alive(secret, now)
        return session is not None and self._is_due(session, now)

    def _alive(self, secret: str, now: datetime) -> Session | None:
        key = secret_hash(secret)
        session = read_record(self._journal.get(SESSIONS, key), Session)
        if session is None or now >= session.expires:
            return None
        used = self._uses.last(self._journal, key, now) or session.opened
        return None if now - max(used, session.opened) >= self._limits.idle else session

    def _is_due(self, session: Session, now: datetime) -> bool:
        return session.method == "oidc" and now - session.opened >= self._limits.recheck

    def end(self, secret: str, principal: Principal) -> None:
        """End the session of a cookie, if there is one."""
        with self._journal.transaction(actor=Actor(principal.id)) as transaction:
            _end(transaction, secret_hash(secret))

    def remove_expired(self, now: datetime) -> None:
        """Remove what expired, without an event, since nobody ended it; and the uses of all that is gone."""
        uses = last_uses(self._journal, USES)
        sessions = dict(_sessions(self._journal))
        alive = {key for key, known in sessions.items() if _is_alive(known, uses.get(key), now, self._limits)}
        if len(alive) < len(sessions):
            with self._journal.transaction(actor=Actor("service:sessions")) as transaction:
                for key in sessions.keys() - alive:
                    transaction.delete(SESSIONS, key)
        forget_uses(self._journal, USES, uses.keys() - alive)


@verb("identities.session_list")
def list_sessions(project: Project, *, principal: Principal, clock: Clock | None = None) -> list[SessionView]:
    """The principal's own sessions, and those of others where it may see them; the newest first."""
    journal, now = project.journal(), (clock or SystemClock()).now()
    uses, limits = last_uses(journal, USES), project.sign_in.limits
    views = [
        _view(key, session, uses.get(key))
        for key, session in _visible(project, principal).items()
        if _is_alive(session, uses.get(key), now, limits)
    ]
    return sorted(views, key=lambda view: view.opened, reverse=True)


@verb("identities.session_revoke")
def revoke_sessions(
    project: Project, session: str = "", *, principal: Principal, of: str = "", reason: str = ""
) -> list[SessionView]:
    """End a session by its id or the beginning of it, or all sessions of a principal.

    Raises:
        NotFoundError: the principal has no such session, or sees none.
        UsageError: neither or both are named, or several ids begin so.
    """
    if bool(session) == bool(of):
        raise UsageError("name a session or a principal", hint="--of user:ada")
    journal, visible = project.journal(), _visible(project, principal)
    keys = (
        [key for key, known in visible.items() if known.principal == of]
        if of
        else [choose("session", session, visible)]
    )
    with journal.transaction(actor=Actor(principal.id, reason or None)) as transaction:
        for key in keys:
            _end(transaction, key)
    return [_view(key, visible[key], None) for key in keys]


def _end(transaction: Transaction, key: str) -> None:
    session = read_record(transaction.get(SESSIONS, key), Session)
    if session is not None:
        transaction.delete(SESSIONS, key)
        transaction.emit(SessionEnded(session=short(key), principal=session.principal))


def _sessions(journal: Journal) -> list[tuple[str, Session]]:
    return [(row.key, msgspec.convert(row.value, Session)) for row in journal.rows(SESSIONS)]


def _visible(project: Project, principal: Principal) -> dict[str, Session]:
    everything = may_manage(project, principal)
    return {
        key: session for key, session in _sessions(project.journal()) if everything or session.principal == principal.id
    }


def _is_alive(session: Session, used: datetime | None, now: datetime, limits: SessionLimits) -> bool:
    return now < min(session.expires, max(used or session.opened, session.opened) + limits.idle)


def _view(key: str, session: Session, used: datetime | None) -> SessionView:
    return SessionView(
        id=short(key),
        principal=session.principal,
        groups=session.groups,
        method=session.method,
        opened=session.opened,
        expires=session.expires,
        used=max(used or session.opened, session.opened),
    )
