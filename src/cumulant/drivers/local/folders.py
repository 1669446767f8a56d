"""Folders that appear atomically: written to a temporary place, made durable, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import quote, unquote

import msgspec

from cumulant.core.errors import StorageError, UsageError
from cumulant.core.scope import Scope
from cumulant.core.system.atomic_files import sync
from cumulant.core.system.temporary_folders import in_use, remove_abandoned

M = TypeVar("M", bound=msgspec.Struct)

_ASIDE = ".writing"
_SAFE = " =+,@()!~"
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


class FolderStore(Generic[M]):
    """Folders under one root, one per key, each with the name's ending `suffix` and a manifest of the type `kind`.

    The root is the folder of the `scope` in `place`, or `place` itself without one. A key's parts become folders, with
    what a file system may refuse percent-encoded. Temporary folders live in `.writing` under the root; the next writer
    removes those of killed processes.
    """

    def __init__(
        self, place: Path, *, suffix: str, manifest: str, kind: type[M], holds: str, scope: Scope | None = None
    ) -> None:
        self.root = place if scope is None else place / scope.folder
        self._place = place
        self._suffix = suffix
        self._manifest = manifest
        self._kind = kind
        self._holds = holds

    def folder(self, key: str) -> Path:
        """The path of `key`, whether or not it exists. Raises UsageError for an invalid key."""
        parts = key.split("/")
        if not all(parts) or "\0" in key:
            raise UsageError(f'"{key}" cannot name a {self._holds}', subject=key, hint="write parts between slashes")
        names = [_encode(part, self._suffix) for part in parts]
        return self.root.joinpath(*names[:-1], names[-1] + self._suffix)

    def manifest(self, key: str) -> M | None:
        """The folder's manifest; None if `key` does not exist. Raises StorageError where it is damaged."""
        path = self.folder(key) / self._manifest
        try:
            return msgspec.json.decode(path.read_bytes(), type=self._kind)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, f"{self._holds} {key} cannot be read", path) from error
        except msgspec.MsgspecError as error:
            raise StorageError(
                f"{self._holds} {key} is damaged: its {self._manifest} cannot be read",
                subject=key,
                hint="delete it and run again",
            ) from error

    def keys(self, prefix: str = "") -> list[str]:
        keys = []
        for path in self.root.glob(f"**/*{self._suffix}/{self._manifest}"):
            names = path.parent.relative_to(self.root).parts
            if names[0] != _ASIDE:
                last = names[-1].removesuffix(self._suffix)
                keys.append("/".join(unquote(name) for name in (*names[:-1], last)))
        return sorted(key for key in keys if key.startswith(prefix))

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """A folder to fill; on exit without an exception it becomes `key`, unless that exists already.

        Raises:
            StorageError: no space, or the place cannot be written. Nothing is visible then.
        """
        final = self.folder(key)
        with self._aside(key) as aside:
            content = aside / "content"
            content.mkdir()
            yield content
            sync_tree(content)
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                content.rename(final)
            except OSError as error:
                # Another writer of the same content was first: its folder is as good as this one.
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST} or not (final / self._manifest).exists():
                    raise
            sync_folders(final.parent, self._place)

    def delete(self, key: str) -> None:
        """Remove `key` at once for new readers; nothing happens where it does not exist."""
        with self._aside(key) as aside, contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self.folder(key).rename(aside / "deleted")

    @contextmanager
    def _aside(self, key: str) -> Iterator[Path]:
        aside = self.root / _ASIDE / uuid.uuid4().hex
        try:
            self._remove_abandoned()
            aside.mkdir(parents=True)
            with in_use(aside):
                yield aside
        except OSError as error:
            raise storage_error(error, f"{self._holds} {key} cannot be stored", self.root) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _remove_abandoned(self) -> None:
        """Remove the folders of killed writers. A live writer locks its folder."""
        try:
            entries = list(os.scandir(self.root / _ASIDE))
        except FileNotFoundError:
            return
        remove_abandoned(Path(entry.path) for entry in entries)


def link(source: Path, target: Path) -> None:
    """Link an immutable file; copy it if the file system has no hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def sync_tree(folder: Path) -> None:
    """Make every file and folder below `folder` durable."""
    for current, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(current, name))
        sync(Path(current))


def sync_folders(folder: Path, root: Path) -> None:
    """Make the names from `folder` up to `root` durable."""
    while True:
        sync(folder)
        if folder == root or root not in folder.parents:
            return
        folder = folder.parent


def storage_error(error: OSError, what: str, where: Path) -> StorageError:
    """The error `what`, with the system's reason."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    hint = "free some space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "check the folder and its permissions"
    return StorageError(f"{what}: {reason}", subject=str(where), hint=hint)


def _encode(part: str, suffix: str) -> str:
    name = quote(part, safe=_SAFE)
    if name.startswith("."):
        name = "%2E" + name[1:]
    if name.endswith(suffix):
        # A folder `a.parquet` inside would be taken for the table `a`.
        name = name[: -len(suffix)] + suffix.replace(".", "%2E")
    return name
