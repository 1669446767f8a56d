"""Connections of a socket that listens on an event loop with much to do."""

from __future__ import annotations

import asyncio
import socket

import pytest

from cumulant.core.network.accepting import take_connections

BACKLOG = 512
MANY = 200

loops = pytest.mark.parametrize("make", [asyncio.new_event_loop, pytest.importorskip("uvloop").new_event_loop])


class Kept(asyncio.Protocol):
    def __init__(self, kept):
        self.kept = kept

    def connection_made(self, transport):
        self.kept.append(transport)

    def data_received(self, data):
        self.kept[-1].write(data)


def listener():
    found = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    found.setblocking(False)
    return found


def run(make, story):
    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(story())


@loops
def test_many_connections_are_taken_in_few_turns_of_the_loop(make):
    """Of a server of uvloop each turn takes one, so that the last of many waits for as many turns."""

    async def story():
        found, kept = listener(), []
        clients = [socket.create_connection(found.getsockname()) for _ in range(MANY)]
        server = await take_connections(lambda: Kept(kept), found, backlog=BACKLOG)
        for _ in range(MANY // 2):
            await asyncio.sleep(0)
        taken = len(kept)
        for one in [*clients, *kept, server]:
            one.close()
        assert taken == MANY

    run(make, story)


@loops
def test_a_connection_is_as_one_of_the_loop_s_own_server(make):
    async def story():
        found, kept = listener(), []
        server = await take_connections(lambda: Kept(kept), found, backlog=BACKLOG)
        reader, writer = await asyncio.open_connection(*found.getsockname())
        writer.write(b"text")
        assert await reader.readexactly(4) == b"text"
        assert kept[0].get_extra_info("peername") == writer.get_extra_info("sockname")
        if "uvloop" in type(asyncio.get_running_loop()).__module__:  # asyncio's does so for a client's end alone
            assert kept[0].get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        place = found.getsockname()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place, timeout=1).close()
        writer.write(b"more")  # what was taken is kept
        assert await reader.readexactly(4) == b"more"
        writer.close()
        kept[0].close()

    run(make, story)
