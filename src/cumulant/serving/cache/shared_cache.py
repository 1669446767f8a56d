"""Client of the shared cache: round-trip time, health and queued writes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CredentialsError, CumulantError, StorageError
from cumulant.serving.histogram import SECONDS, Histogram

if TYPE_CHECKING:
    from cumulant.ports.cache import SharedCache

#: failures in a row that open it
_MOST = 5
#: seconds until the first and until the latest try
_FIRST, _LONGEST = 0.1, 30.0
#: after a rest of so many times the last delay, a failure counts as the first again
_CALM = 10
#: concurrent lookups; a request beyond them does without
_MOST_LOOKUPS = 64
#: answers, and their bytes, that may wait to be written
_MOST_WRITES, _MOST_BYTES = 1000, 8 * 1024 * 1024
#: seconds that a write may take, and that reaching the store may
_WRITING, _REACHING = 1.0, 3.0
#: seconds between two measurements of the way
_EVERY = 5.0
#: weight of the newest lookup in the mean time of one
_NEW = 0.1
_PROBE = "cumulant:probe"


class CircuitBreaker:
    """Closed: calls pass. Open: no calls until `wait` is over, then one; each failure doubles the wait."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self.closed = True
        self._clock, self._chance = clock, chance
        self._row = 0
        self._delay = 0.0
        self._closed_at = self._until = clock()

    def succeed(self) -> None:
        self._row = 0
        if not self.closed:
            self.closed, self._closed_at = True, self._clock()

    def fail(self) -> None:
        """Count a failure of a closed breaker, which may open it."""
        self._row += 1
        if self.closed and self._row >= _MOST:
            self.trip()

    def trip(self) -> None:
        """Open, or stay open for longer."""
        now = self._clock()
        calm = self.closed and now - self._closed_at > _CALM * self._delay
        self._delay = _FIRST if calm or not self._delay else min(2 * self._delay, _LONGEST)
        # Servers that lost the same store must not all come back at the same moment.
        self._until = now + self._delay * (0.5 + self._chance())
        self.closed = False

    def wait(self) -> float:
        """Seconds until the next try."""
        return 0.0 if self.closed else max(0.0, self._until - self._clock())


class SharedCacheConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of the shared cache. Times in seconds."""

    url: str
    #: from the environment; never in the URL
    password: str | None = None
    #: the longest that a request may wait for a lookup
    budget: float = 0.005


class CacheWrite(msgspec.Struct, frozen=True):
    """An answer to write; `on_result` is called with `written`, `failed` or `dropped`."""

    key: str
    value: bytes
    ttl: float
    on_result: Callable[[str], None]


class SharedCacheTier:
    """Bounded lookups and writes of one event loop, which never raise; a failed store is retried in the background."""

    def __init__(self, store: SharedCache, budget: float, *, name: str = "the shared cache") -> None:
        self._store, self.budget, self._name = store, budget, name
        self.reads, self.writes = CircuitBreaker(), CircuitBreaker()
        #: mean seconds of a lookup; None: not known yet
        self.round_trip: float | None = None
        self.seconds = Histogram(SECONDS)
        self._lookups = 0
        self._queue: deque[CacheWrite] = deque()
        self._bytes = 0
        self._more, self._failed = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # --- its life

    def start(self) -> None:
        """Start to connect to the store in the background; call it within the event loop."""
        self._tasks = [asyncio.ensure_future(self._monitor()), asyncio.ensure_future(self._write())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        with contextlib.suppress(CumulantError, TimeoutError):
            async with asyncio.timeout(_WRITING):
                await self._store.close()

    @property
    def ready(self) -> bool:
        """Whether the store works and its round-trip time is known."""
        return self.reads.closed and self.round_trip is not None

    # --- lookups

    @property
    def busy(self) -> bool:
        return self._lookups >= _MOST_LOOKUPS

    async def get(self, key: str) -> tuple[bytes | None, str]:
        """Value and result of a lookup: `hit`, `miss`, `late` or `error`."""
        self._lookups += 1
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.budget):
                value = await self._store.get(key)
        except TimeoutError:
            self._record_failure("it did not answer in time")
            return None, "late"
        except CumulantError as error:
            self._record_failure(str(error))
            return None, "error"
        finally:
            self._lookups -= 1
            self._record_seconds(time.perf_counter() - began)
        return value, "miss" if value is None else "hit"

    def record_success(self) -> None:
        """Record a successful lookup."""
        if self.reads.closed:
            self.reads.succeed()

    def record_fault(self) -> None:
        """Record a lookup with a foreign value."""
        self._record_failure("it holds values that are not this server's")

    def _record_seconds(self, seconds: float) -> None:
        self.seconds.observe(seconds)
        known = self.round_trip
        self.round_trip = seconds if known is None else known + _NEW * (seconds - known)

    def _record_failure(self, why: str) -> None:
        was_closed = self.reads.closed
        self.reads.fail()
        if was_closed and not self.reads.closed:
            self._failed.set()
            self._say(f"is left alone for now: {why}")

    async def _monitor(self) -> None:
        """Measure the round-trip time regularly, and retry a store that failed."""
        while True:
            self._failed.clear()
            await self._probe_store()
            if self.reads.closed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._failed.wait(), _EVERY)
            await asyncio.sleep(self.reads.wait())

    async def _probe_store(self) -> None:
        was_closed = self.reads.closed
        try:
            async with asyncio.timeout(_REACHING):
                await self._store.open()
            began = time.perf_counter()
            async with asyncio.timeout(self.budget):
                await self._store.get(_PROBE)
        except (CumulantError, TimeoutError) as error:
            self.reads.trip()
            self._failed.set()
            if was_closed:
                self._say(f"is left alone for now: {str(error) or 'it does not answer in time'}")
            return
        self._record_seconds(time.perf_counter() - began)
        self.reads.succeed()
        if not was_closed:
            self._say("answers again")

    def _say(self, what: str) -> None:
        """Write a line on a change of state."""
        sys.stderr.write(f"{self._name} {what}\n")

    # --- writes

    def put(self, write: CacheWrite) -> None:
        """Queue a write; dropped where the queue is full or the store fails."""
        full = len(self._queue) >= _MOST_WRITES or self._bytes + len(write.value) > _MOST_BYTES
        if full or not self.reads.closed or self.writes.wait() > 0:
            write.on_result("dropped")
            return
        self._queue.append(write)
        self._bytes += len(write.value)
        self._more.set()

    async def _write(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._queue:
                write = self._queue.popleft()
                self._bytes -= len(write.value)
                if not self.reads.closed or self.writes.wait() > 0:
                    write.on_result("dropped")
                    continue
                write.on_result("written" if await self._written(write) else "failed")

    async def _written(self, write: CacheWrite) -> bool:
        try:
            async with asyncio.timeout(_WRITING):
                await self._store.put(write.key, write.value, write.ttl)
        except (CumulantError, TimeoutError) as error:
            if self.writes.closed and isinstance(error, (StorageError, CredentialsError)):
                self.writes.trip()  # the store's own refusal: no memory, read only
            elif self.writes.closed:
                self.writes.fail()
            else:
                self.writes.trip()
            return False
        self.writes.succeed()
        return True
