"""Reads of online features beside writes, by store, and beside Feast's: an open loop.

    python bench/online/run.py [--quick] [--feast PYTHON] [--entities N]

Needs `valkey-server` on the PATH. `--feast` is the interpreter of the environment that `peers.sh` makes (0.67, with
`redis`); without it Feast is left out. A request asks for the features of 1 or of 100 entities out of 10,000 at its
moment: 40 windows each, over 20 events and those that were posted meanwhile; "events" is the read alone. Requests are
due at fixed times, and what one waits for those before it counts. Meanwhile another process posts rows, as many a second
as it can up to `--writes`: with 10,000 entities, one event of each a second. Feast stores and returns 40 values that
were computed before, of 10,000 entities. Each line states the rates that were reached; prints rows for bench/RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from feast_peer import Clock, Rates, measure, report, warm_up

from cumulant.core.plan import FeaturePlan, Field, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.posted.post_reader import AdvanceResult
from cumulant.features.posted.update_batches import Advancer
from cumulant.ports.online import OnlineStore
from cumulant.ports.plugins import Drivers
from cumulant.serving.workers.event_loops import loaded_objects_frozen, new_loop

EVENTS = 20
END = datetime(2026, 3, 1, tzinfo=UTC)
#: rows of a post, and how many posts wait at most
POSTED, CLIENTS = 20, 64


def make_plan() -> FeaturePlan:
    """40 windows of one group."""
    fields = (Field("id", "int"), Field("card", "int"), Field("at", "time"), Field("a", "float"), Field("b", "float"))
    card, windows = source("tx").by("card"), ("1d", "7d", "14d", "30d")
    features: dict[str, Any] = {
        f"{column}_{kind}_{window}": getattr(card, kind)(column, window=window)
        for column in ("a", "b")
        for kind in ("sum", "mean", "min", "max", "std")
        for window in windows
    }
    return compile_plan(collect(features), {"tx": Source("tx", ("id",), "at", fields)}, entity="tx", predict_at=None)


def history(entities: int) -> pl.DataFrame:
    random, count = np.random.default_rng(1), entities * EVENTS
    seconds = np.sort(random.integers(0, 30 * 86_400, count))
    at = pl.Series([END - timedelta(days=30)]).dt.cast_time_unit("us") + pl.Series(seconds * 1_000_000).cast(
        pl.Duration("us")
    )
    return pl.DataFrame(
        {"id": range(count), "card": np.arange(count) % entities, "at": at, "a": random.random(count)}
    ).with_columns(b=pl.Series(random.random(count)))


def requests(count: int, asked: int, entities: int) -> list[list[dict[str, Any]]]:
    random = np.random.default_rng(2)
    cards = random.integers(0, entities, (count, asked)).tolist()
    base = {"at": END + timedelta(hours=1), "a": 1.0, "b": 2.0}
    return [
        [base | {"id": 10**9 + number * asked + row, "card": card} for row, card in enumerate(of)]
        for number, of in enumerate(cards)
    ]


def open_store(url: str) -> OnlineStore:
    store: OnlineStore = Drivers.installed().client(url, "online")
    return store


def write_rows(url: str, rate: float, entities: int) -> None:
    """Post rows for ever, at most `rate` a second, as a server does that clients post to; prints how many are durable."""
    writer = OnlineFeatures(make_plan(), open_store(url), "t").writer()
    assert writer is not None, "the plan has windows"
    random, number, durable, begun = np.random.default_rng(3), 0, 0, time.monotonic()
    waiting: deque[Future[AdvanceResult]] = deque()
    with Advancer([writer]) as advancer:
        while True:
            cards = random.integers(0, entities, POSTED).tolist()
            rows = [
                {
                    "id": 10**8 + number + at,
                    "card": card,
                    "at": END + timedelta(milliseconds=number + at),
                    "a": 1.0,
                    "b": 2.0,
                }
                for at, card in enumerate(cards)
            ]
            waiting.append(advancer.post("tx", rows))
            number += POSTED
            ahead = number / rate - (time.monotonic() - begun)
            if ahead > 0:
                time.sleep(ahead)
            while waiting and (waiting[0].done() or len(waiting) >= CLIENTS):
                durable += waiting.popleft().result().accepted
            print(durable, flush=True)


@contextmanager
def writing(url: str, rate: float, entities: int) -> Iterator[Callable[[], int]]:
    """Another process that posts; gives how many rows it has posted."""
    command = [sys.executable, __file__, "--write", url, "--writes", str(rate), "--entities", str(entities)]
    with tempfile.TemporaryFile() as out, subprocess.Popen(command, stdout=out) as process:

        def written() -> int:
            lines = os.pread(out.fileno(), 2**26, 0).split()
            return int(lines[-1]) if lines else 0

        try:
            while not written():
                time.sleep(0.05)
            yield written
        finally:
            process.kill()


def features_reader(features: OnlineFeatures) -> Callable[[list[dict[str, Any]]], Awaitable[None]]:
    """Computes all windows, as a server does."""

    async def read(rows: list[dict[str, Any]]) -> None:
        if not features.awaits:
            features.vectors(rows)
            return
        request = features.request(rows)
        features.vectors_of(request, await features.read_entities(request))

    return read


def events_reader(features: OnlineFeatures, store: OnlineStore) -> Callable[[list[dict[str, Any]]], Awaitable[None]]:
    """Reads the stored events alone."""

    async def read(rows: list[dict[str, Any]]) -> None:
        keys = [key for of_row in features.request(rows).keys for key in of_row if key is not None]
        if None in (await store.read("t", keys) if store.remote else store.get("t", keys)):
            raise SystemExit("an entity is missing")

    return read


def run_store(name: str, url: str, *, rates: dict[str, Rates], writes: float, entities: int) -> None:
    plan, store = make_plan(), open_store(url)
    materialize(plan, {"tx": history(entities)}, store, table="t")
    features = OnlineFeatures(plan, store, "t", cache_bytes=2**28)
    readers = {"events": events_reader(features, store), "40 windows": features_reader(features)}
    for what, of_entities in rates.items():
        for asked, (rate, count) in of_entities.items():
            with writing(url, writes, entities) as written, loaded_objects_frozen():  # as a server does
                todo, read = requests(count, asked, entities), readers[what]
                with asyncio.Runner(loop_factory=new_loop) as runner, closing_in(runner, store):
                    runner.run(warm_up(read, todo))
                    before, clock = written(), Clock()
                    seconds = runner.run(measure(read, todo, rate))
                    report(f"{name}, {what}", asked, seconds, clock.read(), written() - before)


@contextmanager
def closing_in(runner: asyncio.Runner, store: OnlineStore) -> Iterator[None]:
    """Close the store's connections while the event loop that they belong to still runs."""

    async def close() -> None:
        store.close()
        await asyncio.sleep(0)

    try:
        yield
    finally:
        runner.run(close())


@contextmanager
def valkey() -> Iterator[str]:
    program = shutil.which("valkey-server")
    if program is None:
        raise SystemExit("valkey-server is not on the PATH: tools/engines.sh")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as process:
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.02)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--feast", metavar="PYTHON", help="of an environment with Feast")
    parser.add_argument("--writes", type=float, default=10_000, help="rows a second; default %(default)s")
    parser.add_argument("--entities", type=int, default=10_000, help="stored ones; default %(default)s")
    parser.add_argument("--quick", action="store_true", help="a check that everything runs")
    parser.add_argument("--write", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_rows(options.write, options.writes, options.entities)
    rates: dict[str, Rates] = {
        "events": {1: (500.0, 1_000 if options.quick else 100_000), 100: (10.0, 50 if options.quick else 500)},
        "40 windows": {1: (200.0, 500 if options.quick else 20_000), 100: (3.0, 30 if options.quick else 300)},
    }
    print(
        "| store | entities | CPU ms | p50 ms | p99 ms | requests/s | writes/s |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    with valkey() as address, tempfile.TemporaryDirectory() as folder:
        load: dict[str, Any] = {"rates": rates, "writes": options.writes, "entities": options.entities}
        run_store("Cumulant, SQLite", f"sqlite://{folder}/online.db", **load)
        run_store("Cumulant, Valkey", f"valkey://{address}/0", **load)
        if options.feast:
            peer = [options.feast, str(Path(__file__).with_name("feast_peer.py")), folder, address]
            subprocess.run([*peer, *(["--quick"] if options.quick else [])], check=True)


if __name__ == "__main__":
    main()
