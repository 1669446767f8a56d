"""Port `files`: a user's source files, read only: a path, folder, glob or object-store URL."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec


class FileInfo(msgspec.Struct, frozen=True):
    """One source file. `stamp` changes whenever the content may have changed (mtime and size, or an ETag)."""

    url: str
    bytes: int
    stamp: str


class Files(Protocol):
    def list(self, pattern: str) -> list[FileInfo]:
        """Files that match, sorted by URL; empty where nothing matches."""
        ...

    def fetch(self, file: FileInfo) -> Path:
        """A local path with the file's bytes. Raises DataError where it is gone or unreadable."""
        ...
