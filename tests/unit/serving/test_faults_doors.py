"""Listening sockets of workers that end while another one's are handed over."""

from __future__ import annotations

import asyncio
import socket

import pytest

from cumulant.serving.workers.listeners import Listeners


@pytest.mark.parametrize("beside", [(), (1,)])
def test_a_worker_that_ends_while_it_takes_over_a_socket_takes_no_more_connections(beside):
    async def story():
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        places = [listener.getsockname() for listener in listeners]
        doors = Listeners(listeners)
        if beside:
            await doors.open(asyncio.Protocol)
            taking = asyncio.ensure_future(doors.take_over(beside))
        else:
            taking = asyncio.ensure_future(doors.open(asyncio.Protocol))
        await asyncio.sleep(0)  # it is under way
        doors.close()
        await taking
        await asyncio.sleep(0.05)
        for place in places:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(place, timeout=1).close()

    asyncio.run(story())
