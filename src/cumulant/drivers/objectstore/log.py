"""The log in a bucket: a part is an object that is created once; copies on this machine are bounded and private.

`date=DAY/LIFE-FIRST-LAST.parquet` is a part, `workers/NAME.json` a small record, `.maintenance/NUMBER` a turn of
compaction and retention, which has ended where `NUMBER.ended` stands beside it.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.ids import digest
from cumulant.drivers.objectstore.bucket import Bucket, open_bucket
from cumulant.drivers.objectstore.copies import parse_store_url
from cumulant.drivers.objectstore.part_cache import PREFIX, PartCache
from cumulant.ports.log import LogBatch, PartInfo, day_folder, days_of, parse_name, parts_after, sort_parts
from cumulant.ports.secrets import Secrets

_TURNS, _ENDED = ".maintenance", ".ended"
_CACHE_BYTES = 1 << 30
#: parts that are fetched at once
_FETCHES = 16
#: of the parts that are fetched at once, so that they need no more memory than this; a larger part is fetched alone
_FETCH_BYTES = 64 << 20
#: seconds after which the turn of a process that no longer answers is over, by the clock of the one that waits
_TURN_SECONDS = 900.0
#: ended turns that stay, so that a process with an old list takes no number again
_TURNS_KEPT = 16


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
        self._cache = PartCache(root / digest([self._bucket.url, "log"])[:16], limit)
        self._seen: tuple[int, float] | None = None

    @property
    def location(self) -> str:
        return self._bucket.url.rstrip("/")

    @contextmanager
    def append(self, part: PartInfo) -> Iterator[BinaryIO]:
        with tempfile.TemporaryFile() as stream:
            yield cast("BinaryIO", stream)
            stream.seek(0)
            # Where an answer is lost the request is repeated, and the part is there: it is ours, or the same.
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
        wanted, room = [], self._cache.limit // 2
        for part in parts:
            if self._cache.touch(_copy_name(part), part.bytes):
                room -= part.bytes
            elif 0 < part.bytes <= room:
                room -= part.bytes
                wanted.append(part)
        if len(wanted) < 2:
            return
        self._cache.tidy({_copy_name(part) for part in wanted}, room=sum(part.bytes for part in wanted))
        # A part that cannot be fetched is reported when it is opened: those before it can be read.
        with (
            contextlib.suppress(CumulantError),
            ThreadPoolExecutor(min(_FETCHES, len(wanted)), "cumulant-log-parts") as pool,
        ):
            for group in _split(wanted, _FETCH_BYTES):
                list(pool.map(self._copy, group))

    def _copy(self, part: PartInfo) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._cache.fetch(_copy_name(part), partial(self._fetch, part)).close()

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


def _split(parts: Sequence[PartInfo], size: int) -> Iterator[list[PartInfo]]:
    """The parts in their order, in groups of at most `size` bytes; a larger part is alone."""
    group: list[PartInfo] = []
    room = size
    for part in parts:
        if group and part.bytes > room:
            yield group
            group, room = [], size
        group.append(part)
        room -= part.bytes
    if group:
        yield group


def _copy_name(part: PartInfo) -> str:
    return f"{_copy_prefix(part)}{digest(part.stamp)[:16]}"


def _copy_prefix(part: PartInfo) -> str:
    """How the names of the copies of a part begin, whatever its content."""
    return digest(part.key)[:PREFIX]


def _turn(number: int) -> str:
    return f"{_TURNS}/{number:012d}"


def _number(name: str) -> int:
    text = name.rpartition("/")[2].removesuffix(_ENDED)
    return int(text) if text.isdigit() else 0


def _newest(names: Sequence[str]) -> int:
    return max(map(_number, names), default=0)
