"""API tokens, sessions and one-time links as the journal holds them: by the hash of what their holders keep secret.

Each secret is 32 random bytes, so that a plain SHA-256 is enough: there is nothing to guess. A row is looked up by the
hash; neither the time of a look-up nor a listed id helps to find a secret.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from typing import Literal, TypeVar, cast

import msgspec

from cumulant.core.events import Fact
from cumulant.ports.access import Principal
from cumulant.ports.journal import Row

#: kinds of the journal's rows
TOKENS, SESSIONS, LINKS = "api_token", "session", "sign_in_link"
#: how an API token begins, so that scanners of files recognize it
PREFIX = "cml_"
#: the claim of a principal that acts by a token: the token's name
BY_TOKEN = "token"  # noqa: S105 - the name of a claim
_BYTES = 32
#: characters of a secret that are hashed at most; longer text is none of ours
_LONGEST = 256

SessionMethod = Literal["link", "oidc"]
Record = TypeVar("Record", bound=msgspec.Struct)


class ApiToken(msgspec.Struct, frozen=True, kw_only=True):
    """`principal` acts with the token, within `scope`; `owner` created it and may revoke it.

    `confirmed`: when the provider of sign-ins named the principal's groups last; None: not since it was created.
    """

    name: str
    principal: str
    owner: str
    created: datetime
    expires: datetime
    groups: tuple[str, ...] = ()
    tenant: str = "default"
    scope: tuple[str, ...] | None = None
    confirmed: datetime | None = None


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A signed-in browser. It ends at `expires`, or earlier when it is not used."""

    principal: str
    method: SessionMethod
    opened: datetime
    expires: datetime
    groups: tuple[str, ...] = ()
    tenant: str = "default"


class SignInLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link that opens one session of `principal`, until `expires`."""

    principal: str
    expires: datetime
    groups: tuple[str, ...] = ()
    tenant: str = "default"


class TokenCreated(Fact, frozen=True, kw_only=True):
    """An API token was created. `token`: its id, never the token. `scope`: None for all that its principal may do."""

    kind = "identities.token_created"
    token: str
    name: str
    principal: str
    expires: datetime
    scope: tuple[str, ...] | None = None


class TokenRevoked(Fact, frozen=True, kw_only=True):
    """An API token was revoked, and is refused from here on."""

    kind = "identities.token_revoked"
    token: str
    name: str
    principal: str


class TokenGroupsChanged(Fact, frozen=True, kw_only=True):
    """The user of an API token signed in with other groups, which the token has from here on."""

    kind = "identities.token_groups_changed"
    token: str
    name: str
    principal: str
    before: tuple[str, ...]
    groups: tuple[str, ...]


class SessionOpened(Fact, frozen=True, kw_only=True):
    """The event's actor signed in."""

    kind = "identities.session_opened"
    session: str
    method: SessionMethod
    expires: datetime


class SessionEnded(Fact, frozen=True, kw_only=True):
    """A session of `principal` was ended before it expired: by its user, or by the event's actor."""

    kind = "identities.session_ended"
    session: str
    principal: str


def new_secret() -> str:
    """256 random bits, as text for URLs and headers."""
    return secrets.token_urlsafe(_BYTES)


def secret_hash(secret: str) -> str:
    """The key of a secret's row."""
    return hashlib.sha256(secret[: _LONGEST + 1].encode("utf-8", "surrogatepass")).hexdigest()


def principal_of(record: ApiToken | Session | SignInLink) -> Principal:
    """The principal that a record stands for."""
    principal = Principal(record.principal, record.groups, tenant=record.tenant, via="http")
    if isinstance(record, ApiToken):
        return msgspec.structs.replace(principal, scope=record.scope, claims={BY_TOKEN: record.name})
    return principal


def read_record(row: Row | None, kind: type[Record]) -> Record | None:
    return None if row is None else msgspec.convert(row.value, kind)


def row_value(record: msgspec.Struct) -> dict[str, object]:
    return cast("dict[str, object]", msgspec.to_builtins(record))
