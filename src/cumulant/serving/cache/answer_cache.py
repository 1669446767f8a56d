"""Prediction cache in memory, used while it saves time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Literal

import msgspec

from cumulant.servable.engine import Array

Raw = list[Array]

#: longer inputs are stored by their hash
_LONG = 128
#: lookups until the hits are evaluated, and requests of a pause
_TRIAL, _PAUSE = 1000, 20_000
#: seconds of a lookup and of storing an answer, as measured on a 2-core machine; errs on the high side
_LOOKUP = 4e-6
#: bytes of an entry besides its key and arrays
_ENTRY = 300


class Caching(msgspec.Struct, frozen=True, kw_only=True):
    """`auto`: on while hits save more time than lookups cost. Bytes are of one model version in one process."""

    mode: Literal["auto", "on", "off"] = "auto"
    limit: int = 32 * 1024 * 1024
    #: seconds
    ttl: float = 300.0


class AnswerCache:
    """Cache of an engine's outputs by its inputs, stored features included; least recently used entries leave first."""

    def __init__(self, caching: Caching) -> None:
        self._bounds = caching
        self._entries: OrderedDict[bytes, tuple[float, int, Raw]] = OrderedDict()
        self._bytes = 0
        self._pending_runs: dict[bytes, asyncio.Future[Raw]] = {}
        self.hits = self.misses = 0
        self._trial_hits = self._trial_lookups = 0
        self._pause = 0

    def key(self, feeds: Mapping[str, Array], seconds: float) -> bytes | None:
        """Cache key of a request whose run would take `seconds`; None while caching does not pay."""
        if self._bounds.mode == "off":
            return None
        if self._bounds.mode == "auto":
            if self._pause:
                self._pause -= 1
                return None
            if self._trial_lookups >= _TRIAL and not self._pays(seconds):
                return None
        return key_of(feeds)

    def get_stale(self, feeds: Mapping[str, Array]) -> Raw | None:
        """Cached outputs for these inputs, however old."""
        key = key_of(feeds)
        entry = None if key is None else self._entries.get(key)
        return None if entry is None else entry[2]

    def _pays(self, seconds: float) -> bool:
        """Whether hits of this trial saved more time than all lookups took; otherwise caching pauses."""
        if self._trial_hits * seconds < self._trial_lookups * _LOOKUP:
            self._pause = _PAUSE
            self._entries.clear()
            self._bytes = 0
        self._trial_hits = self._trial_lookups = 0
        return not self._pause

    def get(self, key: bytes) -> Raw | None:
        """Cached outputs for `key`, unless expired."""
        self._trial_lookups += 1
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        born, size, raw = entry
        if time.monotonic() - born > self._bounds.ttl:
            del self._entries[key]
            self._bytes -= size
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        self._trial_hits += 1
        return raw

    def put(self, key: bytes, raw: Sequence[Array]) -> None:
        """Store outputs, unless they are larger than the whole cache."""
        # A slice of a larger batch would keep all of it.
        copies = [array if array.base is None else array.copy() for array in raw]
        if any(array.dtype.hasobject for array in copies):
            return
        size = len(key) + _ENTRY + sum(array.nbytes for array in copies)
        if size > self._bounds.limit:
            return
        for array in copies:
            array.flags.writeable = False
        old = self._entries.pop(key, None)
        self._bytes += size - (old[1] if old else 0)
        self._entries[key] = (time.monotonic(), size, copies)
        while self._bytes > self._bounds.limit:
            _, (_, freed, _) = self._entries.popitem(last=False)
            self._bytes -= freed

    def put_shared(self, key: bytes, raw: Sequence[Array]) -> None:
        """Store outputs from the shared cache, and count them as a hit."""
        self._trial_hits += 1
        self.put(key, raw)

    def pending_run(self, key: bytes) -> asyncio.Future[Raw] | None:
        """Pending run of the same inputs."""
        return self._pending_runs.get(key)

    def add_pending_run(self, key: bytes, future: asyncio.Future[Raw]) -> None:
        """Register a pending run, so that equal requests wait for it."""
        self._pending_runs[key] = future

        def finish(done: asyncio.Future[Raw]) -> None:
            if self._pending_runs.get(key) is done:
                del self._pending_runs[key]
            if not done.cancelled() and done.exception() is None:
                self.put(key, done.result())

        future.add_done_callback(finish)


def key_of(feeds: Mapping[str, Array]) -> bytes | None:
    """Cache key of inputs, equal in every process; None for texts, which have no fixed bytes."""
    parts: list[bytes] = []
    # A request may name its inputs in any order; a model's inputs are the same ones each time.
    for array in feeds.values() if len(feeds) == 1 else (feeds[name] for name in sorted(feeds)):
        if array.dtype.hasobject:
            return None
        parts += (repr(array.shape).encode(), array.tobytes())
    key = b"|".join(parts)
    return key if len(key) <= _LONG else blake2b(key, digest_size=20).digest()
