"""Port `objects`: immutable files and folders under content names (servables, reports, studies)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cumulant.core.refs import ObjectRef


class ObjectStore(Protocol):
    def put(self, key: str, source: Path) -> ObjectRef:
        """Store a file or folder whole; an object that already stands under `key` is kept."""
        ...

    def path(self, key: str) -> Path:
        """A local, read-only path to the object; a remote store fetches it first. Raises NotFoundError."""
        ...

    def find(self, key: str) -> ObjectRef | None: ...

    def keys(self, prefix: str = "") -> list[str]: ...

    def delete(self, key: str) -> None: ...
