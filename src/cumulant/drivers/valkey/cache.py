"""The port `cache` on Valkey or Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from valkey.asyncio.connection import Connection, SSLConnection
from valkey.exceptions import ResponseError

from cumulant.core.errors import EngineUnavailableError, StorageError
from cumulant.drivers.valkey.location import parse_cache_url

#: connections of one process for reads; further concurrent requests wait
_MOST_CONNECTIONS = 8
#: seconds for making a connection: reaching the host, TLS, the password
_PATIENCE = 2.0
_ERROR_LENGTH = 200


class ValkeyCache:
    """A pool of connections that are opened independently of requests.

    A request that is cancelled after some milliseconds neither waits for a new connection nor interrupts its opening.

    Raises:
        UsageError: as `parse_cache_url`.
    """

    def __init__(self, url: str, *, password: str | None = None) -> None:
        self._encrypted, self._settings = parse_cache_url(url, password)
        self._idle: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        #: with the transports of the open ones: the client drops them when it fails
        self._all: dict[Connection, asyncio.WriteTransport | None] = {}
        self._opening: asyncio.Task[None] | None = None
        self._writer: Connection | None = None

    async def open(self) -> None:
        while not self._idle.empty():
            connection = self._idle.get_nowait()
            with contextlib.suppress(EngineUnavailableError):
                await self._ping(connection)
                return
        if len(self._all) <= _MOST_CONNECTIONS:
            await self._ping(await self._connect())
            return
        # All are busy: the first free one is used.
        await self._ping(await self._idle.get())

    async def get(self, key: str) -> bytes | None:
        async with self._reading() as connection:
            value = await self._send(connection, "GET", key)
            if not isinstance(value, bytes | None):
                self._drop(connection)
                raise EngineUnavailableError("the cache answered what is no value")
            return value

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        # A connection of its own: writes are large, and answers would wait behind them.
        connection = self._writer
        if connection is None or connection not in self._all:
            connection = self._writer = await self._connect()
        if await self._send(connection, "SET", key, value, "PX", max(1, round(ttl * 1000))) != b"OK":
            self._drop(connection)
            raise EngineUnavailableError("the cache did not confirm that it stored the value")

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        for connection in list(self._all):
            self._drop(connection)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        if self._idle.empty() and len(self._all) < _MOST_CONNECTIONS and self._opening is None:
            self._opening = asyncio.ensure_future(self._add_connection())
        connection = await self._idle.get()
        try:
            yield connection
        finally:
            if connection in self._all:
                self._idle.put_nowait(connection)

    async def _add_connection(self) -> None:
        try:
            with contextlib.suppress(EngineUnavailableError):
                self._idle.put_nowait(await self._connect())
        finally:
            self._opening = None

    async def _ping(self, connection: Connection) -> None:
        try:
            answer = await self._send(connection, "PING")
        except StorageError:
            self._drop(connection)
            raise
        if answer != b"PONG":
            self._drop(connection)
            raise EngineUnavailableError("the cache did not answer a ping as a Valkey does")
        self._idle.put_nowait(connection)

    async def _connect(self) -> Connection:
        kind = SSLConnection if self._encrypted else Connection
        connection = kind(
            **self._settings, socket_timeout=None, socket_connect_timeout=_PATIENCE, lib_name=None, lib_version=None
        )
        self._all[connection] = None
        try:
            async with asyncio.timeout(_PATIENCE):
                await connection.connect()  # type: ignore[no-untyped-call]
        except asyncio.CancelledError:
            self._drop(connection)
            raise
        except Exception as error:  # noqa: BLE001 - the edge to a peer that may be anything, through a parser that trusts it
            self._drop(connection)
            raise EngineUnavailableError(f"the cache cannot be reached: {_error_text(error)}") from None
        self._all[connection] = _transport(connection)
        return connection

    async def _send(self, connection: Connection, *parts: str | bytes | int) -> object:
        """The reply to a command; a connection whose reply was incomplete is never used again."""
        try:
            await connection.send_command(*parts)
            reply: object = await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            raise StorageError(f"the cache refused: {_error_text(error)}") from None
        except asyncio.CancelledError:
            self._drop(connection)
            raise
        except Exception as error:  # noqa: BLE001 - the edge to a peer that may be anything, through a parser that trusts it
            self._drop_idle()
            self._drop(connection)
            raise EngineUnavailableError(f"the cache does not answer: {_error_text(error)}") from None
        return reply

    def _drop_idle(self) -> None:
        """Close the idle connections: after a fault such as the server's end, they fail too."""
        while not self._idle.empty():
            self._drop(self._idle.get_nowait())

    def _drop(self, connection: Connection) -> None:
        # Its own `disconnect` waits until the sent data is read, which a peer that hangs never does.
        transport = self._all.pop(connection, None) or _transport(connection)
        if transport is not None:
            transport.abort()
        connection._writer = connection._reader = None  # noqa: SLF001 - after that: an open stream complains when it goes


def _transport(connection: Connection) -> asyncio.WriteTransport | None:
    writer = connection._writer  # noqa: SLF001 - the client has no other way to it
    return None if writer is None else writer.transport


def _error_text(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:_ERROR_LENGTH]
