"""Callers that stay: a steady load of requests with keys, each noted with what came back."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from typing import NamedTuple, Self

from cumulant.core.traffic import ARM_HEADER, KEY_HEADER
from cumulant.flows.replay.caller import ReplayClient

KEYS, AT_ONCE = 200, 64


class Seen(NamedTuple):
    """One request; times are of `time.monotonic`. `status` 0: no answer came."""

    begun: float
    ended: float
    key: str
    arm: str
    version: str
    status: int

    @property
    def failed(self) -> bool:
        return self.status != 200


class Load:
    """`rate` requests a second in a thread while the block runs; no more than `AT_ONCE` are under way."""

    def __init__(self, url: str, path: str, body: bytes, *, rate: float) -> None:
        self._url, self._path, self._body, self._rate = url, path, body, rate
        self._done = threading.Event()
        self.seen: list[Seen] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def answered(self) -> int:
        return sum(not one.failed for one in list(self.seen))

    async def _run(self) -> None:
        caller, room = ReplayClient(self._url, timeout=20), asyncio.Semaphore(AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                for number in itertools.count():
                    if self._done.is_set():
                        break
                    await room.acquire()
                    group.create_task(self._one(caller, room, f"k{number * 7 % KEYS}"))
                    await asyncio.sleep(1 / self._rate)
        finally:
            caller.close()

    async def _one(self, caller: ReplayClient, room: asyncio.Semaphore, key: str) -> None:
        begun = time.monotonic()
        headers = {"content-type": "application/json", KEY_HEADER: key}
        try:
            answer = await caller.ask("POST", self._path, self._body, headers)
        finally:
            room.release()
        version = json.loads(answer.body)["model_version"] if answer.status == 200 else ""
        arm = answer.headers.get(ARM_HEADER, "")
        self.seen.append(Seen(begun, time.monotonic(), key, arm, version, answer.status))
