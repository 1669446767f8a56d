"""Events of a batch put into many stored entities at once: what `event_insert` does one event after the other.

The stored columns of all entities are joined, events of the batch are put between them, what is too old is cut, and
each entity's bytes are cut out again. Entities that this does not cover are named, for `StateWriter.place`: those that
have tiles or would get them, those that have a row already whose nulls the batch may fill, and those of which nothing
is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from cumulant.features.ingested.batch_events import DTYPES, BatchEvents, ValueColumn, ranges
from cumulant.features.offline.groups import MeasureGroup
from cumulant.features.offline.kernel.timeline import Flags, Ints
from cumulant.features.online.state import Events, Slot, encode, typecode
from cumulant.features.online.tiles import TiledEvents
from cumulant.features.posted.event_expiry import LATE_US, latest_dropped

#: a moment before all others, for none
_NEVER = -(2**63)
_WIDTH = 8
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class MergeRule:
    """What decides beside the events: from when on the table answers, the present moment, the most events of an entity
    without tiles, and the number of the change, in 8 bytes.
    """

    table_since: int | None
    now: int
    limit: int
    version: bytes


@dataclass(frozen=True)
class MergedEntities:
    """`blobs`: of entities that changed; `others`: the places of those that are left to do, with these `events`;
    `added`: the identities of the events that were put into `blobs`.
    """

    blobs: list[tuple[bytes, bytes]]
    others: list[int]
    events: BatchEvents
    added: Ints


def merge_entities(
    group: MeasureGroup, stored: Sequence[Events | TiledEvents | None], batch: BatchEvents, rule: MergeRule
) -> MergedEntities:
    """The entities of a batch after its events. `stored`: as they are, in the order of `batch.keys`."""
    others = np.array([isinstance(events, TiledEvents) for events in stored], dtype=np.bool_)
    plain = [None if events is None or isinstance(events, TiledEvents) else events for events in stored]
    old = _Joined(group, plain)
    repeated = _repeated(old, batch)
    if repeated.any():
        # A row that is there in full changes nothing; another may fill what it lacks.
        whole = repeated & _are_whole(old, batch, repeated)
        others[np.unique(batch.owners[repeated & ~whole])] = True
        batch = batch.take(np.flatnonzero(~repeated | others[batch.owners]))
    others |= old.counts + np.diff(batch.starts) > rule.limit
    merged = _Merged(group, old, batch)
    expiry = _expiry(group, merged, old, batch, rule)
    changed = np.diff(batch.starts) > 0
    others |= changed & (expiry.gone >= merged.counts)
    done = changed & ~others
    blobs = merged.blobs(done, expiry, batch.keys, rule.version)
    added = batch.identities[done[batch.owners]]
    return MergedEntities(blobs, np.flatnonzero(others & changed).tolist(), batch, added)


class _Joined:
    """The columns of stored entities, one entity after the other."""

    def __init__(self, group: MeasureGroup, stored: Sequence[Events | None]) -> None:
        present = [events for events in stored if events is not None]
        counts = [0 if events is None else len(events.times) // _WIDTH for events in stored]
        self.counts = np.array(counts, dtype=np.int64)
        self.starts = np.concatenate(([0], np.cumsum(self.counts)))
        self.times = _integers(events.times for events in present)
        self.identities = _integers(events.identities or b"" for events in present)
        dated = group.orders_by_event_time
        self.event_times = _integers(events.event_times or b"" for events in present) if dated else self.times
        self.values = [_column([events.slots[at] for events in present], kind) for at, kind in _codes(group)]
        self.since = _moments(None if events is None else events.since for events in stored)
        self.kept = _moments(None if events is None else events.kept for events in stored)

    @property
    def owners(self) -> Ints:
        return np.repeat(np.arange(len(self.counts)), self.counts)


def _codes(group: MeasureGroup) -> list[tuple[int, str | None]]:
    return [(at, typecode(kind)) for at, kind in enumerate(group.kinds)]


def _integers(parts: Iterable[bytes]) -> Ints:
    return np.frombuffer(b"".join(parts), dtype=np.int64)


def _moments(values: Iterable[int | None]) -> Ints:
    return np.array([_NEVER if value is None else value for value in values], dtype=np.int64)


def _column(slots: Sequence[Slot], code: str | None) -> ValueColumn:
    if code is None:
        return ValueColumn(None, [text for slot in slots for text in slot.texts or ()])
    data = np.frombuffer(b"".join([slot.data for slot in slots]), dtype=DTYPES[code])
    if all(slot.valid is None for slot in slots):
        return ValueColumn(data)
    flags = b"".join([b"\x01" * (len(slot.data) // _WIDTH) if slot.valid is None else slot.valid for slot in slots])
    return ValueColumn(data, None, np.frombuffer(flags, dtype=np.bool_))


def _named(owners: Ints, identities: Ints) -> pl.Series:
    """A number for each row of each entity: equal ones have equal numbers, others hardly ever."""
    names = identities.view(np.uint64) ^ (owners.astype(np.uint64) * _MIX)
    return pl.Series(names)


def _repeated(old: _Joined, batch: BatchEvents) -> Flags:
    """Events of the batch whose row the entity probably has already."""
    stored, new = _named(old.owners, old.identities), _named(batch.owners, batch.identities)
    hits = stored.is_in(new.implode())
    if not hits.any():
        return np.zeros(len(new), dtype=np.bool_)
    return new.is_in(stored.filter(hits).implode()).to_numpy()


def _are_whole(old: _Joined, batch: BatchEvents, repeated: Flags) -> Flags:
    """Of repeated events those that are certainly stored without a null."""
    whole = np.zeros(len(batch.times), dtype=np.bool_)
    for place in np.flatnonzero(repeated).tolist():
        owner = int(batch.owners[place])
        begin, end = old.starts[owner], old.starts[owner + 1]
        (at,) = np.nonzero(old.identities[begin:end] == batch.identities[place])
        whole[place] = len(at) == 1 and all(column.item(int(begin + at[0])) is not None for column in old.values)
    return whole


class _Merged:
    """Stored and new events together, in the order of the group."""

    def __init__(self, group: MeasureGroup, old: _Joined, batch: BatchEvents) -> None:
        added = np.diff(batch.starts)
        self.counts = old.counts + added
        self.starts = np.concatenate(([0], np.cumsum(self.counts)))
        self._dated = group.orders_by_event_time
        total = int(self.starts[-1])
        before = np.arange(len(old.times)) + np.repeat(self.starts[:-1] - old.starts[:-1], old.counts)
        after = np.arange(len(batch.times)) + np.repeat(self.starts[:-1] + old.counts - batch.starts[:-1], added)
        #: the place among the stored events and then the new ones of each event
        self._from = np.empty(total, dtype=np.int64)
        self._from[before] = np.arange(len(old.times))
        self._from[after] = np.arange(len(batch.times)) + len(old.times)
        event_times = batch.event_times if self._dated else batch.times
        ranks = [(old.times, batch.times), (old.event_times, event_times), (old.identities, batch.identities)]
        self.times, self.event_times, self.identities = (np.concatenate(pair)[self._from] for pair in ranks)
        self._sort(old, added)
        self._values = [_joined(mine, new) for mine, new in zip(old.values, batch.values, strict=True)]

    def _sort(self, old: _Joined, added: Ints) -> None:
        """Put those entities in order whose new events do not all come after the stored ones."""
        both = np.flatnonzero((old.counts > 0) & (added > 0))
        ends = self.times[self.starts[both] + old.counts[both] - 1]
        late = both[self.times[self.starts[both] + old.counts[both]] <= ends]
        if not len(late):
            return
        owners = np.repeat(late, self.counts[late])
        offsets = np.concatenate(([0], np.cumsum(self.counts[late])))
        places = np.arange(offsets[-1]) + np.repeat(self.starts[late] - offsets[:-1], self.counts[late])
        ranks = (self.identities[places], self.event_times[places], self.times[places], owners)
        order = places[np.lexsort(ranks)]
        for column in (self._from, self.times, self.event_times, self.identities):
            column[places] = column[order]

    def keep_latest(self, gone: Ints) -> None:
        """Put the latest of the first `gone` events of each entity in the place of the last of them."""
        owners = np.repeat(np.arange(len(self.counts)), self.counts)
        latest, exists = latest_dropped(owners, self.event_times, self.starts[:-1], gone)
        places = (self.starts[:-1] + gone - 1)[exists]
        for column in (self._from, self.times, self.event_times, self.identities):
            column[places] = column[latest[exists]]

    def blobs(self, done: Flags, expiry: _Expiry, keys: Sequence[bytes], version: bytes) -> list[tuple[bytes, bytes]]:
        """The blobs of these entities, without their events that are gone."""
        times, identities = self.times.tobytes(), self.identities.tobytes()
        event_times = self.event_times.tobytes() if self._dated else None
        columns = [_Packed(column.take(self._from)) for column in self._values]
        gone, since, retained = (numbers.tolist() for numbers in (expiry.gone, expiry.since, expiry.retained))
        bounds, blobs = ranges(self.starts), []
        for at in np.flatnonzero(done).tolist():
            begin, end = bounds[at]
            lo, hi = (begin + gone[at]) * _WIDTH, end * _WIDTH
            events = Events(
                times[lo:hi],
                tuple([column.cut(begin + gone[at], end) for column in columns]),
                identities[lo:hi],
                None if event_times is None else event_times[lo:hi],
                _since_us(since[at], retained[at]),
                version,
            )
            blobs.append((keys[at], encode(events)))
        return blobs


def _since_us(since: int, retained: int) -> int | tuple[int, int | None] | None:
    if since == _NEVER:
        return None
    return since if since == retained else (since, None if retained == _NEVER else retained)


def _joined(stored: ValueColumn, new: ValueColumn) -> ValueColumn:
    if stored.texts is not None:
        return ValueColumn(None, [*stored.texts, *(new.texts or ())])
    assert stored.numbers is not None
    assert new.numbers is not None
    data = np.concatenate((stored.numbers, new.numbers))
    if stored.valid is None and new.valid is None:
        return ValueColumn(data)
    pairs = ((stored.numbers, stored.valid), (new.numbers, new.valid))
    flags = [np.ones(len(part), dtype=np.bool_) if known is None else known for part, known in pairs]
    return ValueColumn(data, None, np.concatenate(flags))


class _Packed:
    """A column as bytes, from which entities are cut."""

    def __init__(self, column: ValueColumn) -> None:
        self._texts = None if column.texts is None else list(column.texts)
        self._data = b"" if column.numbers is None else column.numbers.tobytes()
        self._valid = None if column.valid is None else column.valid.tobytes()

    def cut(self, begin: int, end: int) -> Slot:
        if self._texts is not None:
            return Slot(texts=self._texts[begin:end])
        flags = None if self._valid is None else self._valid[begin:end]
        return Slot(self._data[begin * _WIDTH : end * _WIDTH], None, None if flags is None or 0 not in flags else flags)


@dataclass(frozen=True)
class _Expiry:
    """Of each entity: how many of its events are gone, and `since` and `Events.kept` after that."""

    gone: Ints
    since: Ints
    retained: Ints


def _expiry(group: MeasureGroup, merged: _Merged, old: _Joined, batch: BatchEvents, rule: MergeRule) -> _Expiry:
    """As `event_expiry.expiry_of` and `event_insert.Entity`, of all entities at once."""
    starts, span = merged.starts, group.span_us
    known = _counts(merged.times <= rule.now, starts)
    places = np.maximum(starts[:-1] + known - 2, 0)
    has_second = known >= 2
    second = np.where(has_second, merged.times[places], 0) if len(merged.times) else np.zeros_like(known)
    limit = second - LATE_US
    retained = np.where(has_second & (old.kept != _NEVER), np.minimum(old.kept, limit), _NEVER)
    floor = retained if rule.table_since is None else np.maximum(retained, rule.table_since)
    newest = np.full(len(known), _NEVER, dtype=np.int64)
    with_new = np.diff(batch.starts) > 0
    if with_new.any():
        newest[with_new] = np.maximum.reduceat(batch.first_moments, batch.starts[:-1][with_new])
    since = np.where(has_second & with_new, np.minimum(np.maximum(newest, _NEVER + LATE_US) - LATE_US, limit), _NEVER)
    since = np.where(since > floor, since, _NEVER)

    def unseen(moments: Ints) -> Ints:
        """How many events no prediction from these moments on can see."""
        has_any = moments != _NEVER
        edges = np.where(has_any, moments - np.where(has_any, span, 0), _NEVER)
        count = _counts(merged.times <= np.repeat(edges, merged.counts), starts)
        if group.unlimited:
            until = _counts(merged.times <= np.repeat(moments, merged.counts), starts)
            count = np.minimum(count, np.maximum(until - 1, 0))
        return np.where(has_any, count, 0)

    trimmed = unseen(floor)
    gone = np.maximum(unseen(since), trimmed)
    if group.takes_latest_ever:
        merged.keep_latest(gone)
        gone, trimmed = (np.maximum(count - 1, 0) for count in (gone, trimmed))
    expired = gone > trimmed
    return _Expiry(
        gone,
        np.where(expired, np.maximum(since, old.since), old.since),
        np.where(expired, np.maximum(since, old.kept), old.kept),
    )


def _counts(flags: Flags, starts: Ints) -> Ints:
    """How many flags of each entity are set."""
    sums = np.concatenate(([0], np.cumsum(flags)))
    counts: Ints = sums[starts[1:]] - sums[starts[:-1]]
    return counts
