"""Sign-in of a command line: it shows a short code, which its user confirms in a browser (RFC 8628)."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Literal

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import NotFoundError, OverloadedError, RefusedError
from cumulant.core.events import Actor
from cumulant.flows.identities.records import BY_TOKEN, ApiToken, new_secret, read_record, row_value, secret_hash
from cumulant.flows.identities.tokens import NewToken, TokenRequest, add_token, check_token_request, permitted_token
from cumulant.flows.ledger.actions import verb

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project

#: the kind of the journal's rows
DEVICES = "device_login"
LIFE = timedelta(minutes=10)
#: of the codes that users compare: no vowels, so that they spell nothing, and nothing that looks like a digit
_LETTERS, _LENGTH = "BCDFGHJKLMNPQRSTVWXZ", 8
#: sign-ins that wait at once: anybody may begin one, and no address takes the place of all others
_MOST_WAITING, _MOST_OF_ADDRESS = 2_000, 20
#: bits that one subscriber's addresses have in common (IPv6)
_SUBSCRIBER = 64
_TOKEN_NAME = "login"  # noqa: S105 - a name
Waiting = Literal["pending", "expired"]


class DeviceLogin(msgspec.Struct, frozen=True, kw_only=True):
    """A command line that waits, or that a principal has confirmed. `client`: its address."""

    user_code: str
    client: str
    expires: datetime
    principal: str = ""
    groups: tuple[str, ...] = ()
    tenant: str = "default"
    #: a token that it asks for in place of a sign-in, its scope as actions; and once it is confirmed, as it will be
    request: TokenRequest | None = None
    token: ApiToken | None = None


class DeviceCodes(msgspec.Struct, frozen=True):
    """`device_code` is the secret of the command line, `user_code` what its user compares."""

    device_code: str
    user_code: str


def begin_device_login(
    journal: Journal, client: str, now: datetime, request: TokenRequest | None = None
) -> DeviceCodes:
    """Codes for a command line, which asks to act as its user; with `request` for a token of its user instead.

    Raises:
        UsageError: no such token can be.
        OverloadedError: too many wait, of this client's address or at all.
    """
    letters = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    codes = DeviceCodes(new_secret(), f"{letters[:4]}-{letters[4:]}")
    logins = _logins(journal)
    outdated = {key for key, login in logins.items() if login.expires <= now}
    waiting = [_address_of(login.client) for key, login in logins.items() if key not in outdated]
    if len(waiting) >= _MOST_WAITING or waiting.count(_address_of(client)) >= _MOST_OF_ADDRESS:
        raise OverloadedError("too many command lines wait for their sign-in", retry_after=60)
    if request is not None:  # its user confirms actions, and not patterns
        request = msgspec.structs.replace(request, scope=check_token_request(request))
    record = DeviceLogin(user_code=codes.user_code, client=client, expires=now + LIFE, request=request)
    with journal.transaction(actor=Actor("service:sign-in")) as transaction:
        transaction.put(DEVICES, secret_hash(codes.device_code), row_value(record), expect=0)
        for key in outdated:
            transaction.delete(DEVICES, key)
    return codes


@verb("identities.token_create")
def find_device_login(
    project: Project, user_code: str, *, principal: Principal, clock: Clock | None = None
) -> DeviceLogin:
    """The command line that waits with this code.

    Raises:
        NotFoundError: none does.
        RefusedError: the principal itself acts by a token.
    """
    return _waiting(project.journal(), user_code, principal, (clock or SystemClock()).now())[1]


@verb("identities.token_create")
def confirm_device_login(
    project: Project, user_code: str, *, principal: Principal, clock: Clock | None = None
) -> DeviceLogin:
    """Let the command line that waits with this code act as `principal`, or have the token that it asks for.

    Raises:
        NotFoundError, RefusedError: as `find_device_login`; the principal may not create that token.
    """
    journal, now = project.journal(), (clock or SystemClock()).now()
    key, login = _waiting(journal, user_code, principal, now)
    token = None if login.request is None else permitted_token(project, login.request, principal, now)
    confirmed = msgspec.structs.replace(
        login, principal=principal.id, groups=principal.groups, tenant=principal.tenant, token=token
    )
    with journal.transaction(actor=Actor(principal.id)) as transaction:
        if read_record(transaction.get(DEVICES, key), DeviceLogin) != login:
            raise _unknown(user_code)
        transaction.put(DEVICES, key, row_value(confirmed))
    return confirmed


def finish_device_login(journal: Journal, device_code: str, life: timedelta, now: datetime) -> NewToken | Waiting:
    """The token of a command line that was confirmed, once; else why there is none."""
    key = secret_hash(device_code)
    login = read_record(journal.get(DEVICES, key), DeviceLogin)
    if login is None or now >= login.expires:
        return "expired"
    if not login.principal:
        return "pending"
    with journal.transaction(actor=Actor(login.principal)) as transaction:
        if transaction.get(DEVICES, key) is None:
            return "expired"  # another request was first
        transaction.delete(DEVICES, key)
    if login.token is not None:
        return add_token(journal, login.token, reason=f"for a command line at {login.client}")
    record = ApiToken(
        name=_TOKEN_NAME,
        principal=login.principal,
        owner=login.principal,
        groups=login.groups,
        tenant=login.tenant,
        created=now,
        expires=now + life,
    )
    return add_token(journal, record, reason=f"sign-in of a command line at {login.client}")


def _address_of(client: str) -> str:
    """The address, of IPv6 the network that a subscriber has; a client that is no address stands for itself."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    return str(address) if address.version == 4 else str(ip_network((int(address), _SUBSCRIBER), strict=False))


def _waiting(journal: Journal, user_code: str, principal: Principal, now: datetime) -> tuple[str, DeviceLogin]:
    if BY_TOKEN in principal.claims:
        raise RefusedError("a token cannot confirm a sign-in", subject=principal.id, hint="sign in to the console")
    wanted = "".join(letter for letter in user_code.upper() if letter in _LETTERS)
    for key, login in _logins(journal).items():
        if login.user_code.replace("-", "") == wanted and not login.principal and now < login.expires:
            return key, login
    raise _unknown(user_code)


def _unknown(user_code: str) -> NotFoundError:
    hint = "run `cumulant login` again: a code is good for 10 minutes, and for one confirmation"
    return NotFoundError("no command line waits with this code", subject=user_code[:20], hint=hint)


def _logins(journal: Journal) -> dict[str, DeviceLogin]:
    return {row.key: msgspec.convert(row.value, DeviceLogin) for row in journal.rows(DEVICES)}
