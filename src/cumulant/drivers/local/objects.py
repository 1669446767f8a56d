"""The object store on files: immutable files and folders under content names."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec

from cumulant.core.errors import not_found, not_stored
from cumulant.core.ids import tree_digest
from cumulant.core.refs import ObjectRef
from cumulant.core.scope import Scope
from cumulant.drivers.local.folders import FolderStore
from cumulant.drivers.local.location import locate

_MANIFEST = "_object.json"
_DATA = "data"


class ObjectManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `_object.json`: `name` is the file's or folder's own name, in `data/`."""

    key: str
    name: str
    sha256: str
    bytes: int


class FileObjects:
    """An object store in a folder: `file:///path/to/objects`.

    An object keeps its own name (`a/b` from `report.html` is `a/b.object/data/report.html` below the folder of the
    scope). A folder's hash is that of its files' relative paths and hashes; folders without files are not part of it.
    """

    def __init__(self, url: str, *, scope: Scope | None = None) -> None:
        self._folders = FolderStore(
            locate(url).path, suffix=".object", manifest=_MANIFEST, kind=ObjectManifest, holds="object", scope=scope
        )

    def put(self, key: str, source: Path) -> ObjectRef:
        if existing := self.find(key):
            return existing
        if not source.exists():
            raise not_found("file or folder", str(source), ())
        with self._folders.writing(key) as folder:
            copy = folder / _DATA / source.resolve().name
            _copy(source, copy)
            sha256, size = tree_digest(copy)
            manifest = ObjectManifest(key=key, name=copy.name, sha256=sha256, bytes=size)
            (folder / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        # Another writer may have been first.
        return self.find(key) or ObjectRef(key, sha256, size)

    def open(self, key: str) -> AbstractContextManager[Path]:
        manifest = self._folders.manifest(key)
        if manifest is None:
            raise not_stored("object", key)
        return nullcontext(self._folders.folder(key) / _DATA / manifest.name)

    def find(self, key: str) -> ObjectRef | None:
        manifest = self._folders.manifest(key)
        return ObjectRef(key, manifest.sha256, manifest.bytes) if manifest else None

    def keys(self, prefix: str = "") -> list[str]:
        return self._folders.keys(prefix)

    def delete(self, key: str) -> None:
        self._folders.delete(key)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    if source.is_file():
        shutil.copyfile(source, target)
    else:
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        if path.is_file():
            path.chmod(0o444)
