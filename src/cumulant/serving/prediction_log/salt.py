"""Salt of the hashes of personal values in the prediction log: where it is read, and which models it fits.

It is never an argument, a setting or part of a message: those are visible to every user of the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from pathlib import Path

from cumulant.core.errors import UsageError
from cumulant.core.masking import fingerprint
from cumulant.core.servable import GraphServable, Servable

VARIABLE = "CUMULANT_SALT"
_HINT = f"give the salt of the environment that the model was made for, as {VARIABLE} or with --salt-file FILE"


def read_salts(path: Path | None, environment: MutableMapping[str, str]) -> tuple[bytes, ...]:
    """Possible salts of the file, else of the variable, which is removed from the environment.

    A file may end in a line break: the content with and without it. Empty where neither is given.

    Raises:
        UsageError: the file cannot be read, or is empty.
    """
    variable = environment.pop(VARIABLE, "")
    if path is None:
        return (variable.encode(),) if variable else ()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the salt cannot be read: {error.strerror}", subject=str(path), hint=_HINT) from None
    bare = content.removesuffix(b"\n").removesuffix(b"\r")
    if not bare:
        raise UsageError("the file of the salt is empty", subject=str(path), hint=_HINT)
    return (content,) if bare == content else (content, bare)


def choose_salt(salts: Sequence[bytes], servables: Iterable[Servable | GraphServable]) -> bytes:
    """The salt among `salts` that the servables were built with; empty where none is given.

    Raises:
        UsageError: none of them is.
    """
    known = list(servables)
    for salt in salts:
        if all(salt_fits(servable, fingerprint(salt)) for servable in known):
            return salt
    for servable in known:
        if salts and not any(salt_fits(servable, fingerprint(salt)) for salt in salts):
            raise wrong_salt(servable)
    if salts:
        raise UsageError("the models were made for different salts", hint="serve them by a server each")
    return b""


def salt_fits(servable: Servable | GraphServable, given: str) -> bool:
    """Whether a salt's fingerprint matches the servable's, where both are known."""
    wanted = servable.salt_fingerprint if isinstance(servable, Servable) else ""
    return not wanted or not given or wanted == given


def wrong_salt(servable: Servable | GraphServable) -> UsageError:
    """Error for a salt that does not match."""
    text = f"the salt is not the one that personal values of {servable.name} are hashed with"
    return UsageError(text, subject=servable.name, hint=_HINT)
