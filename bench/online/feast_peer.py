"""Feast's online stores in the same open loop: `feast_peer.py FOLDER HOST:PORT [--quick]`; and the loop itself.

Runs in an environment of its own, without Cumulant. `run.py` starts it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

#: entities of a request -> requests a second, and how many
Rates = dict[int, tuple[float, int]]
ENTITIES, WRITTEN = 10_000, 512


async def warm_up(read: Callable[[Any], Awaitable[None]], requests: Sequence[Any]) -> None:
    """Send 50 requests that are not measured."""
    for request in requests[:50]:
        await read(request)


async def measure(read: Callable[[Any], Awaitable[None]], requests: Sequence[Any], rate: float) -> list[float]:
    """Seconds from when each request was due until it was answered, infinite without an answer; none waits for another
    one to be sent. A thread sends them: timers of an event loop are a millisecond late.
    """
    seconds: list[float] = []
    loop, running, begun = asyncio.get_running_loop(), set[asyncio.Task[None]](), time.perf_counter()

    async def one(request: Any, due: float) -> None:
        try:
            await read(request)
        except Exception as error:
            print(f"no answer: {error}", file=sys.stderr)
            seconds.append(math.inf)
        else:
            seconds.append(time.perf_counter() - due)

    def begin(request: Any, due: float) -> None:
        task = loop.create_task(one(request, due))
        running.add(task)
        task.add_done_callback(running.discard)

    def send() -> None:
        for number, request in enumerate(requests):
            due = begun + number / rate
            time.sleep(max(due - time.perf_counter(), 0.0))
            loop.call_soon_threadsafe(begin, request, due)

    await asyncio.to_thread(send)
    while running:
        await asyncio.gather(*running)
    return seconds


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2] * 1e3, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3


class Clock:
    """Seconds and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.monotonic() - self._wall, time.process_time() - self._cpu


def report(name: str, entities: int, seconds: Sequence[float], spent: tuple[float, float], writes: int) -> None:
    half, most = percentiles(seconds)
    cpu, rate, written = spent[1] / len(seconds) * 1e3, len(seconds) / spent[0], writes / spent[0]
    print(f"| {name} | {entities} | {cpu:.3f} | {half:.3f} | {most:.3f} | {rate:.0f} | {written:.0f} |", flush=True)


def make_store(folder: str, online: dict[str, Any], name: str) -> Any:
    from feast import FeatureStore, RepoConfig

    place = Path(folder, name)
    place.mkdir(exist_ok=True)
    return FeatureStore(
        config=RepoConfig(
            project="p",
            provider="local",
            registry=f"{place}/registry.db",
            offline_store={"type": "file"},
            online_store=online,
            entity_key_serialization_version=3,
        )
    )


def frame(cards: Any) -> Any:
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(len(cards))
    values = pd.DataFrame({"card": cards, **{f"f{number}": random.random(len(cards)) for number in range(40)}})
    values["event_timestamp"] = pd.Timestamp.now(tz="UTC")
    return values


def fill(store: Any, folder: str) -> None:
    from datetime import timedelta

    import numpy as np
    from feast import Entity, FeatureView, FileSource, ValueType
    from feast import Field as FeastField
    from feast.types import Float64

    rows = frame(np.arange(ENTITIES))
    path = f"{folder}/feast.parquet"
    rows.to_parquet(path)
    card = Entity(name="card", join_keys=["card"], value_type=ValueType.INT64)
    view = FeatureView(
        name="v",
        entities=[card],
        ttl=timedelta(days=30),
        schema=[FeastField(name=f"f{number}", dtype=Float64) for number in range(40)],
        source=FileSource(name="s", path=path, timestamp_field="event_timestamp"),
        online=True,
    )
    store.apply([card, view])
    store.write_to_online_store("v", rows)


def write_rows(store: Any) -> None:
    import numpy as np

    random, count = np.random.default_rng(3), 0
    while True:
        store.write_to_online_store("v", frame(random.choice(ENTITIES, WRITTEN, replace=False)))
        count += WRITTEN
        print(count, flush=True)


def run_store(name: str, folder: str, online: dict[str, Any], rates: Rates) -> None:
    import random

    store = make_store(folder, online, online["type"])
    fill(store, folder)
    names = [f"v:f{number}" for number in range(40)]

    async def read(cards: list[int]) -> None:
        store.get_online_features(names, [{"card": card} for card in cards]).to_dict()

    log = Path(folder, "written")
    for entities, (rate, count) in rates.items():
        requests = [random.sample(range(ENTITIES), entities) for _ in range(count)]
        command = [sys.executable, __file__, folder, "--write", online["type"], online.get("connection_string", "")]
        with log.open("w") as out, subprocess.Popen(command, stdout=out) as writer:
            try:
                while not log.read_text().split():
                    time.sleep(0.1)
                asyncio.run(warm_up(read, requests))
                before, clock = int(log.read_text().split()[-1]), Clock()
                seconds = asyncio.run(measure(read, requests, rate))
                spent, writes = clock.read(), int(log.read_text().split()[-1]) - before
            finally:
                writer.kill()
        report(name, entities, seconds, spent, writes)


def main() -> None:
    for name in ("FEAST_USAGE", "FEAST_TELEMETRY"):
        os.environ[name] = "False"
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    folder, address = sys.argv[1:3]
    stores = {
        "sqlite": {"type": "sqlite", "path": f"{folder}/feast-online.db"},
        "redis": {"type": "redis", "connection_string": sys.argv[4] if address == "--write" else f"{address},db=1"},
    }
    if address == "--write":
        write_rows(make_store(folder, stores[sys.argv[3]], sys.argv[3]))
    quick = "--quick" in sys.argv
    # Fewer a second than Cumulant is asked, since it answers fewer: no request waits for more than those before it.
    rates: Rates = {1: (100.0, 400 if quick else 4_000), 100: (2.0, 20 if quick else 100)}
    for name, online in stores.items():
        run_store(f"Feast 0.67, {name}", folder, online, rates)


if __name__ == "__main__":
    main()
