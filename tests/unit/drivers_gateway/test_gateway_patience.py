"""Callers that are slow on purpose, and copies for a candidate that does not take them: both are bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from servers import status

from cumulant.drivers.local.gateway.counts import Counts
from cumulant.drivers.local.gateway.front import Bounds, Connection, Incoming, Site
from cumulant.drivers.local.gateway.messages import Fault, error_body, small_answer
from cumulant.drivers.local.gateway.mirror import Copy, Mirror
from cumulant.drivers.local.gateway.upstream import Endpoint

HASTY = Bounds(head=0.3, stall=0.3, idle=0.3, portion=100, connections=2)


async def swallow(request: Incoming, connection: Connection) -> bool:
    try:
        size = 0
        while part := await request.body.read():
            size += len(part)
    except Fault as fault:
        connection.write(small_answer(fault.status, error_body(fault.status, fault.text), close=True))
        return False
    connection.write(small_answer(200, b"%d" % size))
    return True


def with_site(call: Callable[[Site, int], Awaitable[None]], bounds: Bounds = HASTY) -> None:
    async def run() -> None:
        site = Site(swallow, bounds)
        server = await asyncio.get_running_loop().create_server(site, "127.0.0.1", 0)
        sweep = asyncio.ensure_future(site.sweep())
        try:
            await call(site, server.sockets[0].getsockname()[1])
        finally:
            sweep.cancel()
            server.close()
            await site.drain(0.1)

    asyncio.run(run())


async def drip(port: int, head: bytes, part: bytes) -> int:
    """The status that is answered to bytes that come one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    writer.write(head)
    answer = asyncio.ensure_future(reader.read())
    while not answer.done() and time.monotonic() - began < 120:
        writer.write(part)
        await asyncio.sleep(0.05)
    writer.close()
    return status(await answer)


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["head", "body", "chunks"],
)
def test_what_comes_byte_by_byte_is_ended(head: bytes, part: bytes) -> None:
    async def call(site: Site, port: int) -> None:
        assert await drip(port, head, part) == 408

    with_site(call)


def test_a_body_that_keeps_coming_is_taken() -> None:
    async def call(site: Site, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4000\r\nconnection: close\r\n\r\n")
        for _ in range(20):
            writer.write(b"x" * 200)
            await asyncio.sleep(0.09)  # all together longer than the stall that is allowed
        assert (await reader.read()).endswith(b"4000")
        writer.close()

    with_site(call, Bounds(head=0.3, stall=1.5, idle=0.3, portion=100, connections=2))


def test_idle_and_surplus_connections_are_ended() -> None:
    async def call(site: Site, port: int) -> None:
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        surplus = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionError):  # noqa: PT012 - ended, or reset
            surplus[1].write(b"x")
            if await surplus[0].read() == b"":
                raise ConnectionResetError
        for reader, writer in kept:
            assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()
        surplus[1].close()

    with_site(call)


def test_a_trailer_without_end_is_bounded() -> None:
    async def call(site: Site, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ")
        for _ in range(20):
            writer.write(b"y" * 65536)
            await asyncio.sleep(0)
        assert status(await reader.read(100)) == 431
        writer.close()

    with_site(call)


def test_copies_beyond_the_line_are_dropped_and_counted() -> None:
    async def run() -> str:
        counts = Counts()
        mirror = Mirror(counts)
        nobody = (Endpoint("http://127.0.0.1:1"),)
        for _ in range(5000):
            mirror.offer(Copy("m", nobody, b"x" * 1000, 0.5, False))
        await mirror.drain(60.0)
        return counts.text([])

    found = asyncio.run(run())
    assert 'cumulant_gateway_mirror_dropped_total{model="m"} 3976' in found
    assert 'cumulant_gateway_mirror_failed_total{model="m"} 1024' in found
