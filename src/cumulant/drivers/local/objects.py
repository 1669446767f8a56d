"""The object store on files: immutable files and folders under content names."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from cumulant.core.errors import StorageError, not_found
from cumulant.core.ids import digest, file_digest
from cumulant.core.refs import ObjectRef
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

    An object keeps its own name (`a/b` from `report.html` is `a/b.object/data/report.html`). A folder's
    hash is that of its files' relative paths and hashes; folders without files are not part of it.
    """

    def __init__(self, url: str) -> None:
        self._folders = FolderStore(locate(url).path, suffix=".object", manifest=_MANIFEST, holds="object")

    def put(self, key: str, source: Path) -> ObjectRef:
        if existing := self.find(key):
            return existing
        if not source.exists():
            raise not_found("file or folder", str(source), ())
        with self._folders.writing(key) as folder:
            copy = folder / _DATA / source.resolve().name
            _copy(source, copy)
            sha256, size = content_digest(copy)
            manifest = ObjectManifest(key=key, name=copy.name, sha256=sha256, bytes=size)
            (folder / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        # Another writer may have been first.
        return self.find(key) or ObjectRef(key, sha256, size)

    def path(self, key: str) -> Path:
        manifest = self._manifest(key)
        if manifest is None:
            raise not_found("object", key, self.keys())
        return self._folders.folder(key) / _DATA / manifest.name

    def find(self, key: str) -> ObjectRef | None:
        manifest = self._manifest(key)
        return ObjectRef(key, manifest.sha256, manifest.bytes) if manifest else None

    def keys(self, prefix: str = "") -> list[str]:
        return self._folders.keys(prefix)

    def delete(self, key: str) -> None:
        self._folders.delete(key)

    def _manifest(self, key: str) -> ObjectManifest | None:
        content = self._folders.manifest(key)
        try:
            return msgspec.json.decode(content, type=ObjectManifest) if content is not None else None
        except msgspec.MsgspecError as error:
            raise StorageError(
                f"object {key} is damaged: its {_MANIFEST} cannot be read", subject=key, hint="delete it and run again"
            ) from error


def content_digest(path: Path) -> tuple[str, int]:
    """The content hash and size in bytes of a file or folder."""
    if path.is_file():
        return file_digest(path), path.stat().st_size
    files = sorted(member for member in path.rglob("*") if member.is_file())
    hashes = {member.relative_to(path).as_posix(): file_digest(member) for member in files}
    return digest(hashes), sum(member.stat().st_size for member in files)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    if source.is_file():
        shutil.copyfile(source, target)
    else:
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        if path.is_file():
            path.chmod(0o444)
