"""The log as a folder of files: `date=DAY/LIFE-FIRST-LAST.parquet`, and small records beside the days."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from cumulant.core.errors import StorageError
from cumulant.core.system.atomic_files import replace_file, sync
from cumulant.core.system.locks import try_lock
from cumulant.drivers.local.location import locate
from cumulant.ports.log import LogBatch, PartInfo, day_folder, days_of, parse_name, parts_after, sort_parts

_DRAFT = ".writing"
#: age in seconds of a draft that is abandoned
_ABANDONED = 3600.0
#: how often a day is listed again that changes meanwhile
_LISTINGS = 100


class FileLog:
    """`file:///folder`. A draft has a hidden name and becomes a part by its renaming."""

    grace = 0.0

    def __init__(self, url: str) -> None:
        self._root = locate(url).path

    @property
    def location(self) -> str:
        return str(self._root)

    def append(self, part: PartInfo) -> AbstractContextManager[BinaryIO]:
        return self._draft(part, _publish)

    def replace(self, part: PartInfo) -> AbstractContextManager[BinaryIO]:
        return self._draft(part, Path.replace)

    @contextmanager
    def _draft(self, part: PartInfo, publish: Callable[[Path, Path], object]) -> Iterator[BinaryIO]:
        final = self._path(part)
        draft = final.with_name(f".{part.name}.{token_hex(4)}{_DRAFT}")
        with self._errors("written", final):
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("wb") as stream:
                    yield stream
                    stream.flush()
                    os.fsync(stream.fileno())
                publish(draft, final)
                sync(final.parent)
            finally:
                with contextlib.suppress(OSError):
                    draft.unlink(missing_ok=True)

    def days(self) -> list[date]:
        with contextlib.suppress(FileNotFoundError), self._errors("read", self._root):
            return days_of(os.listdir(self._root))  # noqa: PTH208 - names are enough
        return []

    def parts(self, day: date) -> list[PartInfo]:
        folder = self._root / day_folder(day)
        for _ in range(_LISTINGS):
            try:
                before = folder.stat().st_mtime_ns
            except (FileNotFoundError, NotADirectoryError):
                return []
            with contextlib.suppress(FileNotFoundError), self._errors("read", folder):
                listed = _list_parts(folder, day)
                # A folder of many files is listed in pieces: a merge meanwhile may hide the rows of all its parts.
                if folder.stat().st_mtime_ns == before:
                    return sort_parts(listed)
        raise StorageError(
            "parts of the log change whenever they are listed",
            subject=str(folder),
            hint="check for a program that writes or deletes files there",
        )

    def read(self, cursor: str = "", *, limit: int | None = None) -> LogBatch:
        return parts_after(self, cursor, limit)

    def open(self, part: PartInfo) -> BinaryIO:
        path = self._path(part)
        with self._errors("read", path):
            return path.open("rb")

    def prefetch(self, parts: Sequence[PartInfo]) -> None:
        pass  # they are read in place

    def delete(self, parts: Sequence[PartInfo]) -> None:
        for part in parts:
            path = self._path(part)
            with self._errors("deleted", path):
                path.unlink(missing_ok=True)

    def delete_day(self, day: date) -> None:
        shutil.rmtree(self._root / day_folder(day), ignore_errors=True)

    def set_aside(self, part: PartInfo) -> None:
        path = self._path(part)
        with contextlib.suppress(FileNotFoundError), self._errors("renamed", path):
            path.rename(path.with_suffix(".damaged"))

    def state(self, name: str) -> bytes | None:
        path = self._root / name
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._errors("read", path):
            return path.read_bytes()
        return None

    def states(self, folder: str) -> list[bytes]:
        names = (path.name for path in (self._root / folder).glob("*") if not path.name.startswith("."))
        contents = (self.state(f"{folder}/{name}") for name in sorted(names))
        return [content for content in contents if content is not None]

    def put_state(self, name: str, content: bytes) -> None:
        path = self._root / name
        with self._errors("written", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content, durable=False)

    def delete_state(self, name: str) -> None:
        path = self._root / name
        with self._errors("deleted", path):
            path.unlink(missing_ok=True)

    @contextmanager
    def maintenance(self) -> Iterator[bool]:
        with contextlib.ExitStack() as stack:
            with self._errors("written", self._root):
                self._root.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((self._root / ".upkeep").open("wb"))
                mine = try_lock(lock.fileno())
            if mine:
                self._remove_abandoned()
            yield mine

    def _remove_abandoned(self) -> None:
        """Delete drafts of ended processes."""
        for draft in self._root.glob(f"date=*/.*{_DRAFT}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - draft.stat().st_mtime > _ABANDONED:
                    draft.unlink()

    def _path(self, part: PartInfo) -> Path:
        return self._root / part.key

    @contextmanager
    def _errors(self, what: str, path: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(
                f"the log cannot be {what}: {error.strerror or error}",
                subject=str(path),
                hint="free some space, or check the folder and its permissions",
            ) from error


def _publish(draft: Path, final: Path) -> None:
    """Give the draft its name, unless another writer was faster."""
    try:
        os.link(draft, final)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not final.exists():
            draft.rename(final)


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    """Of a link that leads nowhere, its own: whoever opens it is told."""
    try:
        return entry.stat()
    except FileNotFoundError:
        return entry.stat(follow_symlinks=False)


def _list_parts(folder: Path, day: date) -> list[PartInfo]:
    """Raises FileNotFoundError: a part vanished meanwhile."""
    parts = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if (name := parse_name(entry.name)) is not None:
                status = _status(entry)
                stamp = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"
                parts.append(PartInfo(day, *name, status.st_size, status.st_mtime, stamp))
    return parts
