"""The log of rows posted to a source since the snapshots, in the order of posting. Needs msgspec only.

Posts of one key are one row: each column keeps its first value. Each update that changed a value is an entry, numbered
from 0; a table of online state records its last entry, so that it can catch up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from cumulant.features.offline.row_identity import key_form
from cumulant.features.online.state import encode
from cumulant.features.posted.log_entries import LogEntries
from cumulant.ports.online import Cells, OnlineStore

Inside = dict[str, Any]
#: the position of rows that no snapshot has; logs of earlier versions of Cumulant have it and more
POSTED = 2**48
#: the keys of entries are in `log_entries`
_HEADER, _ROW = b"\x00", b"\x02"
#: versions of a row that its log keeps after they were replaced: for so many microseconds, and at most so many
KEPT_US, _KEPT = 2 * 86_400_000_000, 16


class PostedRow(NamedTuple):
    """A posted row: its values in inside form, and as posted those of columns that no plan reads yet; without nulls.

    Of a source with corrections, a column posted as null is there as None. A `scored` row, of a request, corrects
    nothing.
    """

    key: bytes
    values: Inside
    other: Inside
    scored: bool = False


class LoggedRow(msgspec.Struct, array_like=True):
    """A row as far as it was posted: its position in the snapshot or `POSTED`, its newest entry, and its values as in
    `PostedRow`. `arrived`: when the newest of them came, in microseconds; rows of earlier versions of Cumulant lack it.

    Of a source with corrections it is the version in force (`row_versions`): known time, arrival and begin in
    microseconds; whether it is a deletion; whether it replaces (`over`) a row of a table's snapshot, and that row's
    known time; `whole`: it restores a deleted row, without values of the table's. `entered`: when the log took it, in
    microseconds; rows of earlier versions of Cumulant lack it. `earlier`: what the log had of the row before, the
    oldest first; `cut`: there was more than that; `varied`: the columns whose values changed with what there was more,
    None where that is not known. `scored`: only requests had it, so that its source may never have sent it; rows of
    earlier versions of Cumulant lack it.
    """

    position: int
    entry: int
    values: Inside
    other: Inside
    known: int | None = None
    arrived: int | None = None
    begins: int | None = None
    deleted: bool = False
    over: bool = False
    over_known: int | None = None
    whole: bool = False
    entered: int | None = None
    earlier: list[LoggedRow] = []
    cut: bool = False
    varied: list[str] | None = None
    scored: bool = False


class _NewRow(msgspec.Struct, array_like=True):
    """What of a `LoggedRow` has a value when it is new: the rest is read as its defaults."""

    position: int
    entry: int
    values: Inside
    other: Inside


class _Header(msgspec.Struct, array_like=True):
    """Entries from `first` on are kept; the next one will be `next`. `begun`: in microseconds, since when no row was
    lost; logs of earlier versions of Cumulant lack it.
    """

    first: int = 0
    next: int = 0
    begun: int | None = None


_decode_record = msgspec.msgpack.Decoder(LoggedRow).decode
_decode_header = msgspec.msgpack.Decoder(_Header).decode


def log_table(scope: str, source: str) -> str:
    """The online table that holds the log of a source."""
    return f"events.{scope}.{source}"


def is_log_of(table: str, source: str) -> bool:
    """Whether a table is a log of the source, of any scope."""
    return table.startswith("events.") and table.endswith(f".{source}")


def row_key(values: Sequence[Any]) -> bytes:
    """The log's key of a row with this key, none of whose values is null."""
    return _ROW + encode(key_form(values))


def key_values(key: bytes) -> list[Any]:
    values: list[Any] = msgspec.msgpack.decode(key[len(_ROW) :])
    return values


class SourceLog:
    """The log of one source inside one update of the store."""

    def __init__(self, cells: Cells, table: str) -> None:
        self._cells, self._table = cells, table
        (blob,) = cells.get(table, [_HEADER])
        self._header = _Header() if blob is None else _decode_header(blob)
        self._records: dict[bytes, LoggedRow | None] = {}
        self._entries = LogEntries(cells, table)
        #: rows to write, or to remove; the header is written with them, or where it alone changed
        self._changed: dict[bytes, None] = {}
        self._is_header_changed = False

    @property
    def first(self) -> int:
        return self._header.first

    @property
    def next(self) -> int:
        return self._header.next

    @property
    def begun(self) -> int | None:
        """Since when no row of the log was lost, in microseconds; None: that is not known."""
        return self._header.begun

    def begin(self, now: int) -> None:
        """Note that a log that knows no such moment begins now, in microseconds: its store may have been emptied."""
        if self._header.begun is None:
            self._header.begun = now
            self._is_header_changed = True

    def note_loss(self, now: int) -> None:
        """Note that the log loses rows now, in microseconds."""
        self._header.begun = max(now, self._header.begun or now)
        self._is_header_changed = True

    def load(self, keys: Iterable[bytes]) -> None:
        """Read the rows of these keys at once."""
        missing = list(dict.fromkeys(key for key in keys if key not in self._records))
        for key, blob in zip(missing, self._cells.get(self._table, missing), strict=True):
            self._records[key] = None if blob is None else _decode_record(blob)

    def record(self, key: bytes) -> LoggedRow | None:
        """A row that was loaded; None where nothing was posted of it."""
        return self._records[key]

    def append(self, row: PostedRow, position: int | None = None, *, arrived: int | None = None) -> bool:
        """Add what is new of a row that was loaded, and came at `arrived`; whether there was anything."""
        key, number = row.key, self._header.next
        record = self._records[key]
        if record is None:
            record = LoggedRow(POSTED if position is None else position, number, row.values, row.other)
            record.scored = row.scored
            self._records[key] = record
        else:
            if not row.scored:
                self.note_sent(key)
            if not _add_columns(record, row):
                return False
        record.entry, record.arrived = number, arrived
        record.entered, record.earlier = None, []
        self._enter(key)
        return True

    def note_sent(self, key: bytes) -> None:
        """Note that its source sent a row that was loaded, of which only requests may have been known."""
        record = self._records[key]
        if record is not None and record.scored:
            record.scored = False
            self._changed[key] = None

    def append_new(self, keys: Sequence[bytes], rows: Sequence[Inside]) -> None:
        """Add rows with these values, which are not null, each of a key of which nothing was posted."""
        first = self._header.next
        self._cells.put(self._table, zip(keys, _encode_new(rows, first), strict=True))
        self._entries.add_all(first, keys)
        self._header.next += len(keys)
        self._is_header_changed = True

    def replace(self, key: bytes, record: LoggedRow, *, now: int) -> None:
        """Let a row take the place of one that was loaded, which is kept as an earlier version for a while.
        `record.entry` is `next`; `now` in microseconds.
        """
        self.begin(now)
        record.entered, record.earlier, record.cut, record.varied = now, [], False, None
        before = self._records[key]
        if before is not None:
            record.earlier, record.cut, record.varied = _versions_until(before, now)
        self._records[key] = record
        self._enter(key)

    def _enter(self, key: bytes) -> None:
        self._entries.add(self._header.next, key)
        self._header.next += 1
        self._changed[key] = None

    def correct(self, key: bytes, values: Inside) -> None:
        """Replace values of a row that was loaded; where nothing was posted of it, nothing happens."""
        record = self._records[key]
        if record is not None:
            record.values = record.values | values
            self._changed[key] = None

    def since(self, mark: int, limit: int) -> tuple[list[tuple[bytes, LoggedRow]], int]:
        """The rows of up to `limit` entries from `mark` on, each once; and where to go on."""
        mark = max(mark, self._header.first)
        end = min(mark + limit, self._header.next)
        keys = dict.fromkeys(self._entries.read(mark, end).values())
        self.load(keys)
        return [(key, record) for key in keys if (record := self._records[key]) is not None], end

    def forget(self, keys: Iterable[bytes], first: int) -> None:
        """Remove rows with their newest entries, and all entries before `first`, which hold no other row's newest."""
        entries = []
        for key in keys:
            record = self._records[key]
            if record is not None:
                entries.append(record.entry)
                self._records[key] = self._changed[key] = None
        self._entries.remove(entries)
        self._entries.remove_before(self._header.first, first)
        self._header.first = max(first, self._header.first)
        self._is_header_changed = True

    def save(self) -> None:
        """Write what changed to the update."""
        if not self._changed and not self._is_header_changed:
            return
        rows: list[tuple[bytes, bytes | None]] = [(_HEADER, encode(self._header)), *self._entries.changed.items()]
        records = ((key, self._records[key]) for key in self._changed)
        rows += [(key, None if record is None else encode(record)) for key, record in records]
        self._cells.put(self._table, rows)


def _versions_until(last: LoggedRow, now: int) -> tuple[list[LoggedRow], bool, list[str] | None]:
    """The versions up to this one that are kept when another one replaces it, whether there were more, and the columns
    that changed with those.
    """
    versions = [*last.earlier, msgspec.structs.replace(last, earlier=[], cut=False, varied=None)]
    ends = [following.entered for following in versions[1:]] + [now]
    lately = [of for of, end in zip(versions, ends, strict=True) if end is None or end > now - KEPT_US][-_KEPT:]
    dropped = len(versions) - len(lately)
    if not dropped:
        return lately, last.cut, last.varied
    if versions[0].entered is None or (last.cut and last.varied is None):
        return lately, True, None
    changed = (_changed_columns(*pair) for pair in pairwise(versions[: dropped + 1]))
    return lately, True, sorted(set(last.varied or ()).union(*changed))


def _changed_columns(before: LoggedRow, after: LoggedRow) -> set[str]:
    values, others = before.other | before.values, after.other | after.values
    return {name for name in values.keys() | others.keys() if values.get(name) != others.get(name)}


def _encode_new(rows: Iterable[Inside], first: int) -> Iterator[bytes]:
    """The blobs of new rows with these values, whose entries begin with this number."""
    row = _NewRow(POSTED, first, {}, {})  # one object for all of them, which the garbage collector need not follow
    for row.entry, row.values in enumerate(rows, first):
        yield encode(row)


def _add_columns(record: LoggedRow, row: PostedRow) -> bool:
    """Add the columns of which nothing was posted; whether there were any."""
    values, other = (
        {
            name: value
            for name, value in new.items()
            if value is not None and record.values.get(name) is None and record.other.get(name) is None
        }
        for new in (row.values, row.other)
    )
    record.values, record.other = record.values | values, record.other | other
    return bool(values or other)


def find_logged(store: OnlineStore, table: str, keys: Callable[[], Sequence[bytes]]) -> tuple[int, list[bool]]:
    """The number of the next entry, and which of the rows the log has; none where it has no row at all."""
    (blob,) = store.get(table, [_HEADER])
    header = _Header() if blob is None else _decode_header(blob)
    if header.first == header.next:
        return header.next, []
    return header.next, [record is not None for record in store.get(table, keys())]


def forget_stored(
    store: OnlineStore,
    table: str,
    stored: Callable[[Cells, list[tuple[bytes, LoggedRow]]], Collection[bytes]],
    *,
    rows: int,
    now: int | None = None,
) -> None:
    """Remove the rows of a log whose keys `stored` returns, in steps of `rows`, and the entries before all others.

    `now`: noted, in microseconds, as the moment of a loss where there are such rows.
    """

    def step(cells: Cells, mark: int, first: int | None) -> tuple[int, int | None, bool]:
        log = SourceLog(cells, table)
        records, end = log.since(mark, rows)
        keys = stored(cells, records)
        others = [record.entry for key, record in records if key not in keys]
        oldest = min(others) if others and first is None else first
        log.forget(keys, end if oldest is None else oldest)
        if keys and now is not None:
            log.note_loss(now)
        log.save()
        return end, oldest, end < log.next

    mark, first, more = 0, None, True
    while more:
        mark, first, more = store.update(partial(step, mark=mark, first=first))
