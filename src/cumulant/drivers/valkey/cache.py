"""Port `cache` on Valkey or Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from valkey.asyncio.connection import Connection, SSLConnection
from valkey.exceptions import ResponseError

from cumulant.core.errors import EngineUnavailableError, StorageError
from cumulant.drivers.valkey.location import settings_of

#: connections of one process that read; more requests than that at once take turns
_MOST = 8
#: seconds for making a connection: reaching the host, TLS, the password
_PATIENCE = 2.0
_TOLD = 200


class ValkeyCache:
    """A few connections, made beside the requests: one that is given up after some milliseconds must not have to wait
    for a connection first, nor end the making of one.

    Raises:
        UsageError: as `settings_of`.
    """

    def __init__(self, url: str, *, password: str | None = None) -> None:
        self._encrypted, self._settings = settings_of(url, password)
        self._idle: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        #: with the transports of those that are connected: the client forgets them when it fails
        self._all: dict[Connection, asyncio.WriteTransport | None] = {}
        self._growing: asyncio.Task[None] | None = None
        self._writer: Connection | None = None

    async def open(self) -> None:
        while not self._idle.empty():
            connection = self._idle.get_nowait()
            with contextlib.suppress(EngineUnavailableError):
                await self._greet(connection)
                return
        if len(self._all) <= _MOST:
            await self._greet(await self._connected())
            return
        # All are at work: one of them is asked when it is done.
        await self._greet(await self._idle.get())

    async def get(self, key: str) -> bytes | None:
        async with self._reading() as connection:
            found = await self._ask(connection, "GET", key)
            if not isinstance(found, bytes | None):
                self._drop(connection)
                raise EngineUnavailableError("the cache answered what is no value")
            return found

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        # A connection of its own: writes are large, and answers would wait behind them.
        connection = self._writer
        if connection is None or connection not in self._all:
            connection = self._writer = await self._connected()
        if await self._ask(connection, "SET", key, value, "PX", max(1, round(ttl * 1000))) != b"OK":
            self._drop(connection)
            raise EngineUnavailableError("the cache did not say that it keeps the value")

    async def close(self) -> None:
        if self._growing is not None:
            self._growing.cancel()
            await asyncio.wait({self._growing})
        for connection in list(self._all):
            self._drop(connection)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        if self._idle.empty() and len(self._all) < _MOST and self._growing is None:
            self._growing = asyncio.ensure_future(self._grow())
        connection = await self._idle.get()
        try:
            yield connection
        finally:
            if connection in self._all:
                self._idle.put_nowait(connection)

    async def _grow(self) -> None:
        try:
            with contextlib.suppress(EngineUnavailableError):
                self._idle.put_nowait(await self._connected())
        finally:
            self._growing = None

    async def _greet(self, connection: Connection) -> None:
        try:
            answer = await self._ask(connection, "PING")
        except StorageError:
            self._drop(connection)
            raise
        if answer != b"PONG":
            self._drop(connection)
            raise EngineUnavailableError("the cache did not answer a ping as a Valkey does")
        self._idle.put_nowait(connection)

    async def _connected(self) -> Connection:
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
            raise EngineUnavailableError(f"the cache cannot be reached: {_told(error)}") from None
        self._all[connection] = _transport(connection)
        return connection

    async def _ask(self, connection: Connection, *words: str | bytes | int) -> object:
        """The answer; a connection whose answer did not come whole is never used again."""
        try:
            await connection.send_command(*words)
            found: object = await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            raise StorageError(f"the cache refused: {_told(error)}") from None
        except asyncio.CancelledError:
            self._drop(connection)
            raise
        except Exception as error:  # noqa: BLE001 - the edge to a peer that may be anything, through a parser that trusts it
            self._drop_idle()
            self._drop(connection)
            raise EngineUnavailableError(f"the cache does not answer: {_told(error)}") from None
        return found

    def _drop_idle(self) -> None:
        """What one connection met, such as the end of the server, the idle ones would meet next."""
        while not self._idle.empty():
            self._drop(self._idle.get_nowait())

    def _drop(self, connection: Connection) -> None:
        # Its own `disconnect` waits until what was sent is taken, which a peer that stands still never does.
        transport = self._all.pop(connection, None) or _transport(connection)
        if transport is not None:
            transport.abort()
        connection._writer = connection._reader = None  # noqa: SLF001 - after that: an open stream complains when it goes


def _transport(connection: Connection) -> asyncio.WriteTransport | None:
    writer = connection._writer  # noqa: SLF001 - the client has no other way to it
    return None if writer is None else writer.transport


def _told(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:_TOLD]
