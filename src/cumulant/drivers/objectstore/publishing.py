"""Folders in a bucket that appear whole or not at all, and their copies on this machine.

A folder's files lie under a name of their own; one small record, written last and only where none stands, makes
them visible under the key. Nobody ever sees a half-written one, and of many writers one wins.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from cumulant.core.errors import StorageError, UsageError
from cumulant.core.ids import digest
from cumulant.core.system.temporary_folders import DAY, in_use, remove_abandoned
from cumulant.drivers.objectstore.bucket import Bucket

_RECORD = "_published.json"
_STAGING = ".writing-"


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """The record: `folder` holds the files, by path with their size; `about` is the publisher's own."""

    key: str
    folder: str
    files: dict[str, int]
    about: dict[str, object]


class Publisher:
    """The folders of one kind in a bucket. `suffix` ends each key's name, such as `.table`."""

    def __init__(self, bucket: Bucket, *, suffix: str, cache: Path | None = None) -> None:
        self._bucket = bucket
        self._suffix = suffix
        root = cache or Path.home() / ".cache" / "cumulant"
        self._cache = root / digest([bucket.url, suffix])[:16]

    def find(self, key: str) -> Published | None:
        found = self._bucket.read(f"{self._place(key)}/{_RECORD}")
        return msgspec.json.decode(found, type=Published) if found is not None else None

    def keys(self, prefix: str = "") -> list[str]:
        ending = f"{self._suffix}/{_RECORD}"
        paths = [entry.path for entry in self._bucket.entries() if entry.path.endswith(ending)]
        keys = ("/".join(map(_decode, path.removesuffix(ending).split("/"))) for path in paths)
        return sorted(key for key in keys if key.startswith(prefix))

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder to fill and then `publish`; it is gone afterwards. What killed processes left is removed."""
        with ExitStack() as stack:
            try:
                self._cache.mkdir(parents=True, exist_ok=True)
                # The cache is below the user's home, which several machines may mount.
                remove_abandoned(self._cache.glob(f"{_STAGING}*"), after=DAY)
                folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self._cache))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                stack.enter_context(in_use(folder))
            except OSError as error:
                raise _no_cache(self._cache, error) from error
            yield folder

    def publish(self, key: str, folder: Path, about: dict[str, object]) -> Published:
        """Upload the folder and make it visible; gives what stands under `key` afterwards."""
        place, name = self._place(key), uuid.uuid4().hex
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
        published = Published(key=key, folder=name, files=sizes, about=about)
        try:
            for path in sizes:
                self._bucket.upload(f"{place}/{name}/{_escape(path)}", folder / path)
            won = self._bucket.create(f"{place}/{_RECORD}", msgspec.json.encode(published))
        except BaseException:
            self._remove(place, published)
            raise
        if won:
            self._keep(folder, name)
            return published
        self._remove(place, published)
        return self.find(key) or self.publish(key, folder, about)

    def local(self, published: Published) -> Path:
        """A copy of the folder on this machine, fetched once."""
        target = self._cache / published.folder
        if target.is_dir():
            return target
        with self.staging() as folder:
            place = f"{self._place(published.key)}/{published.folder}"
            for path, size in published.files.items():
                self._fetch(f"{place}/{_escape(path)}", folder / path, size)
            self._keep(folder, published.folder)
        return target

    def delete(self, key: str) -> None:
        """Hide the folder at once, then remove its files."""
        published = self.find(key)
        if published is not None:
            place = self._place(key)
            self._bucket.delete([f"{place}/{_RECORD}"])
            self._remove(place, published)
            shutil.rmtree(self._cache / published.folder, ignore_errors=True)

    def _remove(self, place: str, published: Published) -> None:
        self._bucket.delete([f"{place}/{published.folder}/{_escape(path)}" for path in published.files])

    def _fetch(self, path: str, target: Path, size: int) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            whole = self._bucket.download(path, target) and target.stat().st_size == size
        except OSError as error:
            raise _no_cache(self._cache, error) from error
        if not whole:
            raise StorageError(
                "a stored file is gone or has another size",
                subject=f"{self._bucket.url}/{path}",
                hint="delete what it belongs to and run again: it is made anew",
            )

    def _keep(self, folder: Path, name: str) -> None:
        # Another process may have fetched the same meanwhile.
        target = self._cache / name
        if not target.is_dir():
            try:
                folder.rename(target)
            except OSError as error:
                if not target.is_dir():
                    raise _no_cache(self._cache, error) from error

    def _place(self, key: str) -> str:
        parts = key.split("/")
        if not all(parts):
            raise UsageError(f'"{key}" cannot name a stored thing', subject=key, hint="write parts between slashes")
        names = [_encode(part) for part in parts]
        return "/".join(names) + self._suffix


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _escape(path: str) -> str:
    return "/".join(_encode(part) for part in path.split("/"))


def _encode(part: str) -> str:
    """A name that every store takes as it is: letters, digits, `_`, `-`, `.`, and `!` before two hex digits."""
    name = quote(part, safe="").replace("~", "%7E")
    # A dot only inside a name, and none that could be mistaken for a suffix of ours.
    return name.replace(".", "%2E").replace("%", "!")


def _decode(name: str) -> str:
    return unquote(name.replace("!", "%"))


def _no_cache(cache: Path, error: OSError) -> StorageError:
    return StorageError(
        f"copies of stored things cannot be kept on this machine: {error.strerror}",
        subject=str(cache),
        hint="free some space, or make the folder writable",
    )
