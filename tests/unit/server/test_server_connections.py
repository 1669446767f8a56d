"""Connections: a request has to arrive in time, and a stream ends with the right to see it."""

import asyncio
import socket
import threading
import time

import httpx
import pytest
from api_server import CallerNamed, serving
from test_server_reads import emit
from uvicorn import Config
from uvicorn.server import ServerState

from cumulant.server.connections import PROGRESS, TimedConnection


@pytest.fixture
def address(project, monkeypatch):
    monkeypatch.setattr("cumulant.server.connections.ARRIVAL_SECONDS", 0.3)
    with serving({"churn": project}) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        yield host, int(port)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /v1/health/live HTTP/1.1\r\nhost: x\r\n",
        b"POST /v1/projects/churn/silences HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{",
        b"GET /v1/health/live HTTP/1.1\r\nhost: x\r\n\r\nGET /v1",
    ],
    ids=["nothing", "half a head", "half a body", "half a second request"],
)
def test_a_request_that_does_not_arrive_ends_its_connection(address, sent, capfd):
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(sent)
        while connection.recv(4096):
            pass
    assert "Traceback" not in capfd.readouterr().err


def test_a_slow_byte_gives_no_more_time(address):
    with socket.create_connection(address, timeout=30) as connection:
        closed = False
        for _ in range(2_000):
            try:
                connection.sendall(b"G")
            except OSError:
                closed = True
                break
            time.sleep(0.01)
    assert closed


def test_a_body_that_goes_on_has_more_time():
    """64 MiB take longer than a head may, below 18 Mbit/s."""

    async def run():
        loop, connections = asyncio.get_running_loop(), []

        def connect():
            connections.append(TimedConnection(config, ServerState(), app_state={}))
            return connections[0]

        async def application(scope, receive, send):
            await asyncio.Event().wait()

        config = Config(application, log_config=None)
        config.load()
        server = await loop.create_server(connect, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        closed = []
        for size in (PROGRESS, 1_000):
            writer.write(b"x" * size)
            await writer.drain()
            while not connections or connections[0]._received < size:  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0.01)
            connections[0].end_wait()
            closed.append(connections[0].transport.is_closing())
        writer.close()
        server.close()
        return closed

    assert asyncio.run(asyncio.wait_for(run(), 60)) == [False, True]


class Revocable(CallerNamed):
    """Middleware: callers are known until they are revoked."""

    revoked = threading.Event()

    async def __call__(self, scope, receive, send):
        async def is_valid():
            return not self.revoked.is_set()

        if scope["type"] == "http":
            scope.setdefault("state", {})["is_valid"] = is_valid
        await super().__call__(scope, receive, send)


def test_a_stream_ends_with_the_right_to_see_it(project):
    Revocable.revoked.clear()
    with (
        serving({"churn": project}, authenticate=Revocable) as url,
        httpx.stream("GET", f"{url}/v1/projects/churn/events/stream?after=0", timeout=30) as response,
    ):
        lines = response.iter_lines()
        emit(project, 1)
        while not next(lines).startswith("data: "):
            pass
        Revocable.revoked.set()
        emit(project, 1)
        assert not [line for line in lines if line.startswith("data: ")]
