"""The role bindings of a project in a file, for a server: it has no project file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.ids import digest, short
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.ports.access import RoleBinding


def write_bindings(folder: Path, bindings: Sequence[RoleBinding]) -> Path:
    """The file with these bindings, which is named by what it holds.

    Raises:
        StorageError: it cannot be written.
    """
    path = folder / f"bindings-{short(digest(msgspec.to_builtins(bindings)))}.json"
    if not path.exists():
        with storage_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, msgspec.json.encode(bindings), private=True)
    return path


def read_bindings(path: Path | None) -> tuple[RoleBinding, ...]:
    """The bindings in a file; none without one.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    if path is None:
        return ()
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[RoleBinding, ...])
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", subject=str(path)) from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path} holds no role bindings: {error}", subject=str(path)) from None
