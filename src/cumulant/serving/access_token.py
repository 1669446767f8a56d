"""Access token of callers, from a file or a variable: arguments are visible to every user of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cumulant.core.errors import UsageError
from cumulant.core.system.private_files import check_private

VARIABLE = "CUMULANT_TOKEN"
#: characters of a token that a server accepts: a shorter one can be guessed
LEAST = 16


def read_token(path: Path | None, environment: Mapping[str, str], *, least: int = LEAST) -> str | None:
    """Token in the file, else in the variable, without surrounding space; None where neither is given.

    A caller sends the token that it was given, so that there `least` is 1.

    Raises:
        UsageError: the file cannot be read or is empty, the token is shorter than `least`, or no header could carry it.
        RefusedError: others can read the file, see `check_private`.
    """
    if path is None:
        token = environment.get(VARIABLE, "").strip()
        return _check_token(token, VARIABLE, least) if token else None
    token = _read(path).strip()
    if not token:
        raise UsageError(f"{path} is empty", subject=str(path))
    return _check_token(token, str(path), least)


class TokenLine(NamedTuple):
    """A line of a file of tokens: `TOKEN`, `TOKEN NAME` or `TOKEN NAME GROUP,GROUP`; without a name it is empty."""

    token: str
    name: str = ""
    groups: tuple[str, ...] = ()


def read_token_lines(path: Path) -> list[TokenLine]:
    """The lines of a file of tokens; empty ones and comments are left out.

    Raises:
        UsageError: the file cannot be read, or has no line, an invalid one, or a token twice.
        RefusedError: others can read it.
    """
    rows = [(f"{path}, line {place}", line.split()) for place, line in enumerate(_read(path).splitlines(), 1)]
    lines = [_token_line(words, place) for place, words in rows if words and not words[0].startswith("#")]
    if not lines:
        raise UsageError(f"{path} holds no token", subject=str(path), hint="write a line a caller: TOKEN ada")
    if len({line.token for line in lines}) < len(lines):
        raise UsageError(f"{path} has a token twice", subject=str(path), hint="give each caller one of their own")
    return lines


def _token_line(words: Sequence[str], place: str) -> TokenLine:
    if len(words) > 3:
        raise UsageError(f"{place}: more than TOKEN NAME GROUP,GROUP", subject=place)
    token, name, groups = (*words, "", "")[:3]
    return TokenLine(_check_token(token, place), name, tuple(filter(None, groups.split(","))))


def _read(path: Path) -> str:
    try:
        check_private(path)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"{path} cannot be read: {reason}", subject=str(path)) from None


def _check_token(token: str, source: str, least: int = LEAST) -> str:
    """The checked token. Messages never contain it, as they are logged."""
    if not all(33 <= ord(letter) <= 126 for letter in token):
        raise UsageError(
            f"the token in {source} holds a space, a line break or a letter that no header carries",
            subject=source,
            hint="use one line of ASCII letters, digits and signs",
        )
    if len(token) < least:
        raise UsageError(
            f"the token in {source} has {len(token)} characters; one of fewer than {least} can be guessed",
            subject=source,
            hint="python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    return token
