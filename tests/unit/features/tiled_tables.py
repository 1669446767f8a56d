"""Tables whose entities have tiles, as tests compare them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cumulant.features.online.state import STATE_KEY, Events, decode_events, decode_state
from cumulant.features.online.tiles import (
    EventRange,
    Tile,
    TiledEvents,
    TileRule,
    decode_entity,
    entity_rows,
    index_of,
    join,
    row_keys,
)
from cumulant.testing.online import MemoryOnline

#: entities of three events and more are divided, nearly at every second one, at the same in every table
SMALL = TileRule(limit=2, mean=2, seed=1)
#: every entity is one blob
WHOLE = TileRule(limit=10**9)


def is_entity(key: bytes) -> bool:
    return not key.startswith(b"\x00")


def rows_of(store: MemoryOnline, table: str = "t") -> dict[bytes, bytes]:
    """The rows of a table without its state and versions of rows, and without the numbers of changes."""
    rows = store._tables[table]
    result = {key: blob for key, blob in rows.items() if key.startswith(b"\x00identities")}
    result |= {key: _unnumbered(decode_events(blob)) for key, blob in rows.items() if key.startswith(b"\x00tile")}
    for key, blob in rows.items():
        if is_entity(key):
            stored = decode_entity(blob)
            if isinstance(stored, TiledEvents):
                tiles = index_of(Tile(tile.first, tile.events, 0) for tile in stored.tiles)
                head = msgspec.structs.replace(stored.events, version=bytes(8))
                result[key] = msgspec.msgpack.encode(TiledEvents(tiles, head))
            else:
                result[key] = _unnumbered(stored)
    return result


def events_of(store: MemoryOnline, table: str = "t") -> dict[bytes, Events]:
    """The events of every entity, tiles and all, without the numbers of changes."""
    rows, events = store._tables[table], {}
    for key in filter(is_entity, rows):
        stored = decode_entity(rows[key])
        if isinstance(stored, TiledEvents):
            parts = [*(decode_events(rows[tile.key(key)]) for tile in stored.tiles), stored.events]
            segments = [EventRange(part, 0, len(part.times) // 8) for part in parts]
            stored = join(segments, like=stored.events)
        events[key] = msgspec.structs.replace(stored, version=bytes(8))
    return events


def check_form(store: MemoryOnline, rule: TileRule, table: str = "t") -> int:
    """The table has each entity as its events alone determine it, and nothing else; how many have tiles."""
    expected: dict[bytes, bytes] = {}
    rule = rule._replace(seed=decode_state(store._tables[table][STATE_KEY]).seed)
    for key, events in events_of(store, table).items():
        expected |= dict(entity_rows(key, events, rule))
    assert rows_of(store, table) == expected
    _check_versions(store, table)
    return sum(isinstance(decode_entity(blob), TiledEvents) for key, blob in expected.items() if is_entity(key))


def _check_versions(store: MemoryOnline, table: str) -> None:
    """Each tile has the version that its entity names, and nothing lies beside the entities."""
    rows = store._tables[table]
    named: set[bytes] = {STATE_KEY, *(key for key in rows if key.startswith(b"\x00row"))}
    for key in filter(is_entity, rows):
        stored = decode_entity(rows[key])
        named |= {*row_keys(key, stored)}
        for tile in stored.tiles if isinstance(stored, TiledEvents) else ():
            assert int.from_bytes(decode_events(rows[tile.key(key)]).version, "big") == tile.version
    assert rows.keys() <= named


def tiles_of(store: MemoryOnline, keys: Iterable[bytes], table: str = "t") -> list[list[Tile]]:
    blobs = [decode_entity(blob) for blob in store.get(table, [*keys]) if blob is not None]
    return [stored.tiles if isinstance(stored, TiledEvents) else [] for stored in blobs]


def _unnumbered(events: Events) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(events, version=bytes(8)))
