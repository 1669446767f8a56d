"""Folders in a bucket that appear atomically, and their copies on this machine.

A folder's files have a unique name; one small record, written last and only if none exists, makes them visible under
the key. An incomplete folder is never visible, and one of many writers wins.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Generic, TypeVar, cast
from urllib.parse import quote, unquote

import msgspec

from cumulant.core.errors import NotFoundError, StorageError, UsageError, not_stored
from cumulant.core.ids import digest
from cumulant.core.refs import ObjectRef, TableRef
from cumulant.core.scope import Scope
from cumulant.drivers.objectstore.bucket import Bucket, open_bucket
from cumulant.drivers.objectstore.copies import DEFAULT_BYTES, Copies, cache_error, parse_store_url
from cumulant.ports.secrets import Secrets

Store = TypeVar("Store")
Ref = TypeVar("Ref", TableRef, ObjectRef)

_RECORD = "_published.json"


class PublishedFolder(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a folder: `files` maps each path in `folder` to its size; `about` is the publisher's own."""

    key: str
    folder: str
    files: dict[str, int]
    about: dict[str, object]


class Publisher:
    """The folders of one kind and scope in a bucket. `suffix` ends each key's name, such as `.table`."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        suffix: str,
        scope: Scope | None = None,
        cache: Path | None = None,
        limit: int = DEFAULT_BYTES,
    ) -> None:
        self._bucket = bucket
        self._suffix = suffix
        self._prefix = "" if scope is None else scope.prefix
        root = cache or Path.home() / ".cache" / "cumulant"
        self._copies = Copies(root / digest([bucket.url, self._prefix, suffix])[:16], limit)

    def find(self, key: str) -> PublishedFolder | None:
        record = self._bucket.read(f"{self._path_of(key)}/{_RECORD}")
        return msgspec.json.decode(record, type=PublishedFolder) if record is not None else None

    def keys(self, prefix: str = "") -> list[str]:
        ending = f"{self._suffix}/{_RECORD}"
        paths = [entry.path for entry in self._bucket.entries(self._prefix) if entry.path.endswith(ending)]
        names = (path.removeprefix(self._prefix).removesuffix(ending) for path in paths)
        keys = ("/".join(map(_decode, name.split("/"))) for name in names)
        return sorted(key for key in keys if key.startswith(prefix))

    def staging(self) -> AbstractContextManager[Path]:
        """A temporary folder to fill and `publish`. Those of killed processes are removed."""
        return self._copies.staging()

    def publish(self, key: str, folder: Path, about: dict[str, object]) -> PublishedFolder:
        """Upload the folder and make it visible; returns the record that `key` then has."""
        base, name = self._path_of(key), uuid.uuid4().hex
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
        published = PublishedFolder(key=key, folder=name, files=sizes, about=about)
        try:
            for path in sizes:
                self._bucket.upload(f"{base}/{name}/{_escape(path)}", folder / path)
        except BaseException:
            self._remove(base, published)
            raise
        # If this fails, the record may be there all the same, so that its files stay.
        if self._bucket.create(f"{base}/{_RECORD}", msgspec.json.encode(published)):
            self._copies.keep(folder, name)
            return published
        self._remove(base, published)
        return self.find(key) or self.publish(key, folder, about)

    def local(self, published: PublishedFolder) -> Path:
        """A copy of the folder on this machine, fetched once; it stays while this object lives."""
        return self._copies.hold(published.folder, lambda folder: self._fetch_all(published, folder))

    def open(self, published: PublishedFolder) -> AbstractContextManager[Path]:
        """As `local`; the copy stays while the block lasts."""
        return self._copies.open(published.folder, lambda folder: self._fetch_all(published, folder))

    def delete(self, key: str) -> None:
        """Remove the folder's record, then its files."""
        published = self.find(key)
        if published is not None:
            base = self._path_of(key)
            self._bucket.delete([f"{base}/{_RECORD}"])
            self._remove(base, published)
            self._copies.discard(published.folder)

    def _remove(self, base: str, published: PublishedFolder) -> None:
        self._bucket.delete([f"{base}/{published.folder}/{_escape(path)}" for path in published.files])

    def _fetch_all(self, published: PublishedFolder, folder: Path) -> None:
        base = f"{self._path_of(published.key)}/{published.folder}"
        for path, size in published.files.items():
            self._fetch(f"{base}/{_escape(path)}", folder / path, size)

    def _fetch(self, path: str, target: Path, size: int) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            complete = self._bucket.download(path, target) and target.stat().st_size == size
        except OSError as error:
            raise cache_error(target.parent, error) from error
        if not complete:
            raise StorageError(
                "a stored file is gone or has another size",
                subject=f"{self._bucket.url}/{path}",
                hint="delete what it belongs to and run again: it is made anew",
            )

    def _path_of(self, key: str) -> str:
        parts = key.split("/")
        if not all(parts):
            raise UsageError(f'"{key}" cannot name a stored thing', subject=key, hint="write parts between slashes")
        names = [_encode(part) for part in parts]
        return self._prefix + "/".join(names) + self._suffix


class PublishedStore(Generic[Store, Ref]):
    """Published folders that the clients of an embedded store read and write, once on this machine.

    Raises, in every method:
        StorageError: the credentials do not allow it, or no space on this machine.
        EngineUnavailableError: the store does not answer.
    """

    noun: ClassVar[str]
    reference: ClassVar[type[TableRef | ObjectRef]]

    def __init__(
        self,
        url: str,
        *,
        embedded: Callable[[Path], Store],
        secrets: Secrets | None = None,
        scope: Scope | None = None,
        bucket: Bucket | None = None,
        cache: Path | None = None,
    ) -> None:
        place = parse_store_url(url)
        self._embedded = embedded
        self._publisher = Publisher(
            bucket or open_bucket(place.address, secrets, region=place.region),
            suffix=f".{self.noun}",
            scope=scope,
            cache=cache,
            limit=place.cache,
        )

    def find(self, key: str) -> Ref | None:
        published = self._publisher.find(key)
        return self._reference(published) if published else None

    def keys(self, prefix: str = "") -> list[str]:
        return self._publisher.keys(prefix)

    def delete(self, key: str) -> None:
        self._publisher.delete(key)

    def _published(self, key: str) -> PublishedFolder:
        published = self._publisher.find(key)
        if published is None:
            raise self._missing(key)
        return published

    def _missing(self, key: str) -> NotFoundError:
        return not_stored(self.noun, key)

    def _reference(self, published: PublishedFolder) -> Ref:
        return cast("Ref", msgspec.convert(published.about | {"key": published.key}, self.reference))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _escape(path: str) -> str:
    return "/".join(_encode(part) for part in path.split("/"))


def _encode(part: str) -> str:
    """A name that every store accepts: letters, digits, `_`, `-`, `.`, and `!` before two hex digits."""
    name = quote(part, safe="").replace("~", "%7E")
    # A dot only inside a name, and none that could be mistaken for a suffix of ours.
    return name.replace(".", "%2E").replace("%", "!")


def _decode(name: str) -> str:
    return unquote(name.replace("!", "%"))
