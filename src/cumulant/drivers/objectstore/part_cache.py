"""Copies of a log's parts on this machine: private, and of limited size."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cumulant.core.errors import StorageError

#: characters of a copy's name that are its part's; the others are its content's
PREFIX = 32
#: age of a draft whose process was killed
_DRAFT_SECONDS = 900.0


class PartCache:
    """Copies of parts in a folder of this user, at most `limit` bytes; with 0 a copy lasts as long as it is open."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self.limit = folder, limit

    def touch(self, name: str, length: int) -> bool:
        """Whether there is a copy of that name and length, which counts as used now."""
        path = self._folder / name
        with contextlib.suppress(OSError):
            if path.stat().st_size == length:
                os.utime(path)
                return True
        return False

    def open(self, name: str, length: int, fetch: Callable[[Path], None]) -> BinaryIO:
        """The copy of that name, fetched where there is none of `length` bytes (0: of any).

        Raises StorageError, and as `fetch`.
        """
        path = self._folder / name
        with contextlib.suppress(FileNotFoundError), self._errors():
            stream = path.open("rb")
            if length in {0, os.fstat(stream.fileno()).st_size}:
                with contextlib.suppress(FileNotFoundError):  # replaced or evicted meanwhile
                    os.utime(path)
                return stream
            stream.close()
        fetched = self.fetch(name, fetch)
        self.tidy({name})
        return fetched

    def fetch(self, name: str, fetch: Callable[[Path], None]) -> BinaryIO:
        """As `open`, where there is no copy; the caller makes room."""
        with self._errors():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            handle, draft = tempfile.mkstemp(dir=self._folder, prefix=".part-")
            os.close(handle)
        try:
            with self._errors():
                fetch(Path(draft))
                stream = Path(draft).open("rb")  # noqa: SIM115 - the caller closes it
                if self.limit:
                    os.replace(draft, self._folder / name)  # noqa: PTH105
        finally:
            with contextlib.suppress(OSError):
                os.unlink(draft)  # noqa: PTH108
        return stream

    def discard(self, prefix: str) -> None:
        """Delete the copies whose names begin so."""
        with self._errors():
            for path in self._folder.glob(f"{prefix}*"):
                path.unlink(missing_ok=True)

    def discard_other(self, name: str, content: bytes | None) -> bool:
        """Delete the copy of that name where it is not `content`; whether it was not."""
        path = self._folder / name
        with contextlib.suppress(FileNotFoundError), self._errors():
            if path.read_bytes() != content:
                path.unlink()
                return True
        return False

    def tidy(self, names: Collection[str], *, room: int = 0) -> None:
        """Delete the longest unused copies beyond the limit less `room`, drafts of killed processes, and the copies of
        other contents of the parts that have these names.
        """
        parts, now = {name[:PREFIX] for name in names}, time.time()
        copies, gone = [], []
        for entry, status in self._entries():
            draft = entry.name.startswith(".")
            abandoned = draft and now - status.st_mtime > _DRAFT_SECONDS
            superseded = entry.name[:PREFIX] in parts and entry.name not in names
            if abandoned or superseded:
                gone.append(entry.path)
            elif not draft:
                copies.append((status.st_mtime, status.st_size, entry.path))
        total = room
        for _, size, path in sorted(copies, reverse=True):
            total += size
            if total > self.limit:
                gone.append(path)
        for path in gone:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108

    def _entries(self) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._folder):
                with contextlib.suppress(FileNotFoundError):
                    yield entry, entry.stat()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(
                f"copies of the log's parts cannot be kept on this machine: {error.strerror}",
                subject=str(self._folder),
                hint="free some space, make the folder writable, or write ?cache=0 after the log's URL",
            ) from error
