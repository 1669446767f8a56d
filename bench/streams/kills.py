"""Kill the process that ingests a stream again and again: is each message in the table once?

    python bench/streams/kills.py --kills 50 --messages 1200000

The topic is a folder with 3 partitions. Each process is killed by SIGKILL 0.4 to 0.9 s after it began; the last one ends
by itself.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from cumulant.flows.data.stream_ingestion import IngestLimits, ingest_streams
from cumulant.flows.data.stream_records import read_batches
from cumulant.project.file.loading import load

PARTITIONS = 3
PROJECT = """
version: 1
model: {name: bench}
data:
  payments: {stream: payments, key: id, rules: {amount: {min: 0}}}
"""


def write_topic(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for partition in range(PARTITIONS):
        with (folder / f"{partition}.jsonl").open("w") as file:
            for number in range(partition, count, PARTITIONS):
                fields = f'"id": {number}, "customer": "c{number % 999}", "amount": {number % 100}.5'
                file.write(f'{{{fields}, "at": "2026-12-01T10:00:00Z", "kind": "card"}}\n')


def work(root: str) -> None:
    with load(root) as project:
        print("ready", flush=True)
        ingest_streams(project, principal=project.principal(), once=True, limits=IngestLimits(bytes=4 << 20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--messages", type=int, default=1_200_000)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    rng = random.Random(19)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "cumulant.yaml").write_text(PROJECT)
        write_topic(root / ".cumulant" / "streams" / "payments", options.messages)
        with load(root) as project:
            for _ in range(options.kills):
                command = [sys.executable, __file__, "--work", folder]
                with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                    assert process.stdout is not None
                    process.stdout.readline()
                    time.sleep(rng.uniform(0.4, 0.9))
                    process.kill()
            before = sum(batch.messages for batch in read_batches(project, "payments"))
            work(folder)
            tables, batches = project.tables(), read_batches(project, "payments")
            ids = pl.concat([tables.scan(batch.rows).select("id").collect() for batch in batches if batch.rows])["id"]
    print(f"{options.kills} kills, {before:,} of {options.messages:,} messages committed by then")
    print(f"rows {ids.len():,}, distinct {ids.n_unique():,}, lost {options.messages - ids.n_unique():,}")


if __name__ == "__main__":
    main()
