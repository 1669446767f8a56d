"""Tokens with which a user's programs call servers: a file of the user's own, by the address of the server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cumulant.core.errors import StorageError
from cumulant.core.network.urls import server_address
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.core.system.private_files import check_private

_FILE = "tokens.json"


def saved_token(url: str, environment: Mapping[str, str]) -> str:
    """The saved token for a server; empty without one.

    Raises:
        RefusedError: other users can read the file.
        StorageError: the file cannot be read.
    """
    return _read(_path(environment)).get(_server(url), "")


def save_token(url: str, token: str, environment: Mapping[str, str]) -> Path:
    """Save the token for a server, and return the file; an empty token removes it.

    Raises:
        RefusedError, StorageError: as `saved_token`; the file cannot be written.
    """
    path = _path(environment)
    tokens = _read(path) | {_server(url): token}
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode({key: value for key, value in tokens.items() if value}), private=True)
    return path


def _read(path: Path) -> dict[str, str]:
    try:
        check_private(path, what="the tokens")
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        hint = "delete it, and run `cumulant login` again"
        raise StorageError(f"the saved tokens cannot be read: {error}", subject=str(path), hint=hint) from None


def _path(environment: Mapping[str, str]) -> Path:
    given = environment.get("XDG_CONFIG_HOME", "")
    try:
        base = Path(given) if Path(given).is_absolute() else Path.home() / ".config"
    except RuntimeError:
        raise StorageError("this user has no home folder", hint="set XDG_CONFIG_HOME") from None
    return base / "cumulant" / _FILE


def _server(url: str) -> str:
    return server_address(url.strip()).lower()
