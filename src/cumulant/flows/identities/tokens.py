"""API tokens: created, listed and revoked by their owners, and looked up for each request that carries one."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import (
    EngineUnavailableError,
    ForbiddenError,
    RefusedError,
    UsageError,
    did_you_mean,
    not_found,
)
from cumulant.core.events import Actor
from cumulant.core.ids import short
from cumulant.flows.identities.last_use import LastUse, forget_uses, last_uses
from cumulant.flows.identities.records import (
    BY_TOKEN,
    PREFIX,
    TOKENS,
    ApiToken,
    TokenCreated,
    TokenGroupsChanged,
    TokenRevoked,
    new_secret,
    read_record,
    row_value,
    secret_hash,
)
from cumulant.flows.ledger.actions import ACTIONS, OWN_MODEL, check, decide, verb

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal, ReadAtOnce, Row
    from cumulant.project.project import Project

#: the reports of when tokens were used
USES = "api_token_use"
USE_INTERVAL = timedelta(hours=1)
#: a sign-in by a provider is stored once in this part of the time for which it makes its user's tokens good, and once
#: in a day
_STORED_PART, _STORED = 7, timedelta(days=1)
DEFAULT_LIFE, LONGEST_LIFE = timedelta(days=90), timedelta(days=366)
#: an expired token is listed for so long at most
_LISTED = timedelta(days=30)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: an action, or with `*` several
_PATTERN = re.compile(r"[a-z_.*]{1,64}")
#: characters of what was given that a message shows
_SHOWN = 64
MANAGE = "identities.manage"
#: how the names of users begin
_USER = "user:"


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its secret. `used`: to within an hour."""

    id: str
    name: str
    principal: str
    owner: str
    groups: tuple[str, ...]
    scope: tuple[str, ...] | None
    created: datetime
    expires: datetime
    expired: bool
    used: datetime | None = None


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was just created: the only time that `secret` is shown."""

    secret: str
    token: TokenView


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A token that somebody asks for; the fields are those of `create_token`."""

    name: str
    scope: tuple[str, ...] = ()
    service: str = ""
    expires: timedelta = DEFAULT_LIFE


@verb("identities.token_create")
def create_token(
    project: Project,
    name: str,
    *,
    principal: Principal,
    scope: Sequence[str] = (),
    service: str = "",
    expires: timedelta = DEFAULT_LIFE,
    clock: Clock | None = None,
) -> NewToken:
    """Create a token of `principal`, or of the service account `service:NAME`.

    `scope` has actions or all of a subject (`runs.*`), each of which the principal may do; without one, a token is good
    for whatever the policies allow its owner at the time of use. A service account has no groups, and its scope is
    required.

    Raises:
        UsageError: a name, the scope or the time cannot be used.
        RefusedError: the principal may not do what is in the scope, or itself acts by a token.
    """
    request = TokenRequest(name=name, scope=tuple(scope), service=service, expires=expires)
    return add_token(project.journal(), permitted_token(project, request, principal, (clock or SystemClock()).now()))


def check_token_request(request: TokenRequest) -> tuple[str, ...]:
    """The actions that a token is asked for. Raises UsageError: a name, the scope or the time cannot be used."""
    if request.expires <= timedelta(0):
        raise UsageError("a token that has expired is good for nothing", subject="expires", hint="--expires 90d")
    if request.expires > LONGEST_LIFE:
        raise UsageError(f"a token lives for at most {LONGEST_LIFE.days} days", hint="--expires 90d")
    for name in (request.name, request.service or request.name):
        if not _NAME.fullmatch(name):
            hint = "write letters, digits, - _ and .: ci-nightly"
            raise UsageError("that is no name", subject=name[:_SHOWN], hint=hint)
    actions = expand_scope(request.scope)
    if request.service and not actions:
        raise UsageError("the token of a service account needs a scope", hint="--scope runs.show --scope 'data.*'")
    return actions


def permitted_token(project: Project, request: TokenRequest, principal: Principal, now: datetime) -> ApiToken:
    """The token as it will be stored, which the principal may create. Raises as `create_token`."""
    if BY_TOKEN in principal.claims:
        raise RefusedError("a token cannot create tokens", subject=principal.id, hint="sign in to the console")
    actions = check_token_request(request)
    if request.service:
        check(project, principal, MANAGE)
    for action in actions:
        _check_right(project, principal, action)
    return ApiToken(
        name=request.name,
        principal=f"service:{request.service}" if request.service else principal.id,
        owner=principal.id,
        groups=() if request.service else principal.groups,
        tenant=principal.tenant,
        scope=actions or None,
        created=now,
        expires=now + request.expires,
    )


def add_token(journal: Journal, record: ApiToken, *, reason: str | None = None) -> NewToken:
    """Store a token whose rights were checked, and return its secret. Tokens that expired long ago are removed."""
    secret = PREFIX + new_secret()
    key = secret_hash(secret)
    outdated = [old for old, known in _records(journal) if _listed_until(known) < record.created]
    with journal.transaction(actor=Actor(record.owner, reason)) as transaction:
        transaction.put(TOKENS, key, row_value(record), expect=0)
        for old in outdated:
            transaction.delete(TOKENS, old)
        transaction.emit(
            TokenCreated(
                token=short(key),
                name=record.name,
                principal=record.principal,
                expires=record.expires,
                scope=record.scope,
            )
        )
    forget_uses(journal, USES, set(outdated))
    return NewToken(secret=secret, token=_view(key, record, record.created, None))


@verb("identities.token_list")
def list_tokens(project: Project, *, principal: Principal, clock: Clock | None = None) -> list[TokenView]:
    """The principal's own tokens, and those of others where it may see them; the newest first."""
    journal, now = project.journal(), (clock or SystemClock()).now()
    uses, everything = last_uses(journal, USES), may_manage(project, principal)
    views = [_view(key, record, now, uses.get(key)) for key, record in _records(journal)]
    mine = [view for view in views if everything or view.owner == principal.id]
    return sorted(mine, key=lambda view: view.created, reverse=True)


@verb("identities.token_revoke")
def revoke_token(project: Project, token: str, *, principal: Principal, reason: str = "") -> TokenView:
    """Revoke a token by its id, or the beginning of it. It is refused from the next request on.

    Raises:
        NotFoundError: the principal has no such token, or sees none.
        UsageError: several ids begin so.
    """
    journal, everything = project.journal(), may_manage(project, principal)
    records = dict(_records(journal))
    known = {key: record for key, record in records.items() if everything or record.owner == principal.id}
    key = choose("token", token, known)
    record = known[key]
    with journal.transaction(actor=Actor(principal.id, reason or None)) as transaction:
        transaction.delete(TOKENS, key)
        transaction.emit(TokenRevoked(token=short(key), name=record.name, principal=record.principal))
    forget_uses(journal, USES, {key})
    return _view(key, record, SystemClock().now(), None)


def follow_groups(journal: Journal, principal: Principal, now: datetime, *, confirmed: timedelta) -> None:
    """Give the tokens of a user, whom the provider has just signed in, the groups of this moment, and let them be good
    for as long as `confirmed` again.

    The sign-in waits for it: where nothing changes, it waits for nobody who writes to the journal.
    """
    oldest = now - min(_STORED, confirmed / _STORED_PART)
    if not any(_is_behind(known, principal, now, oldest) for _, known in _records(journal)):
        return
    with journal.transaction(actor=Actor(principal.id)) as transaction:
        for row in transaction.rows(TOKENS):
            known = msgspec.convert(row.value, ApiToken)
            if not _is_behind(known, principal, now, oldest):
                continue
            changed = _has_other_groups(known, principal)
            record = msgspec.structs.replace(known, groups=principal.groups, confirmed=now)
            transaction.put(TOKENS, row.key, row_value(record))
            if changed:
                transaction.emit(
                    TokenGroupsChanged(
                        token=short(row.key),
                        name=known.name,
                        principal=known.principal,
                        before=known.groups,
                        groups=principal.groups,
                    )
                )


def find_token(
    journal: Journal, secret: str, now: datetime, uses: LastUse, *, confirmed: timedelta | None = None
) -> ApiToken | None:
    """The token of a request, whose use is recorded; None where it is unknown, revoked or expired, or of a user whose
    groups the provider has not named for as long as `confirmed`.
    """
    record = lookup_token(journal, secret, now)
    if record is None or not _is_confirmed(record, now, confirmed):
        return None
    uses.record(journal, secret_hash(secret), now)
    return record


def find_token_at_once(
    journal: ReadAtOnce, secret: str, now: datetime, uses: LastUse, *, confirmed: timedelta | None = None
) -> ApiToken | None:
    """As `find_token`, for an event loop; None also where its use has to be recorded, or the journal is locked."""
    if not secret.startswith(PREFIX):
        return None
    key = secret_hash(secret)
    if not uses.is_recorded(key, now):
        return None
    try:
        record = _unexpired(journal.get_at_once(TOKENS, key), now)
    except EngineUnavailableError:
        return None
    return record if record is not None and _is_confirmed(record, now, confirmed) else None


def lookup_token(journal: Journal, secret: str, now: datetime) -> ApiToken | None:
    """As `find_token`, without a use: the token's request may be refused."""
    if not secret.startswith(PREFIX):
        return None
    return _unexpired(journal.get(TOKENS, secret_hash(secret)), now)


def _unexpired(row: Row | None, now: datetime) -> ApiToken | None:
    record = read_record(row, ApiToken)
    return None if record is None or now >= record.expires else record


def _is_confirmed(record: ApiToken, now: datetime, longest: timedelta | None) -> bool:
    """Whether the provider has named the groups of the token's user lately, where it has to."""
    return longest is None or not record.principal.startswith(_USER) or now - _confirmed(record) < longest


def expand_scope(scope: Sequence[str]) -> tuple[str, ...]:
    """The actions that a scope names, in order. Raises UsageError where one names none, or there are too many."""
    patterns, actions = dict.fromkeys(scope), set[str]()
    if len(patterns) > len(ACTIONS):  # anybody may ask for a token: what it costs to read the scope is bounded
        raise UsageError(f"a scope names at most {len(ACTIONS)} actions", hint="--scope 'model.*' stands for several")
    for pattern in patterns:
        matches = fnmatch.filter(ACTIONS, pattern) if _PATTERN.fullmatch(pattern) else []
        if not matches:
            hint = did_you_mean(pattern, ACTIONS) or "such as runs.show or model.*; `cumulant access roles` lists them"
            raise UsageError(f'"{pattern[:_SHOWN]}" is no action', hint=hint)
        actions.update(matches)
    return tuple(sorted(actions))


def may_manage(project: Project, principal: Principal) -> bool:
    """Whether the principal sees and ends the tokens and sessions of others."""
    return decide(project, principal, MANAGE).allowed


def choose(kind: str, beginning: str, known: Iterable[str]) -> str:
    """The one key that begins so. Raises NotFoundError or UsageError."""
    matches = [key for key in known if beginning and key.startswith(beginning)]
    if not matches:
        raise not_found(kind, beginning[:_SHOWN], map(short, known))
    if len(matches) > 1:
        raise UsageError(f'{len(matches)} ids begin with "{beginning}"', hint="write more of it")
    return matches[0]


def _is_behind(record: ApiToken, principal: Principal, now: datetime, oldest: datetime) -> bool:
    """Whether a token is of a user who signs in now, and has other groups, or was confirmed at `oldest` or before."""
    if (record.principal, record.tenant) != (principal.id, principal.tenant) or now >= record.expires:
        return False
    return _has_other_groups(record, principal) or _confirmed(record) <= oldest


def _has_other_groups(record: ApiToken, principal: Principal) -> bool:
    return sorted(record.groups) != sorted(principal.groups)


def _confirmed(record: ApiToken) -> datetime:
    """When the groups of a token's user were known last."""
    return record.confirmed or record.created


def _listed_until(record: ApiToken) -> datetime:
    """Tokens that live for minutes, such as those of jobs, are many."""
    return record.expires + min(_LISTED, record.expires - record.created)


def _check_right(project: Project, principal: Principal, action: str) -> None:
    """Raises RefusedError where the principal may do the action neither to the project nor to its model."""
    if decide(project, principal, action).allowed:
        return
    try:
        check(project, principal, action, model=OWN_MODEL)
    except ForbiddenError as error:
        text = f"{error.message}, and a token's scope is limited to what its creator may do"
        raise ForbiddenError(text, subject=error.subject, hint=error.hint) from None


def _records(journal: Journal) -> list[tuple[str, ApiToken]]:
    return [(row.key, msgspec.convert(row.value, ApiToken)) for row in journal.rows(TOKENS)]


def _view(key: str, record: ApiToken, now: datetime, used: datetime | None) -> TokenView:
    return TokenView(
        id=short(key),
        name=record.name,
        principal=record.principal,
        owner=record.owner,
        groups=record.groups,
        scope=record.scope,
        created=record.created,
        expires=record.expires,
        expired=now >= record.expires,
        used=used,
    )
