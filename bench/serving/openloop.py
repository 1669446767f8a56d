"""An open-loop client: requests leave when the schedule says so, answered or not; latency counts from the scheduled moment.

    python openloop.py PLAN.json OUT.npy

Run by `clients.py`, several at a time where the rate needs it. Writes one record a request: when it was due (seconds
from the start), its latency in seconds, how much of it passed before it was sent (the client was late, or each of its
connections had a request under way), its status (0: the connection failed, -1: no answer came), whether the answer
was marked as degraded, and whether it was a wrong one.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import httptools
import msgspec
import numpy as np
import uvloop
from payloads import read

RECORD = np.dtype(
    [("due", "f8"), ("latency", "f8"), ("late", "f8"), ("status", "i2"), ("degraded", "?"), ("wrong", "?")]
)
_GRACE = 3.0
_AT_ONCE = 64


class Timer:
    """A timer of the kernel: those of event loops count whole milliseconds."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def at(self, moment: float) -> None:
        """Readable at `moment` of `time.perf_counter`."""
        whole = int(moment)
        spec = (ctypes.c_long * 4)(0, 0, whole, max(1, int((moment - whole) * 1e9)))
        self._libc.timerfd_settime(self.fd, 1, ctypes.byref(spec), None)


class Wire(asyncio.Protocol):
    """One connection with at most one request on it."""

    def __init__(self, load: Load) -> None:
        self._load, self._number, self._body = load, -1, b""
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._load.free(self)

    def send(self, number: int, request: bytes) -> None:
        self._number, self._body = number, b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status, number, keep = self._parser.get_status_code(), self._number, self._parser.should_keep_alive()
        self._number = -1
        self._load.answered(number, status, self._body)
        if keep:
            self._load.free(self)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.gone(self)
        if self._number >= 0:
            self._load.answered(self._number, 0, b"")


class Load:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan, self._requests = plan, read(Path(plan["requests"]))
        self._due = schedule(plan["phases"], plan["seed"], plan["share"])
        self.records = np.zeros(len(self._due), RECORD)
        self.records["due"], self.records["status"] = self._due, -1
        self._times = self._due.tolist()
        self._idle: list[Wire] = []
        self._queue: deque[int] = deque()
        self._tasks: set[asyncio.Future[None]] = set()
        self._opening = self._open = self._next = self._done = 0
        self._timer = Timer()
        self._expected = np.load(plan["expected"]) if plan.get("expected") else None
        self._seed = plan["seed"]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._plan["warm"]):
            self._connect()
        await asyncio.sleep(0)
        self._start = max(self._plan["start"], time.perf_counter() + 0.05)
        loop.add_reader(self._timer.fd, self._tick)
        if self._times:
            self._timer.at(self._start + self._times[0])
        end = self._start + sum(seconds for _, seconds in self._plan["phases"]) + _GRACE
        while self._done < len(self._times) and time.perf_counter() < end:  # noqa: ASYNC110 - time ends it too
            await asyncio.sleep(0.05)
        loop.remove_reader(self._timer.fd)

    def _tick(self) -> None:
        try:
            os.read(self._timer.fd, 8)
        except BlockingIOError:
            return
        now, times = time.perf_counter() - self._start, self._times
        for _ in range(_AT_ONCE):
            if self._next == len(times) or times[self._next] > now:
                break
            self._ask(self._next)
            self._next += 1
        if self._next < len(times):
            self._timer.at(self._start + times[self._next])

    def _ask(self, number: int) -> None:
        if self._idle:
            self._idle.pop().send(number, self._request(number))
            return
        self._queue.append(number)
        if self._opening < len(self._queue) and self._open + self._opening < self._plan["most"]:
            self._connect()

    def _place(self, number: int) -> int:
        return (number * 7 + self._seed * 13) % len(self._requests)

    def _request(self, number: int) -> bytes:
        """The bytes of a request that is sent now."""
        self.records["late"][number] = time.perf_counter() - self._start - self._times[number]
        return self._requests[self._place(number)]

    def _connect(self) -> None:
        self._opening += 1
        task = asyncio.ensure_future(self._connected())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: Wire(self), "127.0.0.1", self._plan["port"])
            self._open += 1
        except OSError:
            if self._queue:
                self.answered(self._queue.popleft(), 0, b"")
        finally:
            self._opening -= 1

    def free(self, wire: Wire) -> None:
        if self._queue:
            number = self._queue.popleft()
            wire.send(number, self._request(number))
        else:
            self._idle.append(wire)

    def gone(self, wire: Wire) -> None:
        self._open -= 1
        if wire in self._idle:
            self._idle.remove(wire)

    def answered(self, number: int, status: int, body: bytes) -> None:
        record = self.records
        record["latency"][number] = time.perf_counter() - self._start - self._times[number]
        record["status"][number] = status
        if status == 200:
            record["degraded"][number] = b'"degraded"' in body
            if self._expected is not None:
                record["wrong"][number] = self._is_wrong(number, body)
        self._done += 1

    def _is_wrong(self, number: int, body: bytes) -> bool:
        """Whether the value is not, to the last bit, what the version that answered gives for that row."""
        found = msgspec.json.decode(body)
        want = self._expected[int(found["model_version"]) - 1][self._place(number)]
        return bool(found["outputs"][0]["data"] != [want])


def schedule(phases: list[list[float]], seed: int, share: int) -> np.ndarray:
    """Arrivals of `[requests a second, seconds]` phases, fixed before the run: random gaps of a Poisson process."""
    random, found, start = np.random.default_rng(seed), [], 0.0
    for rate, seconds in phases:
        count = random.poisson(rate / share * seconds)
        found.append(start + np.sort(random.random(count)) * seconds)
        start += seconds
    return np.concatenate(found) if found else np.zeros(0)


if __name__ == "__main__":
    load = Load(json.loads(Path(sys.argv[1]).read_text()))
    gc.disable()
    uvloop.run(load.run())
    np.save(sys.argv[2], load.records)
    os._exit(0)
