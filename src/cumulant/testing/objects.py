"""Objects in a temporary folder: their port gives local paths, so memory alone cannot hold them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from cumulant.core.errors import UsageError, not_found, not_stored
from cumulant.core.ids import digest, tree_digest
from cumulant.core.refs import ObjectRef
from cumulant.core.scope import Scope


class MemoryObjects:
    """Objects by key; they end with this object."""

    def __init__(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="cumulant-objects-")
        self._folder = Path(folder.name)
        self._end = weakref.finalize(self, folder.cleanup)
        self._objects: dict[str, tuple[ObjectRef, Path]] = {}
        self._scopes: dict[str, MemoryObjects] = {}

    def of(self, scope: Scope) -> MemoryObjects:
        """The same store as a client of `scope` sees it."""
        return self._scopes.setdefault(scope.prefix, MemoryObjects())

    def put(self, key: str, source: Path) -> ObjectRef:
        if not all(key.split("/")):
            raise UsageError(f'"{key}" cannot name an object', subject=key)
        if standing := self.find(key):
            return standing
        if not source.exists():
            raise not_found("file or folder", str(source), ())
        copy = self._folder / digest(key) / source.name
        copy.parent.mkdir()
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy)
        reference = ObjectRef(key, *tree_digest(copy))
        self._objects[key] = (reference, copy)
        return reference

    def open(self, key: str) -> AbstractContextManager[Path]:
        if key not in self._objects:
            raise not_stored("object", key)
        return nullcontext(self._objects[key][1])

    def find(self, key: str) -> ObjectRef | None:
        entry = self._objects.get(key)
        return entry[0] if entry else None

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(key for key in self._objects if key.startswith(prefix))

    def delete(self, key: str) -> None:
        entry = self._objects.pop(key, None)
        if entry:
            shutil.rmtree(entry[1].parent)
