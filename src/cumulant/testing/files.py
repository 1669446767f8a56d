"""Source files in memory."""

from __future__ import annotations

import fnmatch
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

from cumulant.core.errors import DataError
from cumulant.core.ids import digest
from cumulant.ports.files import FileInfo


class MemoryFiles:
    """Bytes by URL. A fetched file is written to a temporary folder, which ends with this object."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.contents = dict(contents)
        folder = tempfile.TemporaryDirectory(prefix="cumulant-files-")
        self._folder = Path(folder.name)
        self._end = weakref.finalize(self, folder.cleanup)

    def list(self, pattern: str) -> list[FileInfo]:
        below = pattern.rstrip("/") + "/"
        urls = [url for url in self.contents if url.startswith(below)]
        literal = [url for url in self.contents if url == pattern]
        urls = urls or literal or [url for url in self.contents if _covers(pattern.split("/"), url.split("/"))]
        return [FileInfo(url, len(self.contents[url]), digest(self.contents[url].hex())) for url in sorted(urls)]

    def fetch(self, file: FileInfo) -> Path:
        if file.url not in self.contents:
            raise DataError(f"source file {file.url} is gone", subject=file.url)
        path = self._folder / digest(file.url)[:12] / file.url.rpartition("/")[2]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.contents[file.url])
        return path


def _covers(patterns: list[str], parts: list[str]) -> bool:
    """Whether the patterns cover the parts one by one; `**` covers any number of them."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return _covers(patterns[1:], parts) or (bool(parts) and _covers(patterns, parts[1:]))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0]) and _covers(patterns[1:], parts[1:])
