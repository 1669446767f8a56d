"""Principals of requests: by a token, by the gateway in front, or whoever reaches an address without tokens.

A file of tokens has one a line: `TOKEN`, `TOKEN NAME` or `TOKEN NAME GROUP,GROUP`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cumulant.ports.access import Principal
from cumulant.serving.access_token import TokenLine, read_token, read_token_lines

#: whoever reaches an address that needs no token, whoever comes through the gateway to one, and a token without a name
ANONYMOUS, GATEWAY, TOKEN_HOLDER = "anonymous", "service:gateway", "service:token"


class CallerToken(msgspec.Struct, frozen=True):
    """A token and whose it is; without a name, whoever holds it is `service:token`."""

    token: str
    name: str = TOKEN_HOLDER
    groups: tuple[str, ...] = ()


def read_holders(path: Path | None, environment: Mapping[str, str]) -> tuple[CallerToken, ...]:
    """The tokens of a file, else the one of `CUMULANT_TOKEN`; empty where neither is given.

    Raises:
        UsageError: the file cannot be read or has an invalid line, or a token twice.
        RefusedError: others can read the file.
    """
    if path is None:
        token = read_token(None, environment)
        return () if token is None else (CallerToken(token),)
    return tuple(_holder(line) for line in read_token_lines(path))


def _holder(line: TokenLine) -> CallerToken:
    if not line.name:
        return CallerToken(line.token)
    return CallerToken(line.token, line.name if ":" in line.name else f"user:{line.name}", line.groups)


class Callers:
    """Principals by the header Authorization. Without holders nobody needs a token."""

    def __init__(self, holders: Sequence[CallerToken] = (), *, tenant: str = "default") -> None:
        # By a hash: the time of a look-up shows nothing about a token that is near.
        self._known = {
            _hash(f"Bearer {holder.token}".encode()): Principal(holder.name, holder.groups, tenant=tenant, via="http")
            for holder in holders
        }
        #: whether callers need a token
        self.guarded = bool(self._known)
        self.anonymous = Principal(ANONYMOUS, tenant=tenant, via="http")
        self._gateway = Principal(GATEWAY, tenant=tenant, via="http")

    def identify(self, authorization: bytes, *, forwarded: bool = False) -> Principal | None:
        """Who sends a request; `forwarded`: the gateway has proved that it did. None: a token is needed and missing."""
        if self.guarded:
            return self._known.get(_hash(authorization))
        return self._gateway if forwarded else self.anonymous


def _hash(authorization: bytes) -> bytes:
    return hashlib.sha256(authorization).digest()
