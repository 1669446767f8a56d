"""The token that callers send: from a file or a variable, never from an argument, which every user could read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cumulant.core.errors import UsageError

VARIABLE = "CUMULANT_TOKEN"


def read_token(path: Path | None, environment: Mapping[str, str]) -> str | None:
    """The token in the file, else in the variable; None where neither is given. Space around it is none of its own.

    Raises:
        UsageError: the file cannot be read or is empty, or the token could not be sent in a header.
    """
    if path is None:
        return _checked(environment.get(VARIABLE, "").strip(), VARIABLE) or None
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"{path} cannot be read: {told}", subject=str(path)) from None
    if not token:
        raise UsageError(f"{path} is empty", subject=str(path))
    return _checked(token, str(path))


def _checked(token: str, source: str) -> str:
    if all(33 <= ord(letter) <= 126 for letter in token):
        return token
    hint = "use one line of ASCII letters, digits and signs"
    raise UsageError(f"the token in {source} holds a space, a line break or a letter that no header carries",
                     subject=source, hint=hint)  # fmt: skip
