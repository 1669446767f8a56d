"""Identity: an artefact is named by the hash of what made it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

_encode = msgspec.json.Encoder(order="deterministic", enc_hook=str).encode


def canonical(value: object) -> bytes:
    """`value` as JSON with sorted keys and no spaces; equal values give equal bytes."""
    return _encode(value)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, as 64 hexadecimal digits."""
    return hashlib.sha256(_encode(value)).hexdigest()


def short(identity: str) -> str:
    """The first 12 digits: enough to distinguish things on a screen."""
    return identity[:12]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def bytes_digest(content: bytes) -> str:
    """SHA-256 of a file's bytes, as `file_digest`."""
    return hashlib.sha256(content).hexdigest()


def tree_digest(path: Path) -> tuple[str, int]:
    """The content hash and size in bytes of a file or folder."""
    if path.is_file():
        return file_digest(path), path.stat().st_size
    files = sorted(member for member in path.rglob("*") if member.is_file())
    hashes = {member.relative_to(path).as_posix(): file_digest(member) for member in files}
    return digest(hashes), sum(member.stat().st_size for member in files)


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
