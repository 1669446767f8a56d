"""The identity of a state folder: which folder on which machine, to distinguish a copy from the original."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.core.system.json_files import read_json
from cumulant.project.host_name import host_name

_FILE = "identity.json"


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """Where a state folder lies. A copy, also one that took the original's path, has another inode."""

    folder: str
    inode: int
    host: str
    #: None where the folder cannot be read
    device: int | None

    def is_folder(self, other: Home) -> bool:
        """Whether both are one folder, whatever the machine is called."""
        return (self.folder, self.inode) == (other.folder, other.inode)

    def is_moved(self, other: Home) -> bool:
        """Whether both are one folder of a running machine, under whatever path: a move keeps what a copy does not."""
        return self.device is not None and (self.device, self.inode) == (other.device, other.inode)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Identity of a state folder; a copy of the folder has the same, and so is recognized."""

    id: str
    home: Home
    #: the project's folder, as commands of the desired state name it
    root: str
    since: datetime


def home_of(state: Path) -> Home:
    try:
        status = state.stat()
        inode, device = status.st_ino, status.st_dev
    except OSError:
        inode, device = 0, None
    return Home(folder=os.path.realpath(state), inode=inode, host=host_name(), device=device)


def new_identity(state: Path, root: Path) -> Identity:
    """An identity of the folder, which is made if it is missing: it is known by its inode.

    Raises:
        StorageError: the folder cannot be made.
    """
    with storage_errors(state):
        state.mkdir(parents=True, exist_ok=True)
    return Identity(id=uuid.uuid4().hex, home=home_of(state), root=str(root), since=datetime.now(UTC))


def read_identity(state: Path) -> Identity | None:
    """Identity of the folder; None where it has none that can be read."""
    return read_json(state / _FILE, Identity)


def write_identity(state: Path, identity: Identity) -> None:
    """Raises StorageError where the folder cannot be written."""
    path = state / _FILE
    with storage_errors(path):
        replace_file(path, msgspec.json.format(msgspec.json.encode(identity)))


def find_original(identity: Identity, state: Path) -> Path | None:
    """The folder that a copied state came from, where it is still there with the same identity."""
    original = Path(identity.home.folder)
    present = read_identity(original)
    if present is None or present.id != identity.id or is_same_folder(original, state):
        return None
    return original


def is_same_folder(folder: Path, other: Path) -> bool:
    try:
        return folder.samefile(other)
    except OSError:
        return False
