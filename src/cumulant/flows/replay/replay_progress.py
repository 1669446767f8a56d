"""How far a replay has come, as a file, so that one that was cut off goes on where it stopped."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import msgspec

from cumulant.core.errors import StorageError

_FILE = "replay.json"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay is of: another one of these begins anew. Times are microseconds since 1970 UTC."""

    model: str
    since: int
    until: int


class Reached(msgspec.Struct, kw_only=True):
    """`id` begins the ids that its requests send. Rows before `sent` were asked for, and `told` labels were posted."""

    asked: Asked
    id: str
    sent: int = 0
    told: int = 0
    #: request ids of answered rows whose labels were not posted yet, by the number of the row
    ids: dict[int, str] = {}


def begin(state: Path, asked: Asked, *, again: bool = False) -> Reached:
    """Where the same replay was cut off, or its beginning."""
    try:
        found = msgspec.json.decode((state / _FILE).read_bytes(), type=Reached)
    except (OSError, msgspec.DecodeError):
        found = None
    if found is None or again or found.asked != asked:
        return Reached(asked=asked, id=f"replay-{secrets.token_hex(4)}")
    return found


def keep(state: Path, reached: Reached) -> None:
    """Write it, whole.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = state / _FILE
    draft = path.with_name(f".{_FILE}.{os.getpid()}")
    try:
        draft.write_bytes(msgspec.json.encode(reached))
        draft.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", subject=str(path)) from None


def forget(state: Path) -> None:
    """The replay has come to its end."""
    with contextlib.suppress(OSError):
        (state / _FILE).unlink()
