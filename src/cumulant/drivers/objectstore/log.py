"""The log in a bucket: a part is an object that is created once; copies on this machine are bounded and private.

`date=DAY/LIFE-FIRST-LAST.parquet` is a part, `workers/NAME.json` a small record, `.maintenance/NUMBER` a turn of
compaction and retention, which has ended where `NUMBER.ended` stands beside it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from cumulant.core.errors import StorageError
from cumulant.core.ids import digest
from cumulant.drivers.objectstore.bucket import Bucket, open_bucket
from cumulant.drivers.objectstore.copies import parse_store_url
from cumulant.ports.log import LogBatch, PartInfo, day_folder, days_of, parse_name, parts_after, sort_parts
from cumulant.ports.secrets import Secrets

_TURNS, _ENDED = ".maintenance", ".ended"
_CACHE_BYTES = 1 << 30
#: parts that are fetched at once
_FETCHES = 16
#: seconds after which the turn of a process that no longer answers is over, by the clock of the one that waits
_TURN_SECONDS = 900.0
#: ended turns that stay, so that a process with an old list takes no number again
_TURNS_KEPT = 16
#: characters of a copy's name that are its part's
_PREFIX = 32


class BucketLog:
    """`s3://bucket/folder`, `gs://...`, `az://...`. Parts are fetched whole when they are opened.

    `?cache=256MiB` bounds the copies on this machine (default 1 GiB, the longest unused go first); `?cache=0` keeps
    none.

    Raises, in every method:
        StorageError: the credentials do not allow it, or no space on this machine.
        EngineUnavailableError: the store does not answer.
    """

    #: a list is read in pages, and other machines may be slow
    grace = 300.0

    def __init__(
        self,
        url: str,
        *,
        secrets: Secrets | None = None,
        bucket: Bucket | None = None,
        cache: Path | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        place = parse_store_url(url, cache=_CACHE_BYTES)
        self._bucket = bucket or open_bucket(place.address, secrets, region=place.region)
        root = cache or Path.home() / ".cache" / "cumulant"
        limit = place.cache if cache_bytes is None else cache_bytes
        self._cache = _PartCache(root / digest([self._bucket.url, "log"])[:16], limit)
        self._seen: tuple[int, float] | None = None

    @property
    def location(self) -> str:
        return self._bucket.url.rstrip("/")

    @contextmanager
    def append(self, part: PartInfo) -> Iterator[BinaryIO]:
        with tempfile.TemporaryFile() as stream:
            yield cast("BinaryIO", stream)
            stream.seek(0)
            # Where an answer is lost the store is asked again, and the part is there: it is ours, or the same.
            self._bucket.create(part.key, stream.read())

    @contextmanager
    def replace(self, part: PartInfo) -> Iterator[BinaryIO]:
        with tempfile.TemporaryFile() as stream:
            yield cast("BinaryIO", stream)
            stream.seek(0)
            self._bucket.replace(part.key, stream.read())
        self._cache.discard(_copy_prefix(part))

    def days(self) -> list[date]:
        return days_of(self._bucket.folders())

    def parts(self, day: date) -> list[PartInfo]:
        return sort_parts(
            PartInfo(day, *name, entry.bytes, entry.modified, entry.stamp)
            for entry in self._bucket.entries(day_folder(day))
            if (name := parse_name(entry.path.rpartition("/")[2])) is not None
        )

    def read(self, cursor: str = "", *, limit: int | None = None) -> LogBatch:
        return parts_after(self, cursor, limit)

    def open(self, part: PartInfo) -> BinaryIO:
        if not part.stamp:  # a copy may be of a part that was deleted since
            entry = self._bucket.head(part.key)
            if entry is None:
                raise FileNotFoundError(part.key)
            part = msgspec.structs.replace(part, bytes=entry.bytes, modified=entry.modified, stamp=entry.stamp)

        return self._cache.open(_copy_name(part), part.bytes, partial(self._fetch, part))

    def prefetch(self, parts: Sequence[PartInfo]) -> None:
        wanted, size = [], 0
        for part in parts:
            size += part.bytes
            if size <= self._cache.limit // 2 and not self._cache.has(_copy_name(part), part.bytes):
                wanted.append(part)
        if len(wanted) > 1:
            with ThreadPoolExecutor(min(_FETCHES, len(wanted)), "cumulant-log-parts") as pool:
                list(pool.map(self._copy, wanted))

    def _copy(self, part: PartInfo) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.open(part).close()

    def _fetch(self, part: PartInfo, target: Path) -> None:
        if not self._bucket.download(part.key, target):
            raise FileNotFoundError(part.key)

    def delete(self, parts: Sequence[PartInfo]) -> None:
        self._bucket.delete([part.key for part in parts])

    def delete_day(self, day: date) -> None:
        self._bucket.delete([entry.path for entry in self._bucket.entries(day_folder(day))])

    def set_aside(self, part: PartInfo) -> None:
        # A crash of this machine may have damaged the copy that was read, and nothing else.
        if not self._cache.discard_other(_copy_name(part), self._bucket.read(part.key)):
            self._bucket.rename(part.key, f"{part.key.removesuffix(f'.{part.suffix}')}.damaged")

    def state(self, name: str) -> bytes | None:
        return self._bucket.read(name)

    def states(self, folder: str) -> list[bytes]:
        contents = (self._bucket.read(entry.path) for entry in self._bucket.entries(folder))
        return [content for content in contents if content is not None]

    def put_state(self, name: str, content: bytes) -> None:
        self._bucket.replace(name, content)

    def delete_state(self, name: str) -> None:
        self._bucket.delete([name])

    @contextmanager
    def maintenance(self) -> Iterator[bool]:
        number = self._take_turn()
        try:
            yield number is not None
        finally:
            if number is not None:
                self._bucket.create(f"{_turn(number)}{_ENDED}", b"")

    def _take_turn(self) -> int | None:
        """The number of the next turn, where the newest one has ended or its process no longer answers."""
        names = self._turn_names()
        newest = _newest(names)
        if newest and f"{_turn(newest)}{_ENDED}" not in names and not self._is_over(newest):
            return None
        number = newest + 1
        if not self._bucket.create(_turn(number), uuid.uuid4().bytes):
            return None
        after = self._turn_names()
        if _newest(after) > number:  # the list was old: others have had this number and the next ones
            return None
        self._bucket.delete([name for name in after if _number(name) <= number - _TURNS_KEPT])
        return number

    def _turn_names(self) -> list[str]:
        return [entry.path for entry in self._bucket.entries(_TURNS)]

    def _is_over(self, number: int) -> bool:
        """Whether this process has seen the turn for so long that whoever had it is gone."""
        now = time.monotonic()
        if self._seen is None or self._seen[0] != number:
            self._seen = (number, now)
        return now - self._seen[1] >= _TURN_SECONDS


class _PartCache:
    """Copies of parts in a folder of this user, at most `limit` bytes; with 0 a copy lasts as long as it is open."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self.limit = folder, limit

    def has(self, name: str, length: int) -> bool:
        """Whether there is a copy of that name and length."""
        with contextlib.suppress(OSError):
            return (self._folder / name).stat().st_size == length
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
        with self._errors():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            handle, draft = tempfile.mkstemp(dir=self._folder, prefix=".part-")
            os.close(handle)
        try:
            fetch(Path(draft))
            with self._errors():
                stream = open(draft, "rb")  # noqa: PTH123, SIM115 - the caller closes it
                if self.limit:
                    os.replace(draft, path)  # noqa: PTH105
                    self.discard(name[:_PREFIX], but=name)  # of a content that was replaced
        finally:
            with contextlib.suppress(OSError):
                os.unlink(draft)  # noqa: PTH108
        self._evict()
        return stream

    def discard(self, prefix: str, *, but: str = "") -> None:
        """Delete the copies whose names begin so, but that one."""
        with self._errors():
            for path in self._folder.glob(f"{prefix}*"):
                if path.name != but:
                    path.unlink(missing_ok=True)

    def discard_other(self, name: str, content: bytes | None) -> bool:
        """Delete the copy of that name where it is not `content`; whether it was not."""
        path = self._folder / name
        with contextlib.suppress(FileNotFoundError), self._errors():
            if path.read_bytes() != content:
                path.unlink()
                return True
        return False

    def _evict(self) -> None:
        """Delete the longest unused copies beyond the limit, and drafts of killed processes."""
        copies = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._folder):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    copies.append((status.st_mtime, status.st_size, entry.path, entry.name.startswith(".")))
        total = 0
        for used, taken, path, draft in sorted(copies, reverse=True):
            if draft:
                gone = time.time() - used > _TURN_SECONDS
            else:
                total += taken
                gone = total > self.limit
            if gone:
                with contextlib.suppress(OSError):
                    os.unlink(path)  # noqa: PTH108

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


def _copy_name(part: PartInfo) -> str:
    return f"{_copy_prefix(part)}{digest(part.stamp)[:16]}"


def _copy_prefix(part: PartInfo) -> str:
    """How the names of the copies of a part begin, whatever its content."""
    return digest(part.key)[:_PREFIX]


def _turn(number: int) -> str:
    return f"{_TURNS}/{number:012d}"


def _number(name: str) -> int:
    text = name.rpartition("/")[2].removesuffix(_ENDED)
    return int(text) if text.isdigit() else 0


def _newest(names: Sequence[str]) -> int:
    return max(map(_number, names), default=0)
