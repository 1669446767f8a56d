"""Entities with many events: the newest are in the entity's blob, the earlier ones in tiles, each a blob of its own.

So a posted row reads and writes the newest events and the tile that it lands in, however many there are. A tile begins
at each event whose identity has a certain remainder, after mixing, so that equal events have equal tiles in whatever
order they came, and a late event changes one of them. Each table mixes with a secret number, its seed: callers choose
the keys of rows, and nobody may choose where tiles begin. Readers join the tiles of an entity (`EntityHistory`).

Writers must know whether a row is there already, in whichever tile. For that the fingerprints of the identities in
tiles lie beside them, divided by their last bits. Readers do not read these.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from cumulant.features.offline.row_identity import NO_IDENTITY
from cumulant.features.online.state import Events, Slot, decode_events, encode

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
#: of identities, sorted
Fingerprints = npt.NDArray[np.uint32]
#: where an event belongs among others: its time of entry, its own time where that decides, its identity
Rank = tuple[int, int, int]

_TILE, _IDENTITIES = b"\x00tile", b"\x00identities"
_pack_rank = struct.Struct(">qqq").pack
_pack_number = struct.Struct(">I").pack
#: what the list of tiles has of one
_TILE_BYTES = 5 * 8
#: tiles whose fingerprints lie together
_TILES_TOGETHER = 2


class Tile(NamedTuple):
    """The rank of its first event, by which it is named, how many it has, and the change that wrote it."""

    first: Rank
    events: int
    version: int

    def key(self, entity: bytes) -> bytes:
        """Where it lies in the table."""
        return _TILE + entity + _pack_rank(*self.first)


class TiledEvents(msgspec.Struct, frozen=True, array_like=True):
    """The blob of an entity with tiles: their list, and the events after them.

    `index` has five whole numbers a tile, as int64 bytes. `events` has `since_us` of the whole entity, and the blob
    ends with its version, as that of an entity without tiles does.
    """

    index: bytes
    events: Events

    @property
    def tiles(self) -> list[Tile]:
        """In the order of their events."""
        numbers = memoryview(self.index).cast("q").tolist()
        columns = [numbers[at::5] for at in range(5)]
        return [
            Tile((time, event_time, identity), count, version)
            for time, event_time, identity, count, version in zip(*columns, strict=True)
        ]


class TileRule(NamedTuple):
    """Entities of more than `limit` events have tiles, of `mean` events on average. `seed` is that of the table: where
    it is 0, a filling chooses one, and writers have it from the table's state.
    """

    limit: int = 512
    mean: int = 512
    seed: int = 0

    def begins(self, identity: int) -> bool:
        """Whether a tile begins at an event of this identity."""
        return bool(self._begins(np.array([identity], dtype=np.int64))[0])

    def starts(self, events: Events) -> list[int]:
        """The positions at which tiles begin; the first event begins one too. Nothing is divided without identities."""
        if events.identities is None:
            return [0]
        identities = np.frombuffer(events.identities, dtype=np.int64)
        begins = self._begins(identities)
        # Rows that share their key and their moments have one place: a tile is named by its first.
        times = [events.times] if events.event_times is None else [events.times, events.event_times]
        same = identities[1:] == identities[:-1]
        for column in times:
            numbers = np.frombuffer(column, dtype=np.int64)
            same &= numbers[1:] == numbers[:-1]
        begins[1:] &= ~same
        begins[:1] = True
        return [int(at) for at in np.flatnonzero(begins)]

    def _begins(self, identities: Ints) -> Flags:
        begins: Flags = (_mixed(identities, self.seed) % np.uint64(self.mean) == 0) & (identities != NO_IDENTITY)
        return begins


TILES = TileRule()
_decode_tiled = msgspec.msgpack.Decoder(TiledEvents).decode
_TILED = encode(TiledEvents(b"", Events(b"", ())))[:1]


def decode_entity(blob: bytes) -> Events | TiledEvents:
    """The blob of an entity. Raises msgspec.MsgspecError: it is none."""
    if blob[:1] != _TILED:
        return decode_events(blob)
    stored = _decode_tiled(blob)
    if len(stored.index) % _TILE_BYTES:
        raise msgspec.ValidationError("the list of tiles has another length")
    return stored


def index_of(tiles: Iterable[Tile]) -> bytes:
    """The list of tiles as `TiledEvents` has it."""
    numbers = [number for tile in tiles for number in (*tile.first, tile.events, tile.version)]
    return np.array(numbers, dtype=np.int64).tobytes()


class EventRange(NamedTuple):
    """The events [begin, end) of `events`."""

    events: Events
    begin: int
    end: int

    def cut(self) -> Events:
        """These events alone."""
        return join([self], like=Events(b"", ()))


def join(segments: Iterable[EventRange], *, like: Events) -> Events:
    """The events of segments one after the other, with `since` and version of `like`."""
    parts = _merged(segments)
    first = parts[0].events
    return Events(
        _joined([part.events.times for part in parts], parts, 8),
        tuple([_joined_slot([part.events.slots[at] for part in parts], parts) for at in range(len(first.slots))]),
        None if first.identities is None else _joined([part.events.identities or b"" for part in parts], parts, 8),
        None if first.event_times is None else _joined([part.events.event_times or b"" for part in parts], parts, 8),
        like.since_us,
        like.version,
    )


def _merged(segments: Iterable[EventRange]) -> list[EventRange]:
    """Neighbours as one, and none without events unless all are."""
    merged: list[EventRange] = []
    for segment in segments:
        last = merged[-1] if merged else None
        if last is not None and last.events is segment.events and last.end == segment.begin:
            merged[-1] = EventRange(last.events, last.begin, segment.end)
        else:
            merged.append(segment)
    return merged


def _joined(columns: Sequence[bytes], parts: Sequence[EventRange], width: int) -> bytes:
    return b"".join(
        [memoryview(column)[part.begin * width : part.end * width] for column, part in zip(columns, parts, strict=True)]
    )


def _joined_slot(slots: Sequence[Slot], parts: Sequence[EventRange]) -> Slot:
    if slots[0].texts is not None:
        texts = [(slot.texts or [])[part.begin : part.end] for slot, part in zip(slots, parts, strict=True)]
        return Slot(texts=[text for of_part in texts for text in of_part] if len(texts) > 1 else texts[0])
    data = _joined([slot.data for slot in slots], parts, 8)
    if all(slot.valid is None for slot in slots):
        return Slot(data)
    flags = [
        b"\x01" * (part.end - part.begin) if slot.valid is None else slot.valid[part.begin : part.end]
        for slot, part in zip(slots, parts, strict=True)
    ]
    valid = b"".join(flags)
    return Slot(data, None, valid if 0 in valid else None)


def entity_rows(key: bytes, events: Events, rule: TileRule) -> Iterator[tuple[bytes, bytes]]:
    """What a table holds of an entity: a blob, and where it has many events, its tiles and their fingerprints."""
    count = len(events.times) // 8
    starts = [0] if count <= rule.limit else rule.starts(events)
    if len(starts) < 2:
        yield key, encode(events)
        return
    tiles = []
    for begin, end in itertools.pairwise(starts):
        of_tile = EventRange(events, begin, end).cut()
        tile = Tile(rank_at(of_tile, 0), end - begin, 0)
        tiles.append(tile)
        yield tile.key(key), encode(of_tile)
    numbers = fingerprints((events.identities or b"")[: starts[-1] * 8], rule.seed)
    for bucket, part in divided(numbers, bucket_count(len(tiles))).items():
        yield bucket_key(key, bucket), part.tobytes()
    yield key, encode(TiledEvents(index_of(tiles), join([EventRange(events, starts[-1], count)], like=events)))


def row_keys(key: bytes, stored: Events | TiledEvents) -> list[bytes]:
    """Where a table holds an entity: its blob, its tiles and their fingerprints."""
    tiles = stored.tiles if isinstance(stored, TiledEvents) else []
    buckets = range(bucket_count(len(tiles)))
    return [*(tile.key(key) for tile in tiles), *(bucket_key(key, bucket) for bucket in buckets), key]


def rank_at(events: Events, at: int) -> Rank:
    """The rank of an event of a source with a key."""
    place = slice(at * 8, at * 8 + 8)
    columns = (events.times, events.event_times, events.identities)
    time, event_time, identity = (
        0 if column is None else int(np.frombuffer(column[place], dtype=np.int64)[0]) for column in columns
    )
    return time, event_time, identity


def bucket_count(tiles: int) -> int:
    """Into how many blobs the fingerprints of so many tiles are divided: a power of two."""
    return 1 << max(-(-tiles // _TILES_TOGETHER) - 1, 0).bit_length() if tiles else 0


def bucket_key(entity: bytes, bucket: int) -> bytes:
    """Where the fingerprints of a bucket lie in the table."""
    return _IDENTITIES + entity + _pack_number(bucket)


def fingerprints(identities: bytes, seed: int) -> Fingerprints:
    """The sorted fingerprints of identities, which are int64 bytes. Rows without a key have none."""
    numbers = np.frombuffer(identities, dtype=np.int64)
    return np.sort((_mixed(numbers[numbers != NO_IDENTITY], seed) >> np.uint64(32)).astype(np.uint32))


def bucket_of(numbers: Fingerprints, buckets: int) -> Fingerprints:
    """In which of so many buckets each fingerprint lies."""
    return numbers & np.uint32(buckets - 1)


def divided(numbers: Fingerprints, buckets: int) -> dict[int, Fingerprints]:
    """Sorted fingerprints by bucket; a bucket without any is left out."""
    if not len(numbers):
        return {}
    of = bucket_of(numbers, buckets)
    order = np.argsort(of, kind="stable")
    names, begins = np.unique(of[order], return_index=True)
    return dict(zip(names.tolist(), np.split(numbers[order], begins[1:]), strict=True))


def _mixed(identities: Ints, seed: int) -> npt.NDArray[np.uint64]:
    """Numbers of 64 bits that look random, one for each identity: the last step of SplitMix64, twice, each after the
    seed, since after one step what differs in few bits of many identities may still show.
    """
    mixed = identities.astype(np.uint64)
    for _ in range(2):
        mixed = mixed ^ np.uint64(seed)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed
