"""Callers: authenticated by a token, or named by a trusted one.

A file of tokens has one a line: `TOKEN`, `TOKEN REVIEWER` or `TOKEN REVIEWER GROUP,GROUP`. A token with a reviewer is
that one's only. A token alone is that of a program, such as a console, which names the reviewer in the header
`x-cumulant-user`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cumulant.core.errors import RefusedError
from cumulant.flows.review.service import check_name
from cumulant.ports.access import Principal
from cumulant.serving.access_token import VARIABLE, TokenLine, check_token, read_token_lines
from cumulant.serving.errors import HttpError

USER, GROUPS = b"x-cumulant-user", b"x-cumulant-groups"
_BEARER = ((b"www-authenticate", b"Bearer"),)


class TokenHolder(msgspec.Struct, frozen=True):
    """A token by its hash, and its principal; None: whom its holder names."""

    token: bytes
    principal: Principal | None


def read_callers(path: Path | None, shared: str) -> list[TokenHolder]:
    """The callers of a file; without one the token `shared`, where it is not empty.

    Raises:
        UsageError: the file cannot be read, or has an invalid line.
        RefusedError: other users can read it.
    """
    if path is None:
        return [TokenHolder(_hash(check_token(shared.strip(), VARIABLE)), None)] if shared.strip() else []
    return [_caller(line) for line in read_token_lines(path)]


def _caller(line: TokenLine) -> TokenHolder:
    principal = Principal(check_name(line.name), line.groups, via="http") if line.name else None
    return TokenHolder(_hash(line.token), principal)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class CallerTokens:
    """Principals by request headers. Without `known` tokens any caller may name anybody; the default is `own`.

    All are of the tenant of `own`, and known by HTTP: a name in a header is no more than its caller's word.
    """

    def __init__(self, known: Sequence[TokenHolder], own: Principal) -> None:
        self._known, self._own = tuple(known), msgspec.structs.replace(own, claims={}, via="http")

    @property
    def guarded(self) -> bool:
        """Whether callers need a token."""
        return bool(self._known)

    def admitted(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request is read at all, by its head."""
        return not self._known or self._find_holder(headers) is not None

    def principal(self, headers: Mapping[bytes, bytes]) -> Principal:
        """The principal of a request.

        Raises:
            HttpError: 401 without a known token; 400 where a name is required and missing.
            RefusedError: the token is of another reviewer.
        """
        named_principal = _principal_of(headers, self._own.tenant)
        if not self._known:
            return named_principal or self._own
        caller = self._find_holder(headers)
        if caller is None:
            hint = "send the header Authorization: Bearer TOKEN"
            raise HttpError(401, "this server needs a token", hint=hint, headers=_BEARER)
        if caller.principal is None:
            if named_principal is None:
                raise HttpError(400, "this token belongs to no single user", hint="send x-cumulant-user: ada")
            return named_principal
        if named_principal is not None and (named_principal.id != caller.principal.id or named_principal.groups):
            raise RefusedError(
                f"this token is that of {caller.principal.id}",
                subject=named_principal.id,
                hint="leave the headers x-cumulant-user and x-cumulant-groups out",
            )
        return msgspec.structs.replace(caller.principal, tenant=self._own.tenant)

    def _find_holder(self, headers: Mapping[bytes, bytes]) -> TokenHolder | None:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = hashlib.sha256(token.strip()).digest()
        # All are compared, so that the time does not show which one is near.
        same = [caller for caller in self._known if hmac.compare_digest(caller.token, given)]
        return same[0] if same and scheme.lower() == b"bearer" else None


def _principal_of(headers: Mapping[bytes, bytes], tenant: str) -> Principal | None:
    try:
        user, groups = (headers.get(name, b"").decode("utf-8").strip() for name in (USER, GROUPS))
        if not user:
            return None
        named = tuple(filter(None, (group.strip() for group in groups.split(","))))
        return Principal(check_name(user), named, tenant=tenant, via="http")
    except UnicodeDecodeError:
        raise HttpError(400, "the name of who acts is no UTF-8 text") from None
