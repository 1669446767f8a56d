"""What the prediction log costs: microseconds a `put` on the worker's loop, rows a second that its process writes.

    python bench/serving/log.py

Prints one line a kind of request. The log process runs beside; its CPU time a row is measured too.
"""

# ruff: noqa: ASYNC110, ASYNC220, ASYNC240 - nothing else runs on this loop

import asyncio
import os
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from cumulant.core.plan import Field
from cumulant.serving.log import Entry, LogClient, command, scan

COLUMNS = [f"f{n}" for n in range(30)]
ROW = {name: float(n) * 1.1 for n, name in enumerate(COLUMNS)}
ANSWER = msgspec.json.encode([{"prediction": True, "probability": 0.25}])
TENSOR = np.random.default_rng(0).random((1, 30), dtype=np.float32)
TEXT = {"email": "ada@example.com", **ROW}


def entry(kind, number):
    given = {"id": f"{number:016x}", "time_us": time.time_ns() // 1000, "latency_us": 90, "version": "3"}
    if kind == "json":
        return Entry(**given, model="plain", rows=msgspec.json.encode([ROW]), answers=ANSWER)
    if kind == "personal":
        return Entry(**given, model="people", rows=msgspec.json.encode([TEXT]), answers=ANSWER)
    rows = 1 if kind == "tensor" else 100
    raw = np.repeat(TENSOR, rows, axis=0).tobytes()
    outputs = [("probability", "FP32", [rows], bytes(4 * rows))]
    return Entry(**given, model="plain", tensors=[("x", "FP32", [rows, 30], raw)], columns=COLUMNS, outputs=outputs)


def cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(kind, entries, rows):
    with tempfile.TemporaryDirectory() as folder:
        socket, place = f"{folder}/log.sock", Path(folder) / "log"
        process = subprocess.Popen(command(socket, place, visible="1s"))
        while not os.path.exists(socket):
            await asyncio.sleep(0.02)
        before = cpu(process.pid)
        client = LogClient(
            socket, worker="bench", personal={"plain": [], "people": [Field("email", "str", personal=True)]}
        )
        made = [entry(kind, number) for number in range(entries)]
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
        process.terminate()
        process.wait()
        seconds = time.perf_counter() - began
        used = os.times().children_user + os.times().children_system
        found = scan(place).count_rows()
        size = sum(file.stat().st_size for file in place.rglob("*.parquet"))
        assert found == entries * rows, (found, client.lost)
    return spent / entries * 1e6, found / seconds, used, before, size / found


async def main():
    taken = 0.0
    for kind, entries, rows in [
        ("json", 100_000, 1),
        ("personal", 100_000, 1),
        ("tensor", 100_000, 1),
        ("batch", 3_000, 100),
    ]:
        put, rate, used, before, size = await measure(kind, entries, rows)
        cost = (used - taken - before) / (entries * rows) * 1e6
        taken = used
        print(
            f"{kind:9} put {put:5.2f} us, {rate:9,.0f} rows/s written, {cost:5.1f} us of CPU and {size:4.0f} bytes a row"
        )


asyncio.run(main())
