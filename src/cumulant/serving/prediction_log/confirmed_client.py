"""Client of a durable prediction log: each entry is confirmed once it is on the disk."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from cumulant.core.errors import EngineUnavailableError
from cumulant.core.plan import Field
from cumulant.serving.prediction_log.client import MIB, FrameChunk, LogClient
from cumulant.serving.prediction_log.entry import (
    COMMITTED,
    COUNTER,
    HEAD,
    REFUSED,
    LogEntry,
    PatternEntry,
    RefusedEntries,
)

_RECEIVE = 64 * 1024
_EXPIRY_SECONDS = 0.25
_refused = msgspec.msgpack.Decoder(RefusedEntries).decode


class _Waiting(NamedTuple):
    """Request that waits for its entry to be durable; `until` by the loop's clock."""

    sequence: int
    until: float
    done: asyncio.Future[None]


class ConfirmedClient(LogClient):
    """Sends entries at once and keeps them until they are confirmed, for a restarted log process.

    An entry that is not confirmed within `patience` seconds is refused; it may be in the log all the same.
    """

    durable = True

    def __init__(
        self,
        path: str | Path,
        *,
        worker: str,
        region: str = "",
        personal: Mapping[str, Iterable[Field]] | None = None,
        limit: int = 16 * MIB,
        patience: float = 5.0,
    ) -> None:
        super().__init__(path, worker=worker, region=region, personal=personal, limit=limit, interval=0.0)
        self._patience = patience
        self._waiting: deque[_Waiting] = deque()
        self._unconfirmed: deque[FrameChunk] = deque()
        self._received = bytearray()
        self._reading = False
        self._expiry: asyncio.TimerHandle | None = None

    def put(self, entry: LogEntry | PatternEntry) -> asyncio.Future[None]:
        """As of `LogClient`; done once the entry is on the disk.

        Raises (by the future):
            EngineUnavailableError: it is not.
        """
        self._loop = loop = self._loop or asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        lost = self.lost
        self._take(entry)
        if self.lost > lost:
            self.lost = lost
            self._sequence -= 1
            COUNTER.pack_into(self._counter, 0, self._sequence)
            self._refuse(done, "too many entries wait to be written, or the entry cannot be encoded")
            return done
        self._waiting.append(_Waiting(self._sequence, loop.time() + self._patience, done))
        if self._expiry is None:
            self._expiry = loop.call_later(_EXPIRY_SECONDS, self._expire)
        return done

    async def close(self, timeout: float = 2.0) -> None:  # noqa: ASYNC109 - as of LogClient
        """As of `LogClient`; what is not confirmed by then is refused."""
        lost = self.lost
        await super().close(timeout)
        self.lost = lost
        if self._expiry is not None:
            self._expiry.cancel()
        self._settle(self._sequence, "the server is stopping")

    def _refuse(self, done: asyncio.Future[None], why: str) -> None:
        self.refused += 1
        if not done.done():
            done.set_exception(EngineUnavailableError(f"the prediction could not be logged: {why}", hint="try again"))

    def _settle(self, last: int, why: str | None = None) -> None:
        """Complete the requests up to the number `last`; with `why`, refuse them."""
        while self._waiting and self._waiting[0].sequence <= last:
            done = self._waiting.popleft().done
            if why is not None:
                self._refuse(done, why)
            elif not done.done():
                done.set_result(None)

    def _expire(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        while self._waiting and self._waiting[0].until <= now:
            self._settle(self._waiting[0].sequence, f"it was not confirmed within {self._patience:g} s")
        if not self._offset:
            self._forget(self._chunks)
        self._expiry = self._loop.call_later(_EXPIRY_SECONDS, self._expire) if self._waiting else None

    def _forget(self, chunks: deque[FrameChunk]) -> None:
        """Drop chunks that no request waits for."""
        first = self._waiting[0].sequence if self._waiting else self._sequence + 1
        while chunks and chunks[0].last < first:
            self._waiting_bytes -= len(chunks.popleft().data)

    # The connection -----------------------------------------------------------------------------------------------

    def _sent(self, chunk: FrameChunk) -> None:
        self._unconfirmed.append(chunk)

    def _connect(self) -> socket.socket | None:
        channel = super()._connect()
        if channel is not None and self._loop is not None:
            self._loop.add_reader(channel, self._read)
            self._reading = True
        return channel

    def _disconnect(self) -> None:
        if self._reading and self._loop is not None and self._socket is not None:
            self._loop.remove_reader(self._socket)
        self._reading = False
        super()._disconnect()

    def _resume(self) -> None:
        """Queue unconfirmed chunks again."""
        self._received.clear()
        self._offset = 0
        self._chunks.extendleft(reversed(self._unconfirmed))
        self._unconfirmed.clear()
        self._forget(self._chunks)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE) if self._socket is not None else b""
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect()
            return
        self._received += data
        while len(self._received) >= HEAD.size:
            size, kind = HEAD.unpack_from(self._received)
            if len(self._received) < 4 + size:
                break
            self._confirmed(kind, bytes(self._received[HEAD.size : 4 + size]))
            del self._received[: 4 + size]

    def _confirmed(self, kind: int, payload: bytes) -> None:
        if kind == REFUSED:
            refused = _refused(payload)
            self._settle(refused.first - 1)
            self._settle(refused.last, refused.why)
        elif kind == COMMITTED:
            (last,) = COUNTER.unpack(payload)
            self._settle(last)
            while self._unconfirmed and self._unconfirmed[0].last <= last:
                chunk = self._unconfirmed.popleft()
                self._waiting_bytes -= len(chunk.data)
                self.written += chunk.entries
