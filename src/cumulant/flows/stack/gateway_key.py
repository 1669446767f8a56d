"""The key by which the servers of a stack recognize its gateway, new for each supervisor."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from cumulant.core.errors import StorageError
from cumulant.flows.stack.desired_state import FOLDER

_FILE = "gateway.key"
_BYTES = 32


def key_path(state: Path) -> Path:
    """Where the key of a project's stack lies; nothing but the path stands in a command."""
    return state.absolute() / FOLDER / _FILE


def new_key() -> bytes:
    return secrets.token_bytes(_BYTES)


def write_key(state: Path, key: bytes) -> None:
    """Write the key to its file, for its owner alone.

    Raises:
        StorageError: it cannot be written.
    """
    path = key_path(state)
    draft = path.with_name(f".{_FILE}.{os.getpid()}")
    try:
        with suppress(FileNotFoundError):
            if path.read_bytes() == key and not path.stat().st_mode & 0o077:
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:  # noqa: PTH123
            stream.write(key)
        draft.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", subject=str(path)) from None


def remove_key(state: Path) -> None:
    """Nothing of the stack runs any more."""
    with suppress(OSError):
        key_path(state).unlink(missing_ok=True)
