"""Objects as files and folders under content names, immutable and visible whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from cumulant.core.errors import StorageError, not_found
from cumulant.core.ids import digest, file_digest
from cumulant.core.refs import ObjectRef
from cumulant.drivers.local.folders import Shelf
from cumulant.drivers.local.location import locate

_MANIFEST = "_object.json"
_DATA = "data"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What `_object.json` holds: `name` is the file's or folder's own name, kept in `data/`."""

    key: str
    name: str
    sha256: str
    bytes: int


class FileObjects:
    """An object store in a folder: `file:///path/to/objects`.

    An object keeps its own name (`a/b` made from `report.html` is `a/b.object/data/report.html`). A folder's
    hash is that of its files' relative paths and hashes; folders without files are not part of it.
    """

    def __init__(self, url: str) -> None:
        self._shelf = Shelf(locate(url).path, suffix=".object", manifest=_MANIFEST, holds="object")

    def put(self, key: str, source: Path) -> ObjectRef:
        if standing := self.find(key):
            return standing
        if not source.exists():
            raise not_found("file or folder", str(source), ())
        with self._shelf.writing(key) as folder:
            copy = folder / _DATA / source.resolve().name
            _copy(source, copy)
            sha256, size = content_digest(copy)
            manifest = Manifest(key=key, name=copy.name, sha256=sha256, bytes=size)
            (folder / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        # Another writer may have been first.
        return self.find(key) or ObjectRef(key, sha256, size)

    def path(self, key: str) -> Path:
        manifest = self._manifest(key)
        if manifest is None:
            raise not_found("object", key, self.keys())
        return self._shelf.folder(key) / _DATA / manifest.name

    def find(self, key: str) -> ObjectRef | None:
        manifest = self._manifest(key)
        return ObjectRef(key, manifest.sha256, manifest.bytes) if manifest else None

    def keys(self, prefix: str = "") -> list[str]:
        return self._shelf.keys(prefix)

    def delete(self, key: str) -> None:
        self._shelf.delete(key)

    def _manifest(self, key: str) -> Manifest | None:
        found = self._shelf.manifest(key)
        try:
            return msgspec.json.decode(found, type=Manifest) if found is not None else None
        except msgspec.MsgspecError as error:
            raise StorageError(
                f"object {key} is damaged: its {_MANIFEST} cannot be read", subject=key, hint="delete it and run again"
            ) from error


def content_digest(path: Path) -> tuple[str, int]:
    """The content hash and size in bytes of a file or folder."""
    if path.is_file():
        return file_digest(path), path.stat().st_size
    files = sorted(found for found in path.rglob("*") if found.is_file())
    hashes = {found.relative_to(path).as_posix(): file_digest(found) for found in files}
    return digest(hashes), sum(found.stat().st_size for found in files)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    if source.is_file():
        shutil.copyfile(source, target)
    else:
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        if path.is_file():
            path.chmod(0o444)
