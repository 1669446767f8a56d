"""The connection to a Valkey that many requests share: replies in pieces, refusals, and what is no reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from cumulant.core.errors import EngineUnavailableError
from cumulant.drivers.valkey.location import parse_online_url
from cumulant.drivers.valkey.pipeline import PipelinedConnection, RefusedCommandError, Reply, connect


@asynccontextmanager
async def _connected(pieces: list[bytes]) -> AsyncIterator[PipelinedConnection]:
    """A connection to a server that sends these pieces once something comes."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = await connect(parse_online_url(f"valkey://127.0.0.1:{port}/0"), None, seconds=20)
        try:
            yield connection
        finally:
            connection.abort()
            await ended.wait()


async def _execute(connection: PipelinedConnection, commands: int) -> list[Reply | BaseException]:
    """The replies to commands that are sent at once."""
    sent = [connection.execute(b"GET", b"%d" % number, seconds=20) for number in range(commands)]
    return [*await asyncio.gather(*sent, return_exceptions=True)]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_replies_are_told_apart_in_pieces_of_any_size(size: int) -> None:
    data = b"$5\r\na\r\nb\r\r\n*2\r\n$-1\r\n$0\r\n\r\n:-12\r\n-MOVED 5 host:1\r\n+OK\r\n"

    async def act() -> list[Reply | BaseException]:
        async with _connected([data[at : at + size] for at in range(0, len(data), size)]) as connection:
            return await _execute(connection, 5)

    text, values, number, refused, done = asyncio.run(act())
    assert (text, values, number, done) == (b"a\r\nb\r", [None, b""], -12, b"OK")
    assert isinstance(refused, RefusedCommandError)
    assert str(refused) == "MOVED 5 host:1"


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\n\r\n", b"$x\r\n", b":1\r\n:2\r\n:3\r\n"])
def test_what_is_no_reply_or_one_too_many_ends_the_connection(data: bytes) -> None:
    async def act() -> None:
        async with _connected([data]) as connection:
            await _execute(connection, 2)
            with pytest.raises(EngineUnavailableError, match="does not answer as a Valkey does"):
                await connection.execute(b"PING", seconds=20)

    asyncio.run(act())
