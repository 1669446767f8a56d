"""What the prediction log costs: microseconds a `put` on the worker's loop, rows a second that its process writes.

    python bench/serving/log.py

Prints one line a kind of request. The log process runs beside; its CPU time a row is measured too.
"""

# ruff: noqa: ASYNC110, ASYNC220, ASYNC222, ASYNC240 - nothing else runs on this loop

import asyncio
import os
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from cumulant.core.plan import Field
from cumulant.serving.prediction_log.client import LogClient
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.log_command import log_command
from cumulant.serving.prediction_log.storage.scanning import scan
from cumulant.testing.log import folder_log

COLUMNS = [f"f{n}" for n in range(30)]
RANDOM = np.random.default_rng(0)
ANSWER = msgspec.json.encode([{"prediction": True, "probability": 0.25}])


def entry(kind, number):
    given = {"id": f"{number:016x}", "time_us": time.time_ns() // 1000, "latency_us": 90, "version": "3"}
    rows = 100 if kind == "batch" else 1
    values = RANDOM.random((rows, 30), dtype=np.float32)
    row = dict(zip(COLUMNS, (round(value, 4) for value in values[0].tolist()), strict=True))
    if kind == "json":
        return LogEntry(**given, model="plain", rows=msgspec.json.encode([row]), answers=ANSWER)
    if kind == "personal":
        row = {"email": f"person{number}@example.com", **row}
        return LogEntry(**given, model="people", rows=msgspec.json.encode([row]), answers=ANSWER)
    raw = values.tobytes()
    outputs = [("probability", "FP32", [rows], bytes(4 * rows))]
    return LogEntry(**given, model="plain", tensors=[("x", "FP32", [rows, 30], raw)], columns=COLUMNS, outputs=outputs)


def cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(kind, entries, rows):
    with tempfile.TemporaryDirectory() as folder:
        socket, place = f"{folder}/log.sock", Path(folder) / "log"
        process = subprocess.Popen(log_command(socket, place, visible="1s"))
        while not os.path.exists(socket):
            await asyncio.sleep(0.02)
        people = [Field("email", "str", personal=True)]
        client = LogClient(socket, worker="bench", personal={"plain": [], "people": people})
        made = [entry(kind, number) for number in range(entries)]
        client.put(entry(kind, entries))
        while not list(place.rglob("*.parquet")):  # it has imported what it needs
            await asyncio.sleep(0.05)
        before = cpu(process.pid)
        spent = 0.0
        began = time.perf_counter()
        for start in range(0, entries, 100):
            while client.waiting > 8 * 1024 * 1024:
                await asyncio.sleep(0.005)
            first = time.perf_counter()
            for one in made[start : start + 100]:
                client.put(one)
            spent += time.perf_counter() - first
            await asyncio.sleep(0)
        await client.close(timeout=60)
        resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        process.terminate()
        _, _, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        found = scan(folder_log(place)).dataset.count_rows() - rows
        size = sum(file.stat().st_size for file in place.rglob("*.parquet")) / found
        assert found == entries * rows, (found, client.lost)
    used = usage.ru_utime + usage.ru_stime - before
    print(
        f"{kind:9} put {spent / entries * 1e6:5.2f} us, {found / seconds:9,.0f} rows/s written; a row costs "
        f"{used / found * 1e6:5.1f} us of CPU and {size:4.0f} bytes; {resident / 2**20:4.0f} MiB resident"
    )


async def main():
    for kind, entries, rows in [
        ("json", 200_000, 1),
        ("personal", 100_000, 1),
        ("tensor", 200_000, 1),
        ("batch", 3_000, 100),
    ]:
        await measure(kind, entries, rows)


asyncio.run(main())
