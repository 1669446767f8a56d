"""The key by which servers recognize the gateway: new for each supervisor, or derived where machines share it."""

from __future__ import annotations

import hmac
import secrets
from contextlib import suppress
from pathlib import Path

from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.flows.stack.desired_state import FOLDER

_FILE = "gateway.key"
_BYTES = 32
_LABEL = b"cumulant gateway key"


def key_path(state: Path) -> Path:
    """Where the key of a project's stack lies; nothing but the path stands in a command."""
    return state.absolute() / FOLDER / _FILE


def new_key() -> bytes:
    return secrets.token_bytes(_BYTES)


def shared_key(salt: bytes) -> bytes:
    """The key that all machines of a project have: from the salt that they share."""
    return hmac.digest(salt, _LABEL, "sha256")


def write_key(state: Path, key: bytes) -> None:
    """Write the key to its file, for its owner alone.

    Raises:
        StorageError: it cannot be written.
    """
    path = key_path(state)
    with storage_errors(path):
        with suppress(FileNotFoundError):
            if path.read_bytes() == key and not path.stat().st_mode & 0o077:
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, key, private=True)


def remove_key(state: Path) -> None:
    with suppress(OSError):
        key_path(state).unlink(missing_ok=True)
