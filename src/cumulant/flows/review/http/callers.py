"""Who calls: by a token of one's own, or by name where the caller is trusted to say it.

A file of tokens has one a line: `TOKEN`, `TOKEN REVIEWER` or `TOKEN REVIEWER GROUP,GROUP`. A token with a reviewer
stands for that one and no other. A token alone is that of a program which knows its people itself, such as a console:
it says who acts in the header `x-cumulant-user`, as `CUMULANT_USER` does on the command line.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cumulant.core.errors import RefusedError, UsageError
from cumulant.core.system.private_files import check_private
from cumulant.flows.review.service import named
from cumulant.ports.access import Principal
from cumulant.serving.access_token import LEAST
from cumulant.serving.errors import HttpError

USER, GROUPS = b"x-cumulant-user", b"x-cumulant-groups"
_BEARER = ((b"www-authenticate", b"Bearer"),)


class Caller(msgspec.Struct, frozen=True):
    """A token by its hash, and whom it stands for; None: whom its holder names."""

    token: bytes
    principal: Principal | None


def read_callers(path: Path | None, shared: str) -> list[Caller]:
    """The callers of a file; without one the token `shared`, where it is not empty.

    Raises:
        UsageError: the file cannot be read, or says something else.
        RefusedError: other users can read it.
    """
    if path is None:
        return [Caller(_hash(_checked(shared, "CUMULANT_TOKEN")), None)] if shared.strip() else []
    try:
        check_private(path)
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"{path} cannot be read: {told}", subject=str(path)) from None
    rows = [(place, line.split()) for place, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"]
    found = [_caller(words, f"{path}, line {place}") for place, words in rows]
    if not found:
        raise UsageError(f"{path} holds no token", subject=str(path), hint="write a line a reviewer: TOKEN ada")
    if len({one.token for one in found}) < len(found):
        raise UsageError(f"{path} has a token twice", subject=str(path), hint="give each reviewer one of their own")
    return found


def _caller(words: Sequence[str], place: str) -> Caller:
    if len(words) > 3:
        raise UsageError(f"{place}: more than TOKEN REVIEWER GROUP,GROUP", subject=place)
    token = _checked(words[0], place)
    if len(words) == 1:
        return Caller(_hash(token), None)
    groups = tuple(filter(None, words[2].split(","))) if len(words) > 2 else ()
    return Caller(_hash(token), Principal(named(words[1]), groups))


def _checked(token: str, place: str) -> str:
    token = token.strip()
    if len(token) < LEAST or not all(33 <= ord(letter) <= 126 for letter in token):
        # The token itself is not repeated: messages are logged.
        raise UsageError(
            f"{place}: a token is one word of at least {LEAST} ASCII letters, digits and signs", subject=place,
            hint="python -c 'import secrets; print(secrets.token_urlsafe())'",
        )  # fmt: skip
    return token


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Callers:
    """Tells by a request's headers who acts. Without `known` ones, everybody who reaches the address may name anybody;
    who names nobody is `own`, the principal that started the server.
    """

    def __init__(self, known: Sequence[Caller], own: Principal) -> None:
        self._known, self._own = tuple(known), own

    @property
    def guarded(self) -> bool:
        """Whether callers need a token."""
        return bool(self._known)

    def admitted(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request is read at all, by its head."""
        return not self._known or self._found(headers) is not None

    def principal(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Who acts.

        Raises:
            HttpError: 401 without a token that is known; 400 where nobody is named who must be.
            RefusedError: the token stands for somebody else.
        """
        said = _named(headers)
        if not self._known:
            return said or self._own
        caller = self._found(headers)
        if caller is None:
            hint = "send the header Authorization: Bearer TOKEN"
            raise HttpError(401, "this server needs a token", hint=hint, headers=_BEARER)
        if caller.principal is None:
            if said is None:
                raise HttpError(400, "this token is nobody's own", hint="say who acts: x-cumulant-user: ada")
            return said
        if said is not None and (said.name != caller.principal.name or said.groups):
            raise RefusedError(
                f"this token is that of {caller.principal.name}", subject=said.name,
                hint="leave the headers x-cumulant-user and x-cumulant-groups out",
            )  # fmt: skip
        return caller.principal

    def _found(self, headers: Mapping[bytes, bytes]) -> Caller | None:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = hashlib.sha256(token.strip()).digest()
        # All are compared, so that the time tells nothing of which one is near.
        same = [one for one in self._known if hmac.compare_digest(one.token, given)]
        return same[0] if same and scheme.lower() == b"bearer" else None


def _named(headers: Mapping[bytes, bytes]) -> Principal | None:
    try:
        user, groups = (headers.get(name, b"").decode("utf-8").strip() for name in (USER, GROUPS))
        if not user:
            return None
        return Principal(named(user), tuple(filter(None, (one.strip() for one in groups.split(",")))))
    except UnicodeDecodeError:
        raise HttpError(400, "the name of who acts is no UTF-8 text") from None
