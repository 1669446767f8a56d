"""The manifest of an archive: each file with its size and hash, and the head of the event chain."""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from cumulant.core.errors import IntegrityError

FORMAT = 1
#: the last member: an archive that was cut off has none
NAME = "manifest.json"
#: begins the name of every other member
FILES = "files/"
#: letters of a path, bytes of one part of it, and letters of one that an error shows
_LONGEST, _LONGEST_PART, NAMED = 4096, 255, 200
_DRIVE = re.compile("[A-Za-z]:")


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """`path` is relative to the project's folder, with `/` between its parts."""

    path: str
    bytes: int
    sha256: str
    modified_ns: int


class BackupManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`head_seq` and `head_hash` name an event that the journal in the archive holds, or that is its end."""

    format: int = FORMAT
    version: str
    project: str
    environment: str
    created: datetime
    head_seq: int
    head_hash: str
    files: tuple[StoredFile, ...]
    #: what belongs to the project and is not in the archive
    left_out: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def decode_manifest(content: bytes, archive: str) -> BackupManifest:
    """Raises IntegrityError where it is damaged or of a newer format."""
    try:
        manifest = msgspec.json.decode(content, type=BackupManifest)
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            f"{NAME} of the archive cannot be read: {error}", subject=archive, hint="take an older backup"
        ) from None
    if manifest.format != FORMAT:
        raise IntegrityError(
            f"the archive has format {manifest.format}, and this version reads {FORMAT}",
            subject=archive,
            hint=f"restore it with version {manifest.version} of Cumulant",
        )
    return manifest


def check_path(name: str, archive: str) -> str:
    """The path of a member below the project's folder.

    Raises:
        IntegrityError: it leads elsewhere: absolute, with `..`, or in a form that no backup has.
    """
    path = name.removeprefix(FILES)
    if name == path or len(path) > _LONGEST or not is_plain(path):
        raise IntegrityError(
            f"the archive holds {name[:NAMED]!a}, which is no file of a project",
            subject=archive,
            hint="`cumulant backup` does not write such a file: nothing was restored",
        )
    return path


def is_plain(path: str) -> bool:
    """Whether a file can have the path, and it leads below the folder that it is relative to, on every system."""
    if any("\ud800" <= letter <= "\udfff" or letter in "\0\\" for letter in path):
        return False
    return not _DRIVE.match(path) and all(
        part not in ("", ".", "..") and len(part.encode()) <= _LONGEST_PART for part in path.split("/")
    )
