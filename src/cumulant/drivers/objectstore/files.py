"""A user's source files in a bucket: an object, a folder or a glob."""

from __future__ import annotations

import fnmatch
import re
import tempfile
from pathlib import Path

from cumulant.core.errors import DataError, StorageError
from cumulant.core.ids import digest
from cumulant.drivers.objectstore.bucket import Bucket, BucketEntry, open_bucket
from cumulant.ports.files import FileInfo
from cumulant.ports.secrets import Secrets

_WILD = re.compile(r"[*?\[]")


class BucketFiles:
    """`s3://bucket` (or gs, az), and patterns that start with it.

    A folder stands for all objects below it, except those with a part that starts with `.` or `_`. `**` spans
    folders. An object that exists is taken literally. Fetched files are cached on this machine by stamp.
    """

    def __init__(
        self, url: str, *, secrets: Secrets | None = None, bucket: Bucket | None = None, cache: Path | None = None
    ) -> None:
        scheme, _, rest = url.partition("://")
        self._base = f"{scheme}://{rest.partition('/')[0]}/"
        self._bucket = bucket or open_bucket(self._base, secrets)
        self._cache = (cache or Path.home() / ".cache" / "cumulant") / "files"

    def list(self, pattern: str) -> list[FileInfo]:
        path = self._path(pattern)
        exact = self._bucket.head(path) if path and not path.endswith("/") else None
        if exact is not None:
            entries = [exact]
        elif _WILD.search(path):
            parts = path.split("/")
            entries = [
                entry for entry in self._bucket.entries(_fixed_folder(path)) if _matches(parts, entry.path.split("/"))
            ]
        else:
            below = f"{path.rstrip('/')}/" if path else ""
            entries = [entry for entry in self._bucket.entries(below) if _is_below(entry, below)]
        files = [FileInfo(f"{self._base}{entry.path}", entry.bytes, entry.stamp) for entry in entries]
        return sorted(files, key=lambda info: info.url)

    def fetch(self, file: FileInfo) -> Path:
        path = self._path(file.url)
        target = self._cache / digest([file.url, file.stamp])[:32] / path.rpartition("/")[2]
        if target.exists():
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._cache.chmod(0o700)
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                aside = Path(folder, "file")
                complete = self._bucket.download(path, aside, stamp=file.stamp)
                if complete:
                    aside.replace(target)
        except OSError as error:
            raise StorageError(
                f"source file {file.url} cannot be kept on this machine: {error.strerror}",
                subject=str(self._cache),
                hint="free some space, or make the folder writable",
            ) from error
        if not complete:
            raise DataError(
                f"source file {file.url} is gone or was changed since it was listed",
                subject=file.url,
                hint="run again when the source is not being written",
            )
        return target

    def _path(self, url: str) -> str:
        if f"{url}/" == self._base:
            return ""
        if not url.startswith(self._base):
            raise DataError(f"{url} is not in {self._base}", subject=url)
        return url.removeprefix(self._base)


def _fixed_folder(pattern: str) -> str:
    """The folders of the pattern before its first wildcard."""
    before = pattern[: match.start()] if (match := _WILD.search(pattern)) else pattern
    return before.rpartition("/")[0]


def _is_below(entry: BucketEntry, below: str) -> bool:
    parts = entry.path.removeprefix(below).split("/")
    return entry.path.startswith(below) and not any(part.startswith((".", "_")) for part in parts)


def _matches(patterns: list[str], parts: list[str]) -> bool:
    """Whether the patterns cover the parts one by one; `**` covers any number of them, hidden ones never."""
    if not patterns or not parts:
        return not parts and all(pattern == "**" for pattern in patterns)
    if patterns[0] == "**":
        return _matches(patterns[1:], parts) or (not parts[0].startswith(".") and _matches(patterns, parts[1:]))
    hidden = parts[0].startswith(".") and not patterns[0].startswith(".")
    return not hidden and fnmatch.fnmatchcase(parts[0], patterns[0]) and _matches(patterns[1:], parts[1:])
