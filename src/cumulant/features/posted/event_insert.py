"""One entity's events, mutable: an event is inserted by when it became known, old ones are removed.

Of an entity with tiles (`online.tiles`) those are read that a change concerns, and those are written that differ.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from cumulant.core.errors import IntegrityError
from cumulant.features.offline.groups import MeasureGroup
from cumulant.features.offline.row_identity import NO_IDENTITY
from cumulant.features.online.state import Events, decode_events, encode
from cumulant.features.online.tiles import (
    TILES,
    EventRange,
    Rank,
    Tile,
    TiledEvents,
    TileRule,
    index_of,
    join,
    rank_at,
)
from cumulant.features.posted.event_columns import EventColumns, GroupEvent
from cumulant.features.posted.event_expiry import latest_dropped
from cumulant.features.posted.identity_index import IdentityIndex, ReadBlobs


class _Part:
    """A stretch of an entity's events: those of a tile as it is stored, or those after all tiles.

    No event before it in the order is as late as `first`. `identities` are those of the stored tile.
    """

    __slots__ = ("changed", "columns", "first", "identities", "tile")

    def __init__(self, tile: Tile | None, first: Rank, columns: EventColumns | None = None) -> None:
        self.tile, self.first, self.columns = tile, first, columns
        self.changed, self.identities = False, b""

    def __len__(self) -> int:
        if self.columns is not None:
            return len(self.columns)
        return 0 if self.tile is None else self.tile.events


#: the rank before all others
_FIRST: Rank = (NO_IDENTITY, NO_IDENTITY, NO_IDENTITY)


def _nothing(keys: Sequence[bytes]) -> list[bytes | None]:
    return [None] * len(keys)


class Entity:
    """The events of one entity of `group`, none where `stored` is None. `read` reads the tiles of `stored`."""

    def __init__(
        self,
        group: MeasureGroup,
        stored: Events | TiledEvents | None,
        *,
        keyed: bool,
        key: bytes = b"",
        read: ReadBlobs = _nothing,
        rule: TileRule = TILES,
    ) -> None:
        self._group, self._keyed, self._key, self._read, self._rule = group, keyed, key, read, rule
        self._dated, self._span_us, self._unlimited = group.orders_by_event_time, group.span_us, group.unlimited
        events = stored.events if isinstance(stored, TiledEvents) else stored
        tiles = stored.tiles if isinstance(stored, TiledEvents) else []
        self._stored = [_Part(tile, tile.first) for tile in tiles]
        first = rank_at(events, 0) if tiles and events is not None else _FIRST
        self._parts = [*self._stored, _Part(None, first, self._columns(events))]
        self._index = IdentityIndex(key, len(tiles), read, rule.seed)
        #: the keys of rows that were placed
        self._placed: set[int] = set()
        #: the keys of rows that were taken out: nothing else has them
        self._removed: set[int] = set()
        self.since = None if events is None else events.since
        self.kept = None if events is None else events.kept

    def prepare(self, events: Iterable[GroupEvent]) -> None:
        """Read at once what placing and removing these events needs."""
        if not self._stored:
            return
        events = [*events]
        parts = {self._part_of(event) for event in events}
        tiles = {part.tile.key(self._key): part for part in parts if part.columns is None and part.tile is not None}
        buckets = self._index.missing(event.identity for event in events)
        if not tiles and not buckets:
            return
        blobs = self._read([*tiles, *buckets])
        for part, blob in zip(tiles.values(), blobs, strict=False):
            self._take(part, blob)
        for bucket, blob in zip(buckets.values(), blobs[len(tiles) :], strict=True):
            self._index.take(bucket, blob)

    def place(self, event: GroupEvent) -> bool | None:
        """Insert the event, or fill nulls of the present row; whether that changed it, None where it was complete."""
        part, at = self._find(event.identity, event)
        if part is not None:
            filled = self._load(part).fill(at, event)
            part.changed |= filled
            return filled or None
        part = self._part_of(event)
        self._load(part).insert(event)
        self._placed.add(event.identity)
        part.changed = True
        return True

    def remove(self, identity: int, near: GroupEvent | None = None) -> bool:
        """Take the row with this key out, which was probably placed as the event `near`; whether it was here."""
        part, at = self._find(identity, near)
        if part is None:
            return False
        self._load(part).remove(at)
        part.changed = True
        self._removed.add(identity)
        return True

    def changed_at(self, moment: int) -> None:
        """A correction or deletion is in force from `moment` on: those before it are answered from what is left."""
        self.since = moment if self.since is None else max(moment, self.since)

    def expire(self, since: int) -> None:
        """Remove what no prediction from `since` on can see; where that is anything, those before it miss it.

        Of an entity with tiles nothing is removed before it is a whole tile.
        """
        if len(self._parts) > 1 and self._parts[1].first[0] > since - self._span_us:
            return
        if self.trim(since):
            self.kept = since if self.kept is None else max(since, self.kept)
            self.since = since if self.since is None else max(since, self.since)

    def trim(self, since: int) -> int:
        """Remove what no prediction from `since` on can see; how many that was."""
        number, gone = self._edge(since)
        count = sum(map(len, self._parts[:number])) + gone
        if self._group.takes_latest_ever and count:
            count -= 1  # the latest of them stays
            if count:
                self._load(self._parts[number]).copy(*self._latest(number, gone), gone)
                self._parts[number].changed = True
        if count:
            self._parts = self._parts[number:]
            if gone:
                self._load(self._parts[0]).cut(gone)
                self._parts[0].changed = True
        return count

    @property
    def identities(self) -> frozenset[int]:
        """The keys of the rows that are here."""
        return frozenset(number for part in self._parts for number in self._load(part).identities or ())

    def second_newest(self, until: int) -> int | None:
        """When the second newest of the events known by `until` became known; None where there are fewer."""
        wanted = 2
        for part in reversed(self._parts):
            if part.columns is None and part.first[0] > until:
                continue
            times = self._load(part).times
            known = bisect_right(times, until)
            if known >= wanted:
                return times[known - wanted]
            wanted -= known
        return None

    @property
    def empty(self) -> bool:
        return not any(map(len, self._parts))

    def rows(self, version: int) -> list[tuple[bytes, bytes | None]]:
        """What the table is to hold of the entity, as far as it differs; written by the change of this number."""
        last = self._parts[-1].columns
        if not self._stored and last is not None and len(last) <= self._rule.limit:
            return [(self._key, encode(last.events(self._since_us, version)))]
        *parts, end = self._divided()
        head = msgspec.structs.replace(self._events(end), since_us=self._since_us, version=version.to_bytes(8, "big"))
        tiles, written, added = [], dict[bytes, bytes | None](), list[bytes]()
        for part in parts:
            if isinstance(part, _Part) and part.tile is not None:
                tiles.append(part.tile)
                continue
            events = msgspec.structs.replace(self._events(part), since_us=None, version=head.version)
            tiles.append(Tile(rank_at(events, 0), len(events.times) // 8, version))
            written[tiles[-1].key(self._key)] = encode(events)
            added.append(events.identities or b"")
        stays = {part.tile for part in parts if isinstance(part, _Part)}
        gone = [part for part in self._stored if part.tile not in stays]
        self._load_all(gone)
        removed = dict.fromkeys(part.tile.key(self._key) for part in gone if part.tile is not None)
        index = self._index.change(b"".join(part.identities for part in gone), b"".join(added), len(tiles))
        blob = encode(TiledEvents(index_of(tiles), head) if tiles else head)
        return [*(removed | written | dict(index)).items(), (self._key, blob)]

    def no_rows(self) -> list[tuple[bytes, bytes | None]]:
        """As `rows`, where nothing is left of the entity."""
        tiles = [part.tile.key(self._key) for part in self._stored if part.tile is not None]
        return [(key, None) for key in (*tiles, *self._index.keys(), self._key)]

    def _divided(self) -> list[_Part | Events]:
        """The events as they are stored: tiles that stay, and the events of others; the last are those of no tile."""
        divided: list[_Part | Events] = []
        if not self._keyed or sum(map(len, self._parts)) <= self._rule.limit:
            self._load_all(self._parts)
            return [_join([self._events(part) for part in self._parts])]
        for part in self._parts:
            if part.tile is not None and not part.changed:
                divided.append(part)
                continue
            events = self._events(part)
            if not events.times:
                continue
            if divided and not self._rule.begins(rank_at(events, 0)[2]):
                events = _join([self._events(divided.pop()), events])
            starts = [*self._rule.starts(events), len(events.times) // 8]
            divided += [EventRange(events, begin, end).cut() for begin, end in itertools.pairwise(starts)]
        return divided

    @property
    def _since_us(self) -> int | tuple[int, int | None] | None:
        return self.since if self.since is None or self.since == self.kept else (self.since, self.kept)

    def _edge(self, since: int) -> tuple[int, int]:
        """How many parts no prediction from `since` on can see, and how many events of the next one."""
        limit = since - self._span_us
        if len(self._parts) == 1 and not self._unlimited:
            return 0, bisect_right(self._load(self._parts[0]).times, limit)
        edge = self._last_until(limit)
        # The first tile may begin with the latest of the events that are gone: that alone is no reason to read it.
        stays = self._parts[edge].first[0] > limit or (self._group.takes_latest_ever and not edge)
        if self._parts[edge].columns is None and stays:
            return 0, 0
        columns = self._load(self._parts[edge])
        gone = edge, bisect_right(columns.times, limit)
        return min(gone, self._newest(since, edge)) if self._unlimited else gone

    def _latest(self, number: int, gone: int) -> tuple[EventColumns, int]:
        """Of the events of so many parts and so many of the next one, the latest by event time: where it is."""
        self._load_all(self._parts[: number + 1])
        parts = [self._load(part) for part in self._parts[: number + 1]]
        counts = [*map(len, parts[:-1]), gone]
        times = np.concatenate(
            [(part.event_times or part.times)[:count] for part, count in zip(parts, counts, strict=True)]
        )
        owners, total = np.zeros(len(times), dtype=np.int64), np.array([len(times)], dtype=np.int64)
        at = int(latest_dropped(owners, times, owners[:1], total)[0][0])
        for part, count in zip(parts, counts, strict=True):
            if at < count:
                return part, at
            at -= count
        raise AssertionError("it is one of them")

    def _newest(self, until: int, edge: int) -> tuple[int, int]:
        """The part and the place in it of the newest event known by `until`; of parts after `edge` any place."""
        for number in range(self._last_until(until), -1, -1):
            part = self._parts[number]
            if number > edge and not part.changed:
                return number, 0
            if at := bisect_right(self._load(part).times, until):
                return number, at - 1
        return 0, 0

    def _last_until(self, moment: int) -> int:
        """The last part that begins by then, or the first one."""
        return max(bisect_right(self._parts, moment, key=lambda part: part.first[0]) - 1, 0)

    def _part_of(self, event: GroupEvent) -> _Part:
        """Where an event belongs."""
        rank = (event.time, event.event_time if self._dated else 0, event.identity)
        return self._parts[max(bisect_right(self._parts, rank, key=lambda part: part.first) - 1, 0)]

    def _find(self, identity: int, near: GroupEvent | None) -> tuple[_Part | None, int]:
        """The part that has the row with this key, and its place there."""
        if not self._keyed or identity == NO_IDENTITY:
            return None, -1
        end = self._parts[-1]
        at = self._load(end).find(identity)
        if at >= 0 or not self._stored:
            return end if at >= 0 else None, at
        if near is None or identity in self._placed or identity in self._removed:
            part, at = self._find_loaded(identity)
            if part is not None or identity in self._removed:
                return part, at
        if near is not None and (at := self._load(part := self._part_of(near)).find(identity)) >= 0:
            return part, at
        if not self._index.may_hold(identity):
            return None, -1
        self._load_all(self._parts)
        return self._find_loaded(identity)

    def _find_loaded(self, identity: int) -> tuple[_Part | None, int]:
        """As `_find`, in the parts that were read."""
        for part in self._parts:
            if part.columns is not None and (at := part.columns.find(identity)) >= 0:
                return part, at
        return None, -1

    def _load(self, part: _Part) -> EventColumns:
        """The events of a part, read where they were not yet."""
        if part.columns is None:
            self._load_all([part])
        assert part.columns is not None
        return part.columns

    def _load_all(self, parts: Iterable[_Part]) -> None:
        missing = {part.tile.key(self._key): part for part in parts if part.tile is not None and part.columns is None}
        for part, blob in zip(missing.values(), self._read([*missing]) if missing else (), strict=True):
            self._take(part, blob)

    def _take(self, part: _Part, blob: bytes | None) -> None:
        """The tile as it was read; as the entity's list names it."""
        try:
            events = None if blob is None else decode_events(blob)
        except msgspec.MsgspecError as error:
            raise _damaged() from error
        stored = None if events is None else (len(events.times) // 8, int.from_bytes(events.version, "big"))
        if events is None or part.tile is None or stored != (part.tile.events, part.tile.version):
            raise _damaged()
        part.columns, part.identities = self._columns(events), events.identities or b""

    def _columns(self, events: Events | None) -> EventColumns:
        return EventColumns(self._group, events, keyed=self._keyed)

    def _events(self, part: _Part | Events) -> Events:
        return self._load(part).events() if isinstance(part, _Part) else part


def _damaged() -> IntegrityError:
    return IntegrityError(
        "a part of the events of an entity is missing or damaged in the online state",
        hint="another program wrote there, or its store is damaged: fill it again",
    )


def _join(parts: Sequence[Events]) -> Events:
    return join([EventRange(events, 0, len(events.times) // 8) for events in parts], like=parts[-1])
