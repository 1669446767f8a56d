"""Supervisor of several workers: starts and restarts them, and relays calls between them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError
from cumulant.core.system.child_processes import RestartDelay, start, wait_or_kill
from cumulant.serving.content_pins import Pin, remove_unserved
from cumulant.serving.settings import Settings
from cumulant.serving.sockets import open_shared
from cumulant.serving.workers.channel import Channel, GoneError
from cumulant.serving.workers.child import Orders
from cumulant.serving.workers.event_loops import end_on_signals

#: a worker that ends within this many seconds of its start is started again with a growing delay
_SHORT_LIFE, _LONGEST_DELAY = 5.0, 5.0
_START_SECONDS = 60.0
#: seconds for what all workers do at once, by verb; a worker that does not answer in time is left out
_CALL_SECONDS = {"metrics": 2.0, "ready": 2.0}
_CHANGE_SECONDS = 120.0
#: a worker is checked this often, and one that has not answered for so long is killed
_LOOK_SECONDS, _HANG_SECONDS = 5.0, 30.0
_FAREWELL_SECONDS = 2.0


class _Member(msgspec.Struct):
    """One worker process."""

    process: subprocess.Popen[bytes]
    channel: Channel
    listening: asyncio.Task[None]
    ready: asyncio.Future[Any]
    born: float

    @property
    def answers(self) -> bool:
        """Whether it serves requests."""
        return self.ready.done() and self.ready.exception() is None


async def _end_if_stuck(member: _Member) -> None:
    """End a hung worker: the system still routes connections to it, which are never answered."""
    if not member.answers:
        return
    try:
        await asyncio.wait_for(member.channel.call("ready", {}), _HANG_SECONDS)
    except TimeoutError:
        sys.stderr.write(f"worker {member.process.pid} has not answered for {_HANG_SECONDS:g} s and is ended\n")
        member.process.kill()
    except CumulantError:
        pass  # it has ended


class WorkerSupervisor:
    """Keeps `settings.workers` processes running, which share one address by SO_REUSEPORT and nothing else."""

    def __init__(self, settings: Settings, pins: Sequence[Pin]) -> None:
        """`pins`: what is served at first."""
        self._settings = settings
        self._pins: dict[str, tuple[Pin, ...]] = {
            name: tuple(pinned for pinned in pins if pinned.name == name)
            for name in dict.fromkeys(pinned.name for pinned in pins)
        }
        #: those of changes that are prepared and neither committed nor discarded
        self._staged: dict[str, tuple[Pin, ...]] = {}
        #: one a worker; open here, so that waiting connections survive a worker that is killed
        self._listeners: list[socket.socket] = []
        self._members: dict[int, _Member] = {}
        self._starts = 0
        self._keepers: list[asyncio.Task[None]] = []
        self._ending = False

    async def run(self, started: Callable[[list[list[str]]], None]) -> None:
        """Run the workers until the process is stopped; `started` is called with the models once all are ready.

        Raises:
            EngineUnavailableError: a worker did not start.
        """
        ended = asyncio.Event()
        with end_on_signals(ended, self._settings.parent):
            try:
                places = range(self._settings.workers)
                self._listeners = [open_shared(self._settings.host, self._settings.port) for _ in places]
                for place in places:
                    await self._start(place)
                first = await self._all_ready()
                self._keepers = [asyncio.ensure_future(self._keep_running(place)) for place in self._members]
                started(first[0])
                await ended.wait()
            finally:
                await self._end()

    async def _all_ready(self) -> list[Any]:
        """Models of each worker, once all are ready."""
        ready = asyncio.gather(*(member.ready for member in self._members.values()))
        try:
            return await asyncio.wait_for(ready, _START_SECONDS)
        except TimeoutError:
            hint = "check its models: they may be too large for this machine"
            text = f"a worker did not answer within {_START_SECONDS:g} s of its start"
            raise EngineUnavailableError(text, hint=hint) from None

    async def _start(self, place: int) -> None:
        ours, theirs = socket.socketpair()
        numbers = tuple(listener.fileno() for listener in self._listeners)
        pins = tuple(pinned for pins in self._pins.values() for pinned in pins)
        orders = Orders(self._settings, theirs.fileno(), numbers, place, pins)
        with theirs:
            # The orders hold the token, and Ctrl-C must reach the supervisor only, which lets the workers finish.
            line = [sys.executable, "-P", "-m", "cumulant.serving.workers.child"]
            process = start(line, content=msgspec.json.encode(orders), pass_fds=[theirs.fileno(), *numbers])
        ours.setblocking(False)  # noqa: FBT003 - the socket's own name for it
        reader, writer = await asyncio.open_connection(sock=ours)
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def answer(verb: str, arguments: Mapping[str, Any]) -> Any:
            if verb == "ready":
                if not ready.done():
                    ready.set_result(arguments["models"])
                    await self._share_listeners()
                return None
            return await self._everywhere(str(arguments["verb"]), arguments["arguments"])

        channel = Channel(reader, writer, answer)
        listening = asyncio.ensure_future(channel.listen())

        def gone(_: object) -> None:
            if not ready.done():
                ready.set_exception(EngineUnavailableError("a worker ended before it answered"))
                ready.exception()  # there may be no waiter

        listening.add_done_callback(gone)
        self._members[place] = _Member(process, channel, listening, ready, time.monotonic())
        self._starts += 1

    async def _keep_running(self, place: int) -> None:
        """Start the worker at `place` again whenever it ends."""
        delay = RestartDelay(_LONGEST_DELAY)
        while not self._ending:
            member = self._members[place]
            while not (await asyncio.wait([member.listening], timeout=_LOOK_SECONDS))[0]:
                await _end_if_stuck(member)
            await self._share_listeners()
            code = await asyncio.to_thread(member.process.wait)
            sys.stderr.write(f"worker {member.process.pid} ended with code {code}; another one takes its place\n")
            # One that never answered has failed, however long its models took to load.
            if member.answers and time.monotonic() - member.born > _SHORT_LIFE:
                delay.reset()
            await asyncio.sleep(delay.after_end())
            await self._restart(place)

    async def _restart(self, place: int) -> None:
        while True:
            try:
                return await self._start(place)
            except OSError as error:  # no more processes or memory at the moment
                sys.stderr.write(f"a worker cannot be started: {error.strerror or error}; it is tried again\n")
                await asyncio.sleep(_LONGEST_DELAY)

    async def _everywhere(self, verb: str, arguments: Mapping[str, Any]) -> list[Any]:
        """Results of all ready workers; a worker that ends in that time is restarted with the current models."""
        match verb:
            case "metrics":
                return [*await self._call(verb, arguments), self._own_series()]
            case "prepare":
                self._staged[str(arguments["key"])] = _pins_in(arguments)
                return await self._call(verb, arguments)
            case "discard":
                answers = await self._call(verb, arguments)
                self._remove_unserved(self._staged.pop(str(arguments["key"]), ()))
                return answers
            case "commit" | "unload":
                return await self._change(verb, arguments)
            case _:
                return await self._call(verb, arguments)

    async def _change(self, verb: str, arguments: Mapping[str, Any]) -> list[Any]:
        """Apply a change on every worker; one that fails is restarted with the models of the others."""
        # Set beforehand: a worker that is started now gets the new content at its start.
        name = str(arguments["name"])
        before = self._pins.pop(name, ())
        if verb == "commit":
            self._pins[name] = _pins_in(arguments)
        outcomes = await self._answers(verb, arguments)
        failed = [(member, outcome) for member, outcome in outcomes if _is_refusal(outcome)]
        answers = [outcome for _, outcome in outcomes if not isinstance(outcome, BaseException)]
        if not answers:
            self._pins.pop(name, None)
            if before:
                self._pins[name] = before
            raise failed[0][1] if failed else _no_worker()
        for member, error in failed:
            sys.stderr.write(f"worker {member.process.pid} cannot {verb} {name} and is ended: {error.message}\n")
            with contextlib.suppress(GoneError):
                await member.channel.call("end", {})
        self._staged.pop(str(arguments.get("key")), None)
        self._remove_unserved(before)
        return answers

    def _remove_unserved(self, pins: Sequence[Pin]) -> None:
        remove_unserved(pins, chain(*self._pins.values(), *self._staged.values()))

    async def _share_listeners(self) -> None:
        """Let ready workers accept the connections of the others."""
        if not self._keepers or self._ending:
            return
        answering = {place for place, member in self._members.items() if member.answers and not member.listening.done()}
        orphans = {"places": [place for place in self._members if place not in answering]}
        calls = [self._members[place].channel.call("take_over", orphans) for place in answering]
        with contextlib.suppress(TimeoutError):  # of one that is stuck
            await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), _FAREWELL_SECONDS)

    async def _call(self, verb: str, arguments: Mapping[str, Any]) -> list[Any]:
        answers = [answer for _, answer in await self._answers(verb, arguments)]
        for answer in answers:
            if _is_refusal(answer):
                raise answer
        successes = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not successes:
            raise _no_worker()
        return successes

    async def _answers(self, verb: str, arguments: Mapping[str, Any]) -> list[tuple[_Member, Any]]:
        """Result or error of each worker."""
        members = [member for member in self._members.values() if not member.listening.done()]
        if verb in _CALL_SECONDS:  # not of a worker that starts, unlike changes, which it takes part in
            members = [member for member in members if member.answers]
        patience = _CALL_SECONDS.get(verb, _CHANGE_SECONDS)
        calls = [asyncio.wait_for(member.channel.call(verb, arguments), patience) for member in members]
        return list(zip(members, await asyncio.gather(*calls, return_exceptions=True), strict=True))

    def _own_series(self) -> list[list[Any]]:
        alive = sum(not member.listening.done() for member in self._members.values())
        return [["cumulant_workers", [], alive, []], ["cumulant_worker_starts_total", [], self._starts, []]]

    async def _end(self) -> None:
        """Let the workers drain; kill those that do not end in time."""
        self._ending = True
        for keeper in self._keepers:
            keeper.cancel()
        for listener in self._listeners:
            listener.close()
        farewells = [member.channel.call("end", {}) for member in self._members.values()]
        with contextlib.suppress(TimeoutError):  # of one that is stuck or starts
            await asyncio.wait_for(asyncio.gather(*farewells, return_exceptions=True), _FAREWELL_SECONDS)
        deadline = time.monotonic() + self._settings.drain + 5
        for member in self._members.values():
            await asyncio.to_thread(wait_or_kill, member.process, deadline - time.monotonic())


def _pins_in(arguments: Mapping[str, Any]) -> tuple[Pin, ...]:
    return msgspec.convert(arguments["pins"], tuple[Pin, ...])


def _is_refusal(answer: object) -> bool:
    """Whether a running worker failed the command."""
    return isinstance(answer, CumulantError) and not isinstance(answer, GoneError)


def _no_worker() -> EngineUnavailableError:
    return EngineUnavailableError("no worker answers at the moment")
