"""Port `log`: append-only records as a set of immutable parts.

A writer appends each part once. The part's name carries the day of its records, the life of its writer, and which of
that life's numbers it holds. Compaction replaces neighbours by one part that covers their numbers; a part that is
covered holds nothing new.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import date
from typing import BinaryIO, NamedTuple, Protocol

import msgspec

from cumulant.core.errors import UsageError

_DATE = "date="
_NAME = re.compile(r"(?P<life>[^.].*)-(?P<first>\d{6,})-(?P<last>\d{6,})\.(?P<suffix>parquet|jsonl)")
#: the day of the parts of a log that is not divided by days
UNDATED = date(1970, 1, 1)


class PartInfo(msgspec.Struct, frozen=True):
    """One part: the numbers `first` to `last` that a life of a writer gave to records of `day` (UTC).

    `suffix` is the format of its content. The rest is known of a part that is stored: its size, seconds since 1970 when
    it was stored, and a stamp that changes when its content may have changed.
    """

    day: date
    life: str
    first: int
    last: int
    suffix: str = "parquet"
    bytes: int = 0
    modified: float = 0.0
    stamp: str = ""

    @property
    def name(self) -> str:
        return part_name(self.life, self.first, self.last, self.suffix)

    @property
    def key(self) -> str:
        """The part's place in its log: `date=DAY/NAME`."""
        return f"{day_folder(self.day)}/{self.name}"

    def covers(self, other: PartInfo) -> bool:
        """Whether the other part holds nothing that is not in this one."""
        within = self.first <= other.first and other.last <= self.last
        same = (self.first, self.last) == (other.first, other.last)
        return self.life == other.life and self.day == other.day and within and not same


class PartName(NamedTuple):
    """The fields of the name of a part."""

    life: str
    first: int
    last: int
    suffix: str


class LogBatch(NamedTuple):
    """Parts after a cursor, in no order of time, and the cursor after them."""

    parts: list[PartInfo]
    cursor: str


class Log(Protocol):
    """A log. Its methods may be called by many threads and processes at once.

    Raises, in every method:
        StorageError: the log cannot be read or written.
        EngineUnavailableError: its store does not answer.
    """

    @property
    def location(self) -> str:
        """Where the log is, for messages."""
        ...

    def append(self, part: PartInfo) -> AbstractContextManager[BinaryIO]:
        """A file to write the part to. It becomes visible, whole and durable, when the block ends without an error.

        A part that already stands under the name is kept: of one name there is one content.
        """
        ...

    def replace(self, part: PartInfo) -> AbstractContextManager[BinaryIO]:
        """A file to write another content of a stored part to, which takes its place when the block ends without an
        error: a reader gets one of the two whole, and cursors and open files stay valid. The stamp changes.

        For the holder of the lease that guards the log's maintenance. It leaves out records that must be erased, and
        keeps the numbers of the others.
        """
        ...

    def days(self) -> list[date]:
        """The days that have parts, oldest first; a store may list one some time longer than its parts."""
        ...

    def parts(self, day: date) -> list[PartInfo]:
        """Every part of a day, those that are covered too, by life, `first` and descending `last`."""
        ...

    def read(self, cursor: str = "", *, limit: int | None = None) -> LogBatch:
        """Parts that hold what was not read by `cursor`, at most `limit`, oldest day first.

        A part is given once, unless compaction has put it together with others that are new: then its records come
        again, which their identity tells.
        """
        ...

    def open(self, part: PartInfo) -> BinaryIO:
        """The part as an open file of this machine. It stays readable when the part is compacted or deleted.

        Its day, life, numbers and suffix are enough, as of a part that was not listed.

        Raises:
            FileNotFoundError: it was compacted or deleted since it was listed.
        """
        ...

    def prefetch(self, parts: Sequence[PartInfo]) -> None:
        """Bring listed parts that will be opened to this machine, several at once, as far as there is room for copies.

        Nothing where parts are read in place. Raises nothing: a part that is gone or cannot be fetched is left out, and
        `open` raises.
        """
        ...

    def delete(self, parts: Sequence[PartInfo]) -> None:
        """Delete parts: covered ones, after compaction."""
        ...

    def delete_day(self, day: date) -> None:
        """Delete all parts of a day, once they are no longer kept."""
        ...

    def set_aside(self, part: PartInfo) -> None:
        """Rename a damaged part, so that it is not listed; its records show as a gap."""
        ...

    def state(self, name: str) -> bytes | None:
        """A small record about the log or a writer, such as `workers/NAME.json`; None where there is none."""
        ...

    def states(self, folder: str) -> list[bytes]:
        """All records below `folder/`."""
        ...

    def put_state(self, name: str, content: bytes) -> None:
        """Replace a record atomically."""
        ...

    def delete_state(self, name: str) -> None: ...

    def maintenance(self) -> AbstractContextManager[bool]:
        """The lease of compaction and retention: true for one process at a time, false for the others.

        Compaction under it deletes the covered parts `grace` seconds after the part that covers them was stored.
        """
        ...

    @property
    def grace(self) -> float:
        """Seconds for which covered parts stay, for readers that list a log in several pages."""
        ...


class LogCursor:
    """Which parts were read: by day and life of a writer, intervals of numbers. Its text is opaque to callers.

    Intervals, as parts of one life may become visible out of order: a recovered one comes late.
    """

    def __init__(self, intervals: dict[str, list[tuple[int, int]]] | None = None) -> None:
        self.intervals = {} if intervals is None else intervals

    @classmethod
    def parse(cls, text: str) -> LogCursor:
        """Raises UsageError: the text is no cursor."""
        try:
            return cls(msgspec.json.decode(text, type=dict[str, list[tuple[int, int]]]) if text else {})
        except msgspec.DecodeError:
            raise UsageError(
                "this text is no cursor of a log", subject=text[:40], hint="leave it out to read from the beginning"
            ) from None

    @property
    def text(self) -> str:
        return msgspec.json.encode(self.intervals).decode()

    def includes(self, part: PartInfo) -> bool:
        """Whether all of the part was read."""
        return any(
            low <= part.first and part.last <= high for low, high in self.intervals.get(f"{part.day}/{part.life}", ())
        )

    def add(self, part: PartInfo) -> None:
        """Record a part that was read."""
        key = f"{part.day}/{part.life}"
        joined: list[tuple[int, int]] = []
        for low, high in sorted([*self.intervals.get(key, ()), (part.first, part.last)]):
            if joined and low <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
            else:
                joined.append((low, high))
        self.intervals[key] = joined

    def forget_before(self, day: date | None) -> None:
        """Drop days before `day`, the oldest one that the log still has; None: it has none."""
        self.intervals = {
            key: spans for key, spans in self.intervals.items() if day is not None and key[:10] >= day.isoformat()
        }


def day_folder(day: date) -> str:
    """Where the parts of a day are, below the log: `date=DAY`."""
    return f"{_DATE}{day}"


def days_of(folders: Iterable[str]) -> list[date]:
    """The days whose folders are among these names, oldest first."""
    days = []
    for folder in folders:
        if folder.startswith(_DATE):
            with suppress(ValueError):
                days.append(date.fromisoformat(folder.removeprefix(_DATE)))
    return sorted(days)


def part_name(life: str, first: int, last: int, suffix: str = "parquet") -> str:
    return f"{life}-{first:06d}-{last:06d}.{suffix}"


def parse_name(name: str) -> PartName | None:
    """The fields of the name of a part; None where it is no part's: of a draft, or a journal."""
    match = _NAME.fullmatch(name)
    return None if match is None else PartName(match["life"], int(match["first"]), int(match["last"]), match["suffix"])


def sort_parts(parts: Iterable[PartInfo]) -> list[PartInfo]:
    """Parts of a day by life, `first` and descending `last`: a covering one comes before those that it covers."""
    return sorted(parts, key=lambda part: (part.life, part.first, -part.last))


def split_covered(parts: Iterable[PartInfo]) -> tuple[list[PartInfo], list[PartInfo]]:
    """The current parts, and those that are covered by others."""
    lives = defaultdict(list)
    for part in parts:
        lives[part.day, part.life].append(part)
    current: list[PartInfo] = []
    covered: list[PartInfo] = []
    for of_life in lives.values():
        # Wider ones come first at the same beginning, and no two overlap by half.
        newest: PartInfo | None = None
        for part in sort_parts(of_life):
            if newest is not None and newest.covers(part):
                covered.append(part)
            else:
                newest = part
                current.append(part)
    return current, covered


def current_parts(log: Log, since: date | None = None, until: date | None = None) -> list[PartInfo]:
    """The parts that hold the records of the days `since` to `until`, each record once, oldest day first.

    Raises:
        StorageError, EngineUnavailableError: as `Log`.
    """
    days = [since] if since is not None and since == until else log.days()
    return [
        part
        for day in days
        if (since is None or day >= since) and (until is None or day <= until)
        for part in split_covered(log.parts(day))[0]
    ]


def parts_after(log: Log, cursor: str, limit: int | None) -> LogBatch:
    """`Log.read` by lists of a log's parts, for drivers whose store has no cursors of its own."""
    position = LogCursor.parse(cursor)
    fresh: list[PartInfo] = []
    oldest: date | None = None
    for day in log.days():
        current, _ = split_covered(log.parts(day))
        if oldest is None and current:
            oldest = day
        new = (part for part in current if not position.includes(part))
        fresh += sorted(new, key=lambda part: (part.life, part.first))
        if limit is not None and len(fresh) >= limit:
            fresh = fresh[:limit]
            break
    position.forget_before(oldest)
    for part in fresh:
        position.add(part)
    return LogBatch(fresh, position.text)
