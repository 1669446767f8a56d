"""Online state as it moves on: microseconds a posted row by the size of a commit, and reads beside it.

    .venv/bin/python bench/features/advance.py ../shared/data

The Fraud Handbook's features on SQLite, filled as of 1 June with 30 days of windows; June's payments are posted. A
commit is durable: fsync is part of it, and reported alone too. Reads are of one row of a warm cache: with nobody
writing, and with another process that commits 32 rows at a time without a pause. Prints rows for bench/RESULTS.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import polars as pl
from run import handbook_plan, payments

from cumulant.drivers.local.online import SqliteOnline
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures

AS_OF = datetime(2018, 6, 1, tzinfo=UTC)
BATCHES = {1: 200, 32: 60, 512: 12}
READS = 2_000


def june(tx: pl.DataFrame, plan: Any) -> list[dict[str, Any]]:
    fields = [field.name for field in plan.request]
    return tx.filter(pl.col("TX_DATETIME") > AS_OF).sort("TX_DATETIME").select(fields).head(40_000).to_dicts()


def state(url: str, tx: pl.DataFrame, plan: Any) -> OnlineFeatures:
    store = SqliteOnline(url)
    materialize(plan, {"tx": tx}, store, table="t", as_of=AS_OF, since=AS_OF - timedelta(days=1))
    return OnlineFeatures(plan, store, "t", cache_bytes=2**30)


def write(online: OnlineFeatures, rows: list[dict[str, Any]]) -> None:
    at = 0
    for batch, times in BATCHES.items():
        spent = []
        for _ in range(times):
            start = time.perf_counter()
            online.advance("tx", rows[at : at + batch])
            spent.append((time.perf_counter() - start) * 1e6 / batch)
            at += batch
        start = time.process_time()
        for _ in range(times):
            online.advance("tx", rows[at : at + batch])
            at += batch
        cpu = (time.process_time() - start) * 1e6 / batch / times
        print(f"| advance, {batch} rows a commit | {median(spent):.0f} µs a row | {cpu:.0f} µs CPU a row |")


def read(name: str, online: OnlineFeatures, rows: list[dict[str, Any]]) -> None:
    wanted = rows[-200:]
    for row in wanted:
        online.vectors([row])
    spent = []
    for i in range(READS):
        row = wanted[i % len(wanted)]
        start = time.perf_counter()
        online.vectors([row])
        spent.append((time.perf_counter() - start) * 1e6)
    print(f"| {name} | {median(spent):.0f} µs, p99 {quantiles(spent, n=100)[98]:.0f} µs | |")


def fsync(folder: Path) -> None:
    handle, spent = os.open(folder / "probe", os.O_CREAT | os.O_WRONLY), []
    for _ in range(100):
        os.write(handle, b"x" * 4096)
        start = time.perf_counter()
        os.fsync(handle)
        spent.append((time.perf_counter() - start) * 1e6)
    print(f"| fsync alone | {median(spent):.0f} µs | |")


def main(data: Path) -> None:
    tx = payments(data)
    plan = handbook_plan(tx)
    with tempfile.TemporaryDirectory() as name:
        url = f"sqlite:///{name}/online.db"
        rows, online = june(tx, plan), state(url, tx, plan)
        print("| what | wall | CPU |\n|---|---|---|")
        fsync(Path(name))
        read("read one row, nobody writes", online, rows)
        if not hasattr(online, "advance"):  # to be run against an older version too
            return
        write(online, rows)
        read("read one row, after", online, rows)
        writer = subprocess.Popen([sys.executable, __file__, "write", url, str(data)])
        time.sleep(12)
        try:
            assert writer.poll() is None, "the writer ended"
            read("read one row, another process writes", online, rows)
        finally:
            writer.kill()
            writer.wait()


def keep_writing(url: str, data: Path) -> None:
    tx = payments(data)
    plan = handbook_plan(tx)
    online, rows = OnlineFeatures(plan, SqliteOnline(url), "t"), june(tx, plan)[20_000:39_000]
    for at in range(0, len(rows), 32):
        online.advance("tx", rows[at : at + 32])
    raise SystemExit("the rows ran out")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        keep_writing(sys.argv[2], Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]))
