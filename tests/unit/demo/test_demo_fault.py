"""The demo's faulty proxy: it forwards what it is sent, but for the fault that it adds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cumulant.core.network.gateway_token import token_for
from cumulant.core.traffic import TOKEN_HEADER
from cumulant.demo.data_fault import Fault, FaultyProxy

KEY = b"k" * 32


class Upstream:
    """A sound server, which closes each connection after `requests` of them and answers with what it received."""

    def __init__(self, requests: int) -> None:
        self.requests, self.connections = requests, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for _ in range(self.requests):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            body = await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
            content = head + body
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        writer.close()


async def through(
    fault: Fault, upstream: Upstream, talk: Callable[[Callable[[bytes], Awaitable[bytes]]], Awaitable[None]]
) -> str:
    sound = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{sound.sockets[0].getsockname()[1]}"
    proxy = await asyncio.start_server(FaultyProxy(url, fault, KEY).serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*proxy.sockets[0].getsockname())

    async def send(request: bytes) -> bytes:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return head + await reader.readexactly(length)

    await talk(send)
    writer.close()
    await writer.wait_closed()
    proxy.close()
    sound.close()
    await asyncio.sleep(0.05)
    return url


def test_requests_pass_with_the_token_of_the_sound_server() -> None:
    answers: list[bytes] = []

    async def talk(send: Callable[[bytes], Awaitable[bytes]]) -> None:
        head = f"POST /v1/models/m/predict?x=1 HTTP/1.1\r\nHost: a\r\n{TOKEN_HEADER.title()}: theirs\r\nContent-Length: 3\r\n\r\n"
        answers.append(await send(head.encode() + b"\r\n\r"))
        answers.append(await send(b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\n\r\n"))

    upstream = Upstream(requests=9)
    url = asyncio.run(through(Fault(), upstream, talk))
    posted, got = answers
    assert posted.startswith(b"HTTP/1.1 200 OK")
    assert f"{TOKEN_HEADER}: {token_for(KEY, url)}\r\n".encode() in posted
    assert b"theirs" not in posted
    assert b"POST /v1/models/m/predict?x=1 HTTP/1.1\r\nHost: a\r\n" in posted
    assert posted.endswith(b"\r\n\r\n\r\n\r")  # the body's three bytes too
    assert TOKEN_HEADER.encode() not in got
    assert upstream.connections == 1


def test_a_connection_that_the_server_closed_is_opened_again() -> None:
    async def talk(send: Callable[[bytes], Awaitable[bytes]]) -> None:
        for _ in range(3):
            assert (await send(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")).startswith(b"HTTP/1.1 200")

    upstream = Upstream(requests=1)
    asyncio.run(through(Fault(), upstream, talk))
    assert upstream.connections == 3


@pytest.mark.parametrize(("share", "status"), [(0.0, b"200"), (1.0, b"500")])
def test_predictions_fail_as_often_as_the_fault_says_and_reads_never(share: float, status: bytes) -> None:
    async def talk(send: Callable[[bytes], Awaitable[bytes]]) -> None:
        for _ in range(2):
            answer = await send(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
            assert answer.split()[1] == status
        assert (await send(b"GET /v2 HTTP/1.1\r\n\r\n")).split()[1] == b"200"

    asyncio.run(through(Fault(failing=share), Upstream(requests=9), talk))


def test_a_slow_server_answers_late() -> None:
    async def talk(send: Callable[[bytes], Awaitable[bytes]]) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await send(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
        assert loop.time() - begun >= 0.05

    asyncio.run(through(Fault(slow=0.05), Upstream(requests=9), talk))
