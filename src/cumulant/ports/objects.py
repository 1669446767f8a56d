"""Port `objects`: immutable files and folders under content names (servables, reports, studies)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from cumulant.core.refs import ObjectRef


class ObjectStore(Protocol):
    def put(self, key: str, source: Path) -> ObjectRef:
        """Store a file or folder whole; an object that already stands under `key` is kept."""
        ...

    def open(self, key: str) -> AbstractContextManager[Path]:
        """The object as a read-only file or folder of this machine, while the block lasts: the stored one itself, or a
        copy that a remote store fetches first.

        Raises:
            NotFoundError: there is no such object (its `subject` is `key`), or no such store.
        """
        ...

    def find(self, key: str) -> ObjectRef | None: ...

    def keys(self, prefix: str = "") -> list[str]: ...

    def delete(self, key: str) -> None: ...
