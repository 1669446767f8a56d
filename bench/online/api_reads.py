"""Reads of stored features through the HTTP API beside writes: an open loop.

    python bench/online/api_reads.py [--quick] [--writes N] [--entities N]

A project of 10,000 entities with 20 events and 40 windows each, in SQLite, is served by `cumulant api`. A request asks
`POST /v1/projects/NAME/features/online` for the features of 1 or of 100 entities at a moment; requests are due at fixed
times, and what one waits for those before it counts. Meanwhile another process posts rows to the same table, as many a
second as it can up to `--writes`. CPU is that of the server's process by request, while requests are due: its start and
the first 50 requests are left out, what it does by itself meanwhile is not. `alone`: CPU before the writer starts, of
requests one after the other, the least of ten parts. Prints rows for bench/RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from feast_peer import measure, percentiles, warm_up
from run import END, POSTED, history

from cumulant.features.online.online import OnlineFeatures
from cumulant.features.posted.update_batches import Advancer
from cumulant.flows.features.backfill import backfill
from cumulant.flows.features.online_read import defined_plan
from cumulant.flows.identities.tokens import create_token
from cumulant.project.file.loading import load

FILE = """\
version: 1
model: {name: cards}
data:
  tx: {path: tx.parquet, key: id, event_time: at}
training: {target: label, predict_at: at}
"""
_WINDOWS = "".join(
    f'{column}_{kind} = card.{kind}("{column}", window=["1d", "7d", "14d", "30d"])\n'
    for column in ("a", "b")
    for kind in ("sum", "mean", "min", "max", "std")
)
FEATURES = f'from cumulant.features import source\ncard = source("tx").by("card")\n{_WINDOWS}'


def make_project(folder: Path, entities: int) -> tuple[str, str]:
    """The project with its stored features; the table, and a token of the API."""
    import polars as pl

    (folder / "cumulant.yaml").write_text(FILE)
    (folder / "features.py").write_text(FEATURES)
    history(entities).with_columns(label=pl.col("id") % 2 == 0).write_parquet(folder / "tx.parquet")
    with load(folder) as project:
        done = backfill(project, principal=project.principal())
        token = create_token(project, "bench", principal=project.principal())
        return done.table, token.secret


def post_rows(folder: Path, table: str, rate: float, entities: int) -> None:
    """Post rows for ever, at most `rate` a second; prints how many are durable."""
    random, number, durable, begun = np.random.default_rng(3), 0, 0, time.monotonic()
    first = time.time_ns() // 1000  # other keys than those of the process before: a row counts once
    with load(folder) as project:
        writer = OnlineFeatures(defined_plan(project), project.online(), table).writer()
        assert writer is not None, "the plan has windows"
        with Advancer([writer]) as advancer:
            waiting = []
            while True:
                cards = random.integers(0, entities, POSTED).tolist()
                rows = [
                    {"id": first + number + at, "card": card, "at": END + timedelta(milliseconds=number + at)}
                    | {"a": 1.0, "b": 2.0}
                    for at, card in enumerate(cards)
                ]
                waiting.append(advancer.post("tx", rows))
                number += POSTED
                if (ahead := number / rate - (time.monotonic() - begun)) > 0:
                    time.sleep(ahead)
                while waiting and (waiting[0].done() or len(waiting) >= 64):
                    durable += waiting.pop(0).result().accepted
                print(durable, flush=True)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int]]:
    """The address of a server of the API, and its process."""
    line = [sys.executable, "-m", "cumulant.cli", "api", "--http", "127.0.0.1:0", "--no-link", "--json"]
    with subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            text += process.stdout.readline().decode()
        try:
            yield json.loads(text)["url"], process.pid
        finally:
            process.kill()


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, to the nanosecond: /proc/PID/stat counts in steps of 10 ms."""
    return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) gives


class Reads:
    """Requests for `asked` of the stored entities each, to one server."""

    def __init__(self, url: str, token: str, pid: int, asked: int, entities: int, count: int) -> None:
        cards = np.random.default_rng(2).integers(0, entities, (count, asked)).tolist()
        at = (END + timedelta(hours=1)).isoformat()
        self._todo = [{"keys": [{"card": card} for card in of], "at": at, "definition": True} for of in cards]
        self._url, self._pid, self._asked = f"{url}/v1/projects/cards/features/online", pid, asked
        self._headers = {"authorization": f"Bearer {token}"}

    async def alone(self) -> float:
        """Milliseconds of the server's processor a request, one after the other."""
        async with self._client() as client:
            spent = []
            await warm_up(partial(self._read, client), self._todo)
            for first in range(0, len(self._todo), part := max(len(self._todo) // 10, 1)):
                before, requests = cpu_seconds(self._pid), self._todo[first : first + part]
                for body in requests:
                    await self._read(client, body)
                spent.append((cpu_seconds(self._pid) - before) / len(requests) * 1e3)
        return min(spent)

    async def at_a_rate(self, rate: float) -> tuple[float, ...]:
        """Milliseconds of processor, p50 and p99 in milliseconds, and requests a second."""
        async with self._client() as client:
            read = partial(self._read, client)
            await warm_up(read, self._todo)
            before, begun = cpu_seconds(self._pid), time.monotonic()
            seconds = await measure(read, self._todo, rate)
            spent, count = time.monotonic() - begun, len(self._todo)
            return (cpu_seconds(self._pid) - before) / count * 1e3, *percentiles(seconds), count / spent

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(headers=self._headers, timeout=60, limits=httpx.Limits(max_connections=32))

    async def _read(self, client: httpx.AsyncClient, body: object) -> None:
        response = await client.post(self._url, json=body)
        if response.status_code != 200 or len(response.json()["rows"]) != self._asked:
            raise SystemExit(f"no features: {response.status_code} {response.text[:300]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writes", type=float, default=10_000, help="rows a second; default %(default)s")
    parser.add_argument("--entities", type=int, default=10_000, help="stored ones; default %(default)s")
    parser.add_argument("--quick", action="store_true", help="a check that everything runs")
    parser.add_argument("--post", nargs=2, metavar=("FOLDER", "TABLE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.post:
        post_rows(Path(options.post[0]), options.post[1], options.writes, options.entities)
    print(
        "| entities | alone | CPU ms | p50 ms | p99 ms | requests/s | writes/s |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table, token = make_project(folder, options.entities)
        for asked, rate, count in (
            (1, 50.0, 200 if options.quick else 5_000),
            (100, 3.0, 30 if options.quick else 300),
        ):
            line = [sys.executable, __file__, "--post", name, table, "--writes", str(options.writes)]
            with serving(folder) as (url, pid), tempfile.TemporaryFile() as out:
                reads = Reads(url, token, pid, asked, options.entities, count)
                alone = asyncio.run(reads.alone())
                with subprocess.Popen([*line, "--entities", str(options.entities)], stdout=out) as writer:
                    try:
                        while not os.fstat(out.fileno()).st_size:
                            time.sleep(0.05)
                        before, begun = written(out.fileno()), time.monotonic()
                        figures = (alone, *asyncio.run(reads.at_a_rate(rate)))
                        writes = (written(out.fileno()) - before) / (time.monotonic() - begun)
                    finally:
                        writer.kill()
            row = " | ".join(f"{figure:.2f}" for figure in figures)
            print(f"| {asked} | {row} | {writes:,.0f} |", flush=True)


def written(descriptor: int) -> int:
    lines = os.pread(descriptor, 2**26, 0).split()
    return int(lines[-1]) if lines else 0


if __name__ == "__main__":
    main()
