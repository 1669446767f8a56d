"""What one posted row of an entity costs, and the read after it: an entity with many events, in tiles and in one blob.

    python bench/online/hot_entity.py [--quick] [URL]

URL is an online store; a SQLite file by default. Windows of 1 to 30 days over two columns, the events of 30 days.
Prints the median of CPU and elapsed milliseconds and the mean of bytes: of one post that is committed alone, of the
read after it, and of a read by a server that has nothing in its cache. Elapsed times contain the disk's.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from cumulant.core.plan import FeaturePlan, Field, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.online.tiles import TILES, TileRule
from cumulant.features.posted.state_update import advance
from cumulant.ports.online import Cells, OnlineStore
from cumulant.ports.plugins import Drivers

END = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 30
ONE_BLOB = TileRule(limit=10**12)


class CountedCells:
    def __init__(self, cells: Cells, store: CountedStore) -> None:
        self._cells, self._store = cells, store

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._store.count_read(self._cells.get(table, keys))

    def put(self, table: str, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        written = list(rows)
        self._store.written += sum(len(blob) for _, blob in written if blob is not None)
        self._cells.put(table, written)


class CountedStore:
    """An online store that counts the bytes of blobs."""

    def __init__(self, store: OnlineStore) -> None:
        self._store, self.remote, self.read_bytes, self.written = store, store.remote, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.count_read(self._store.get(table, keys))

    async def read(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.count_read(await self._store.read(table, keys))

    def update(self, change: Callable[[Cells], Any]) -> Any:
        return self._store.update(lambda cells: change(CountedCells(cells, self)))

    def count_read(self, blobs: list[bytes | None]) -> list[bytes | None]:
        self.read_bytes += sum(len(blob) for blob in blobs if blob is not None)
        return blobs


class Cost(NamedTuple):
    cpu: float
    elapsed: float
    read: int
    written: int


def make_plan() -> FeaturePlan:
    fields = (Field("id", "int"), Field("card", "int"), Field("at", "time"), Field("a", "float"), Field("b", "float"))
    card = source("tx").by("card")
    features: dict[str, Any] = {"number": card.count(window="30d")}
    for window in ("1d", "7d", "30d"):
        features |= {f"a_sum_{window}": card.sum("a", window=window), f"b_mean_{window}": card.mean("b", window=window)}
    return compile_plan(collect(features), {"tx": Source("tx", ("id",), "at", fields)}, entity="tx", predict_at=None)


def history(events: int) -> pl.DataFrame:
    random = np.random.default_rng(1)
    micros = np.sort(random.integers(0, DAYS * 86_400 * 10**6, events))
    at = pl.Series([END - timedelta(days=DAYS)]).dt.cast_time_unit("us") + pl.Series(micros).cast(pl.Duration("us"))
    columns = {"id": range(events), "card": [1] * events, "at": at, "a": random.random(events)}
    return pl.DataFrame(columns).with_columns(b=pl.Series(random.random(events)))


class HotEntity:
    """A table of one entity, and rows that are posted to it."""

    def __init__(self, store: OnlineStore, table: str, events: int, tiles: TileRule) -> None:
        self.store, self._table, self._tiles, self._plan = CountedStore(store), table, tiles, make_plan()
        options: dict[str, Any] = {"table": table, "scope": table, "tiles": tiles}
        materialize(self._plan, {"tx": history(events)}, self.store, **options)
        self._writer = StateWriter(self._plan, self.store, table, tiles=tiles)
        self._reader, self._number, self._events = self._server(), 10**8, events

    def post(self) -> None:
        self._number += 1
        at = END + (self._number - 10**8) * timedelta(days=DAYS) / self._events
        advance([self._writer], "tx", [{"id": self._number, "card": 1, "at": at, "a": 1.0, "b": 2.0}])

    def read(self) -> None:
        self._read(self._reader)

    def cold_read(self) -> None:
        self._read(self._server())

    def _server(self) -> OnlineFeatures:
        return OnlineFeatures(self._plan, self.store, self._table, cache_bytes=2**30)

    def _read(self, features: OnlineFeatures) -> None:
        at = END + (self._number + 1 - 10**8) * timedelta(days=DAYS) / self._events
        rows = [{"id": 10**9, "card": 1, "at": at, "a": 1.0, "b": 2.0}]
        if features.awaits:
            request = features.request(rows)
            features.vectors_of(request, asyncio.run(features.read_entities(request)))
        else:
            features.vectors(rows)


def measure(entity: HotEntity, call: Callable[[], None]) -> Cost:
    store = entity.store
    store.read_bytes = store.written = 0
    elapsed, cpu = time.perf_counter(), time.process_time()
    call()
    cpu, elapsed = time.process_time() - cpu, time.perf_counter() - elapsed
    return Cost(cpu * 1e3, elapsed * 1e3, store.read_bytes, store.written)


def report(name: str, what: str, costs: Sequence[Cost]) -> None:
    cpu, elapsed = (statistics.median(values) for values in ([each.cpu for each in costs], [each[1] for each in costs]))
    read, written = (statistics.fmean(values) for values in ([each[2] for each in costs], [each[3] for each in costs]))
    print(f"| {name} | {what} | {cpu:.2f} | {elapsed:.2f} | {read:,.0f} | {written:,.0f} |", flush=True)


def run(store: OnlineStore, events: int, repeats: int) -> None:
    for form, tiles in (("one blob", ONE_BLOB), ("as stored", TILES)):
        entity = HotEntity(store, f"t{events}{form}", events, tiles)
        entity.read()
        costs: dict[str, list[Cost]] = {"post": [], "read after it": [], "cold read": []}
        for at in range(repeats):
            costs["post"].append(measure(entity, entity.post))
            costs["read after it"].append(measure(entity, entity.read))
            if at % 10 == 0:
                costs["cold read"].append(measure(entity, entity.cold_read))
        for what, of in costs.items():
            report(f"{events:,} events, {form}", what, of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="of an online store")
    parser.add_argument("--quick", action="store_true", help="a check that everything runs")
    options = parser.parse_args()
    print("| entity | of | CPU ms | elapsed ms | bytes read | bytes written |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        url = options.url or f"sqlite://{folder}/online.db"
        store: OnlineStore = Drivers.installed().client(url, "online")
        for events in (20, 2_000) if options.quick else (20, 2_000, 100_000):
            run(store, events, 20 if options.quick else 600)
        store.close()


if __name__ == "__main__":
    main()
