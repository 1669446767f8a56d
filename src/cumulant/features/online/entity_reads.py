"""Reads of an entity whose events are in several blobs, all as they stood at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from cumulant.core.errors import IntegrityError, StorageError
from cumulant.core.plan import DType
from cumulant.features.online.entity_history import EntityHistory, StoredTiles
from cumulant.features.online.state import Events, decode_events
from cumulant.features.online.tiles import EventRange, Tile, decode_entity, join
from cumulant.ports.online import OnlineStore

#: a tile is read again only where it changed since
ATTEMPTS = 100


class KnownTile(NamedTuple):
    """A tile that was read: its size, and where its events are."""

    size: int
    events: EventRange


#: by the place of a tile in the table and its version
KnownTiles = dict[tuple[bytes, int], KnownTile]


def open_entity(
    key: bytes, blob: bytes, kinds: tuple[DType, ...], known: KnownTiles, before: EntityHistory | None
) -> EntityHistory | list[bytes]:
    """The entity with this blob, from tiles that are known or of its history before; where others are needed, where
    they lie.

    Raises:
        msgspec.MsgspecError: the blob is no entity.
    """
    stored = decode_entity(blob)
    if isinstance(stored, Events):
        return EntityHistory(stored, kinds, len(blob))
    newest = EventRange(stored.events, 0, len(stored.events.times) // 8)
    if before is not None and before.tiles.listed == stored.index:
        parts = [EventRange(before.events, 0, before.tiles.events), newest]
        return EntityHistory(join(parts, like=stored.events), kinds, len(blob), before.tiles)
    tiles = stored.tiles
    former = {} if before is None else _tiles_of(before)
    known_tiles = [former.get(tile) or known.get((tile.key(key), tile.version)) for tile in tiles]
    present = [tile for tile in known_tiles if tile is not None]
    if len(present) < len(tiles):
        return [tile.key(key) for tile, of in zip(tiles, known_tiles, strict=True) if of is None]
    stored_tiles = StoredTiles(stored.index, tiles, [tile.size for tile in present], sum(tile.events for tile in tiles))
    events = join([*(tile.events for tile in present), newest], like=stored.events)
    return EntityHistory(events, kinds, len(blob), stored_tiles)


def take_tiles(known: KnownTiles, places: Sequence[bytes], blobs: Sequence[bytes | None]) -> None:
    """Keep tiles that were read.

    Raises:
        msgspec.MsgspecError: one cannot be read.
    """
    for place, blob in zip(places, blobs, strict=True):
        if blob is not None:
            events = decode_events(blob)
            segment = EventRange(events, 0, len(events.times) // 8)
            known[place, int.from_bytes(events.version, "big")] = KnownTile(len(blob), segment)


def read_history(store: OnlineStore, table: str, key: bytes, kinds: tuple[DType, ...]) -> EntityHistory | None:
    """One entity of a table; None where it has none.

    Raises:
        IntegrityError: it cannot be read.
        StorageError: it changed again and again meanwhile.
    """
    places: list[bytes] = []
    for _ in range(ATTEMPTS):
        blob, *of_tiles = store.get(table, [key, *places])
        if blob is None:
            return None
        known: KnownTiles = {}
        try:
            take_tiles(known, places, of_tiles)
            opened = open_entity(key, blob, kinds, known, None)
        except msgspec.MsgspecError as error:
            raise unreadable(table) from error
        if isinstance(opened, EntityHistory):
            return opened
        if not set(opened).isdisjoint(places):
            raise unreadable(table)
        places = [*{*places, *opened}]
    raise never_whole(table)


def unreadable(table: str) -> IntegrityError:
    return IntegrityError(
        f'the events of an entity in the online state "{table}" cannot be read',
        subject=table,
        hint="another program wrote there, or its store is damaged: fill it again",
    )


def never_whole(table: str) -> StorageError:
    return StorageError(f'the online state "{table}" changed again and again while it was read', subject=table)


def _tiles_of(history: EntityHistory) -> dict[Tile, KnownTile]:
    """The tiles of a history."""
    known, begin = dict[Tile, KnownTile](), 0
    for tile, size in zip(history.tiles.tiles, history.tiles.sizes, strict=True):
        known[tile] = KnownTile(size, EventRange(history.events, begin, begin + tile.events))
        begin += tile.events
    return known
