"""Cache of the entities of one table of online state: decoded once, and again only when they changed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator, Iterable, Sequence

import msgspec

from cumulant.core.errors import EngineUnavailableError, IntegrityError
from cumulant.core.plan import DType
from cumulant.features.online.entity_history import EntityHistory
from cumulant.features.online.entity_reads import (
    ATTEMPTS,
    KnownTiles,
    never_whole,
    open_entity,
    take_tiles,
    unreadable,
)
from cumulant.features.online.state import FORMAT, STATE_KEY, CacheBusyError, TableState, decode_state
from cumulant.ports.online import OnlineStore


def check_state(blob: bytes | None, table: str, fingerprint: str) -> TableState:
    """The state of a table.

    Raises:
        EngineUnavailableError: there is none.
        IntegrityError: it cannot be read, has another format, or was made for other windows and lookups.
    """
    if blob is None:
        raise EngineUnavailableError(
            f'there is no online state in "{table}" yet',
            subject=table,
            hint="serve fills it at its start, up and tick where it is lost; a server that is started by hand takes "
            "--state-table and --scope",
        )
    try:
        state = decode_state(blob)
    except msgspec.MsgspecError as error:
        raise IntegrityError(f'the online state in "{table}" cannot be read', subject=table) from error
    if state.format != FORMAT:
        raise IntegrityError(
            f'the online state in "{table}" has format {state.format}, and this version of Cumulant reads {FORMAT}',
            subject=table,
            hint="cumulant serve, up and tick fill it again from the newest data; posted rows stay",
        )
    if state.fingerprint != fingerprint:
        raise IntegrityError(
            f'the online state in "{table}" was made for other windows and lookups than this model\'s',
            subject=table,
            hint="fill it again with the plan of this model",
        )
    return state


def is_filled(store: OnlineStore, table: str) -> bool:
    """Whether a table was filled, in the format that this version of Cumulant reads."""
    if not store.meta(table):
        return False
    (blob,) = store.get(table, [STATE_KEY])
    try:
        return blob is None or decode_state(blob).format == FORMAT
    except msgspec.MsgspecError:
        return True  # damaged: readers report it


Entities = tuple[TableState, dict[bytes, EntityHistory]]


class EntityCache:
    """Decoded entities of one table, and the state that they belong to."""

    def __init__(
        self,
        store: OnlineStore | None,
        table: str,
        fingerprint: str,
        kinds: Sequence[tuple[DType, ...]],
        limit: int,
    ) -> None:
        self._store, self._table, self._limit = store, table, limit
        self._fingerprint, self._kinds = fingerprint, kinds
        #: None where the table has no such entity
        self._kept: OrderedDict[bytes, EntityHistory | None] = OrderedDict()
        #: at which change of the table each was as it is kept
        self._checked: dict[bytes, int] = {}
        self._bytes = 0
        self._state: TableState | None = None
        self._blob: bytes | None = None
        self._lock = threading.Lock()

    def fetch(self, keys: Iterable[bytes], *, wait: bool = True) -> Entities:
        """The state and the entities that exist, all as they stood at one moment.

        Raises CacheBusyError: another thread reads some now, and `wait` is false.
        """
        store = self._store
        if store is None:
            raise _no_store()
        if not self._lock.acquire(blocking=wait):
            raise CacheBusyError
        try:
            wanted = list(keys)
            now = -1 if self._state is None else self._state.sequence
            changed = [key for key in wanted if self._checked.get(key) != now]
            blobs = store.get(self._table, [STATE_KEY, *changed])
            if self._renew(blobs[0]) and len(changed) < len(wanted):
                changed = wanted
                blobs = store.get(self._table, [STATE_KEY, *changed])
                self._renew(blobs[0])
            if missing := self._keep_all(changed, blobs, {}):
                reads = self._reads(wanted, changed, missing)
                places = next(reads)
                while places:
                    places = reads.send(store.get(self._table, places))
            return self._take(wanted)
        finally:
            self._lock.release()

    async def read(self, keys: Iterable[bytes]) -> Entities:
        """As `fetch`, of a store that is read over a network: everything in one round trip, whatever is cached, since
        a second one would cost more. What did not change is not decoded again; tiles that are not cached are read by
        a second one.
        """
        store, wanted = self._store, list(keys)
        if store is None:
            raise _no_store()
        blobs = await store.read(self._table, [STATE_KEY, *wanted])
        with self._lock:
            self._renew(blobs[0])
            missing = self._keep_all(wanted, blobs, {})
            if not missing:
                return self._take(wanted)
            reads = self._reads(wanted, wanted, missing)
            places = next(reads)
        while True:
            blobs = await store.read(self._table, places)
            with self._lock:
                places = reads.send(blobs)
                if not places:
                    return self._take(wanted)

    def _reads(
        self, wanted: Sequence[bytes], keys: Sequence[bytes], tiles: Sequence[bytes]
    ) -> Generator[list[bytes], Sequence[bytes | None], None]:
        """Yields what must be read at one moment: the entities of `keys` with the tiles that are missing; nothing, once
        all that is wanted is kept as it stood at the moment of the last read.
        """
        known, generation = KnownTiles(), ""
        for _ in range(ATTEMPTS):
            blobs = yield [STATE_KEY, *keys, *tiles]
            renewed = self._renew(blobs[0])
            if self._state is not None and self._state.generation != generation:
                known, generation = KnownTiles(), self._state.generation
            self._take_tiles(known, tiles, blobs[1 + len(keys) :])
            if renewed and len(keys) < len(wanted):
                keys, tiles = wanted, []
                continue
            missing = self._keep_all(keys, blobs, known)
            if not missing:
                yield []
                return
            if not set(missing).isdisjoint(tiles):
                raise unreadable(self._table)
            tiles = missing
        raise never_whole(self._table)

    def _keep_all(self, keys: Sequence[bytes], blobs: Sequence[bytes | None], known: KnownTiles) -> list[bytes]:
        """Keep entities as they were read after the state; the places of missing tiles."""
        assert self._state is not None
        sequence, missing = self._state.sequence, list[bytes]()
        histories, checked = self._kept, self._checked
        for key, blob in zip(keys, blobs[1 : 1 + len(keys)], strict=True):
            old = histories.get(key)
            if blob is None:
                history = None
            elif old is not None and len(blob) == old.size and blob.endswith(old.events.version):
                history = old  # a blob ends with the number of the change that wrote it
            else:
                opened = self._open(key, blob, known, old)
                if isinstance(opened, list):
                    missing += opened
                    continue
                history = opened
            if history is not old or key not in histories:
                self._bytes += _size(key, history) - (_size(key, old) if key in histories else 0)
                histories[key] = history
            checked[key] = sequence
        return missing

    def _take(self, wanted: Sequence[bytes]) -> Entities:
        """The state and the entities that are wanted; the longest unused of the others leave."""
        state = self._state
        assert state is not None
        for key in wanted:
            self._kept.move_to_end(key)
        histories = {key: history for key in wanted if (history := self._kept[key]) is not None}
        while self._bytes > self._limit and self._kept:
            oldest, history = self._kept.popitem(last=False)
            del self._checked[oldest]
            self._bytes -= _size(oldest, history)
        return state, histories

    def _renew(self, blob: bytes | None) -> bool:
        """Take the table's state; whether it is another than before."""
        if blob is not None and blob == self._blob:
            return False
        state = check_state(blob, self._table, self._fingerprint)
        if self._state is None or state.generation != self._state.generation:
            self._kept.clear()
            self._checked.clear()
            self._bytes = 0
        self._state, self._blob = state, blob
        return True

    def _open(
        self, key: bytes, blob: bytes, known: KnownTiles, before: EntityHistory | None
    ) -> EntityHistory | list[bytes]:
        kinds = self._kinds[msgspec.msgpack.decode(key)[0] if len(self._kinds) > 1 else 0]
        try:
            return open_entity(key, blob, kinds, known, before)
        except msgspec.MsgspecError as error:
            raise unreadable(self._table) from error

    def _take_tiles(self, known: KnownTiles, places: Sequence[bytes], blobs: Sequence[bytes | None]) -> None:
        try:
            take_tiles(known, places, blobs)
        except msgspec.MsgspecError as error:
            raise unreadable(self._table) from error


def _no_store() -> EngineUnavailableError:
    return EngineUnavailableError("these features need an online store", hint="give the server an online URL")


def _size(key: bytes, history: EntityHistory | None) -> int:
    return len(key) + (0 if history is None else history.whole_size)
