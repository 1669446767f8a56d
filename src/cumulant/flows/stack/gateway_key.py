"""Keys of the gateway: the one by which servers recognize it, new for each supervisor or derived where machines share
it, and the one that callers' keys are hashed with where the project keeps no salt in a file.
"""

from __future__ import annotations

import hmac
import secrets
from contextlib import suppress
from pathlib import Path

from cumulant.core.errors import UsageError
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.flows.stack.desired_state import FOLDER

#: names of files in the stack's folder
GATEWAY_KEY, CALLER_KEY = "gateway.key", "callers.key"
_BYTES = 32
#: of a salt that a key is derived from, at least; as many as of a token of callers
_SALT_BYTES = 16
_LABELS = {GATEWAY_KEY: b"cumulant gateway key", CALLER_KEY: b"cumulant keys of callers"}


def key_path(state: Path, name: str = GATEWAY_KEY) -> Path:
    """The file of a key of a project's stack: commands name the file and never contain the key."""
    return state.absolute() / FOLDER / name


def new_key() -> bytes:
    return secrets.token_bytes(_BYTES)


def shared_key(salt: bytes, name: str = GATEWAY_KEY) -> bytes:
    """The key that all machines of a project have: from the salt that they share.

    Raises:
        UsageError: the salt is so short that it can be guessed, and the gateway's key with it.
    """
    if name == GATEWAY_KEY and len(salt) < _SALT_BYTES:
        raise UsageError(
            f"the salt has {len(salt)} bytes, fewer than {_SALT_BYTES}, and servers would believe whoever guesses it",
            subject="salt",
            hint="make the secret of random bytes: head -c 32 /dev/urandom | base64",
        )
    return hmac.digest(salt, _LABELS[name], "sha256")


def write_key(state: Path, key: bytes, name: str = GATEWAY_KEY) -> None:
    """Write a key to its file, for its owner alone.

    Raises:
        StorageError: it cannot be written.
    """
    path = key_path(state, name)
    with storage_errors(path):
        with suppress(FileNotFoundError):
            if path.read_bytes() == key and not path.stat().st_mode & 0o077:
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, key, private=True)


def remove_keys(state: Path) -> None:
    for name in _LABELS:
        with suppress(OSError):
            key_path(state, name).unlink(missing_ok=True)
