"""Client of the log process in a worker: it never waits, never raises into a request, and has bounded memory."""

from __future__ import annotations

import asyncio
import mmap
import os
import secrets
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from cumulant.core.plan import Field
from cumulant.serving.prediction_log.entry import (
    COUNTER,
    DESCRIBE,
    ENTRY,
    GOODBYE,
    HEAD,
    HELLO,
    LIKE,
    MAX_FRAME,
    PATTERN,
    PATTERNS,
    Hello,
    LogEntry,
    PatternEntry,
    make_frame,
)

MIB = 1024 * 1024
_RETRY_SECONDS = 0.25
_SEND_BUFFER = MIB
#: of all patterns: they are in the first frame of each connection, which must fit into the buffer that the system gives
_PATTERN_BYTES = 128 * 1024
_EMPTY_HEAD = bytes(HEAD.size)
_FAULTS = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class FrameChunk(NamedTuple):
    """Complete frames in one buffer, with the number of their entries and the last sequence number."""

    data: bytearray
    entries: int
    last: int


class LogClient:
    """Takes entries on the thread of the running event loop and sends them to the log process in batches.

    Attributes:
        worker: the given name and a suffix of this life of the process, as it stands in the log.
        written: entries handed to the log process.
        lost: entries dropped, because memory was full or because they cannot be encoded.
        refused: entries whose requests were answered with 503, as they could not be logged.
    """

    durable = False

    def __init__(
        self,
        path: str | Path,
        *,
        worker: str,
        region: str = "",
        personal: Mapping[str, Iterable[Field]] | None = None,
        limit: int = 16 * MIB,
        interval: float = 0.05,
        batch: int = 256,
    ) -> None:
        """`limit` bounds what waits, in bytes; a batch goes after `interval` seconds or `batch` entries."""
        self.worker = f"{worker}.{os.getpid()}.{secrets.token_hex(4)}"
        self.written = 0
        self.lost = 0
        self.refused = 0
        self._path = str(path)
        self._hello = Hello(self.worker, time.time_ns() // 1000, region, {}, [], self.durable)
        self._limit, self._interval, self._batch = limit, interval, batch
        self._sequence = 0
        self._memory = _shared()
        self._counter = mmap.mmap(self._memory, COUNTER.size)
        self._encode = msgspec.msgpack.Encoder().encode_into
        self._buffer = bytearray()
        self._entries = 0
        self._chunks: deque[FrameChunk] = deque()
        self._waiting_bytes = self._offset = self._patterns = 0
        self._socket: socket.socket | None = None
        self._watched = False
        self._retry_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        for model, fields in (personal or {}).items():
            self.describe(model, fields)

    @property
    def waiting(self) -> int:
        """Bytes that wait for the log process."""
        return self._waiting_bytes

    def describe(self, model: str, fields: Iterable[Field]) -> None:
        """Register the personal request fields of a model, before the model's first entry.

        All values of a model that is not registered are logged as keyed hashes.
        """
        known = list(fields)
        self._hello.personal[model] = known
        self._append(DESCRIBE, msgspec.msgpack.encode((model, known)))

    def pattern(self, entry: LogEntry) -> int | None:
        """Register the common part of many entries; returns its number, or None where there are too many patterns."""
        number = len(self._hello.patterns)
        payload = msgspec.msgpack.encode((number, entry))
        if number == PATTERNS or self._patterns + len(payload) > _PATTERN_BYTES:
            return None
        self._hello.patterns.append(entry)
        self._patterns += len(payload)
        self._append(PATTERN, payload)
        return number

    def put(self, entry: LogEntry | PatternEntry) -> asyncio.Future[None] | None:
        """Number an entry and queue it for the next batch.

        A client that confirms entries returns a future to wait for.
        """
        self._take(entry)
        return None

    def _take(self, entry: LogEntry | PatternEntry) -> None:
        self._sequence = entry.sequence = self._sequence + 1
        COUNTER.pack_into(self._counter, 0, self._sequence)
        if self._closed or self._waiting_bytes >= self._limit:
            self.lost += 1
            return
        buffer = self._buffer
        start = len(buffer)
        try:
            buffer += _EMPTY_HEAD
            self._encode(entry, buffer, -1)
        except _FAULTS:
            self._drop(start)
            return
        size = len(buffer) - start
        if self._waiting_bytes + size > self._limit or size > MAX_FRAME:
            self._drop(start)
            return
        HEAD.pack_into(buffer, start, size - 4, LIKE if type(entry) is PatternEntry else ENTRY)
        self._waiting_bytes += size
        self._entries += 1
        if self._entries >= self._batch:
            self._flush()
        elif self._timer is None:
            self._wait(self._interval)

    async def close(self, timeout: float = 2.0) -> None:  # noqa: ASYNC109 - ends without an error when time is up
        """Send queued entries for at most `timeout` seconds; the others count as lost."""
        if self._closed:
            return
        self._closed = True
        self._loop = self._loop or asyncio.get_running_loop()
        self._append(GOODBYE)
        deadline = self._loop.time() + timeout
        self._flush()
        while self._chunks and self._loop.time() < deadline:
            await asyncio.sleep(min(self._interval, 0.01))
            self._flush()
        if self._timer is not None:
            self._timer.cancel()
        self._disconnect()
        self.lost += sum(chunk.entries for chunk in self._chunks)
        self._chunks.clear()
        self._waiting_bytes = 0
        self._counter.close()
        os.close(self._memory)
        self._counter = mmap.mmap(-1, COUNTER.size)  # of entries that still come

    def _append(self, kind: int, payload: bytes = b"") -> None:
        data = make_frame(kind, payload)
        self._buffer += data
        self._waiting_bytes += len(data)

    def _drop(self, start: int) -> None:
        del self._buffer[start:]
        self.lost += 1

    def _wait(self, seconds: float) -> None:
        self._loop = self._loop or asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        if self._buffer:
            self._chunks.append(FrameChunk(self._buffer, self._entries, self._sequence))
            self._buffer, self._entries = bytearray(), 0
        if not self._watched:
            self._send()
        if self._chunks and not self._watched and self._timer is None and not self._closed:
            self._wait(_RETRY_SECONDS)

    def _send(self) -> None:
        """Write as much as the socket accepts now."""
        try:
            channel = self._socket or self._connect()
            while channel is not None and self._chunks:
                data = self._chunks[0].data
                with memoryview(data) as view:
                    self._offset += channel.send(view[self._offset :])
                if self._offset == len(data):
                    self._offset = 0
                    self._sent(self._chunks.popleft())
            self._watch(on=False)
        except (BlockingIOError, InterruptedError):
            self._watch(on=True)
        except OSError:
            self._disconnect()

    def _sent(self, chunk: FrameChunk) -> None:
        """Account for a chunk that was sent."""
        self._waiting_bytes -= len(chunk.data)
        self.written += chunk.entries

    def _connect(self) -> socket.socket | None:
        now = time.monotonic()
        if now < self._retry_at or not hasattr(socket, "AF_UNIX"):
            return None
        self._retry_at = now + _RETRY_SECONDS
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            channel.setblocking(False)  # noqa: FBT003
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            channel.connect(self._path)
            hello = make_frame(HELLO, msgspec.msgpack.encode(self._hello))
            if socket.send_fds(channel, [hello], [self._memory]) < len(hello):
                raise ConnectionAbortedError
        except OSError:  # nobody listens, or listens too slowly
            channel.close()
            return None
        self._socket = channel
        return channel

    def _watch(self, *, on: bool) -> None:
        if on == self._watched or self._socket is None or self._loop is None:
            return
        self._watched = on
        if on:
            self._loop.add_writer(self._socket, self._send)
        else:
            self._loop.remove_writer(self._socket)

    def _disconnect(self) -> None:
        self._watch(on=False)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._resume()
        if self._chunks and self._timer is None and not self._closed:
            self._wait(_RETRY_SECONDS)

    def _resume(self) -> None:
        """Drop the sent part of the first chunk after a lost connection; a frame that was cut is lost."""
        if not self._offset:
            return
        data, entries, last = self._chunks.popleft()
        end = sent = kind = 0
        while end < self._offset:
            size, kind = HEAD.unpack_from(data, end)
            end += 4 + size
            sent += kind in (ENTRY, LIKE)
        cut = int(end > self._offset and kind in (ENTRY, LIKE))
        self.written += sent - cut
        self.lost += cut
        self._waiting_bytes -= end
        self._offset = 0
        if end < len(data):
            self._chunks.appendleft(FrameChunk(data[end:], entries - sent, last))


def _shared() -> int:
    """Descriptor of a small anonymous file that another process can read after this one is killed."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("cumulant-log")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, COUNTER.size)
    return descriptor
