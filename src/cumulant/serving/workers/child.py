"""`python -m cumulant.serving.workers.child`: a worker under a supervisor, connected by an inherited socket."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.system.stderr import lossy_stderr
from cumulant.serving.content_pins import Pin
from cumulant.serving.settings import Settings
from cumulant.serving.workers.channel import Channel
from cumulant.serving.workers.event_loops import end_on_signals, new_loop
from cumulant.serving.workers.listeners import Listeners
from cumulant.serving.workers.worker import Worker


class Orders(msgspec.Struct, frozen=True):
    """Start parameters of a worker process: one JSON document on its standard input."""

    settings: Settings
    #: descriptor of the inherited socket
    channel: int
    #: descriptors of all workers' listening sockets, and this worker's place among them
    listeners: tuple[int, ...]
    place: int
    #: pinned content of the served models
    pins: tuple[Pin, ...]


class _Fleet:
    """All workers, called through the supervisor."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def everywhere(self, verb: str, arguments: Mapping[str, Any]) -> list[Any]:
        answers: list[Any] = await self._channel.call("everywhere", {"verb": verb, "arguments": dict(arguments)})
        return answers


async def _run(worker: Worker, orders: Orders) -> None:
    ended = asyncio.Event()
    listeners = Listeners([socket.socket(fileno=number) for number in orders.listeners], orders.place)

    async def answer(verb: str, arguments: Mapping[str, Any]) -> Any:
        if verb == "end":
            ended.set()
            return None
        if verb == "take_over":
            return await listeners.take_over(arguments["places"])
        return await worker.staff.do(verb, arguments)

    link = socket.socket(fileno=orders.channel)
    link.setblocking(False)  # noqa: FBT003 - the socket's own name for it
    reader, writer = await asyncio.open_connection(sock=link)
    channel = Channel(reader, writer, answer)
    listening = asyncio.ensure_future(channel.listen())
    # The channel ends with the supervisor, without which nothing would stop this process.
    listening.add_done_callback(lambda _: ended.set())
    starting: list[asyncio.Future[Any]] = []

    def started() -> None:
        models = [[model.name, model.version] for model in worker.app.models]
        starting.append(asyncio.ensure_future(channel.call("ready", {"models": models})))

    with end_on_signals(ended):
        await worker.run(listeners, ended, started, _Fleet(channel))
    listening.cancel()


def main() -> int:
    """Exit code: 0 after a normal end, 4 where the worker could not start."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=Orders)
    try:
        worker = Worker(orders.settings, pins=orders.pins)
    except CumulantError as error:
        sys.stderr.write(f"error: {error.full_text}\n")
        return 4
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_run(worker, orders))
    finally:
        worker.close()
    # Threads of engines may still hold their last run.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    lossy_stderr()
    sys.exit(main())
