"""Kill processes that ingest a topic of a real Kafka together, again and again: is each message in the table once?

    python bench/streams/kills.py --kills 50 --messages 5000000

Two processes share the topic's 4 partitions, of one broker on this machine (tools/engines.sh installs it, and the extra
`kafka` the client). The kills are spread over the messages: each time one of the two, by turns, is killed by SIGKILL 0
to 0.5 s after so many were committed, and another is started. The last two read on until all is committed.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import polars as pl

from cumulant.core.system.end_signals import end_event
from cumulant.data.streams.records import StreamState
from cumulant.drivers.kafka.streams import KafkaStreams
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_reader import IngestLimits
from cumulant.flows.data.stream_records import find_state, read_batches
from cumulant.project.file.loading import load
from cumulant.project.project import Project
from cumulant.testing.servers.kafka import kafka_server

PARTITIONS = 4
#: messages that are sent at once, and the most seconds for which nothing may be committed
SENT_AT_ONCE, PATIENCE = 200_000, 120.0
PROJECT = """
version: 1
model: {{name: bench}}
data:
  payments: {{stream: payments, key: id, rules: {{amount: {{min: 0}}}}}}
environments: {{bench: {{streams: "{url}"}}}}
"""


def send(url: str, count: int) -> None:
    streams = KafkaStreams(url)
    for partition in range(PARTITIONS):
        values = (
            b'{"id": %d, "customer": "c%d", "amount": %d.5, "at": "2026-12-01T10:00:00Z", "kind": "card"}'
            % (number, number % 999, number % 100)
            for number in range(partition, count, PARTITIONS)
        )
        while some := list(islice(values, SENT_AT_ONCE)):
            streams.produce("payments", some, partition=partition)
    streams.close()


def work(root: str) -> None:
    stop = end_event()
    with load(root, environment="bench") as project:
        ingest_streams(project, principal=project.principal(), stop=stop, limits=IngestLimits(bytes=8 << 20, seconds=1))


def start(root: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "--work", root])


def wait_for(project: Project, messages: int) -> StreamState:
    """The state once so many messages are committed."""
    before, deadline = -1, 0.0
    while True:
        state = find_state(project, "payments")[0] or StreamState(topic="", identity="")
        if state.messages >= messages:
            return state
        if state.messages != before:
            before, deadline = state.messages, time.monotonic() + PATIENCE
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing was committed after {before:,} messages")
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--messages", type=int, default=5_000_000)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    rng, count = random.Random(19), options.messages
    with tempfile.TemporaryDirectory() as folder, kafka_server(Path(folder)) as broker:
        root = Path(folder) / "project"
        root.mkdir()
        (root / "cumulant.yaml").write_text(PROJECT.format(url=broker.url))
        broker.create_topic("payments", PARTITIONS)
        send(broker.url, count)
        began, load_then = time.monotonic(), os.getloadavg()[0]
        workers = [start(str(root)) for _ in range(2)]
        with load(root, environment="bench") as project:
            try:
                for kill in range(options.kills):
                    wait_for(project, (kill + 1) * count // (options.kills + 1))
                    time.sleep(rng.uniform(0, 0.5))
                    workers[kill % 2].kill()
                    workers[kill % 2].wait()
                    workers[kill % 2] = start(str(root))
                at_last_kill = wait_for(project, 0).messages
                wait_for(project, count)
                seconds = time.monotonic() - began
            finally:
                for worker in workers:
                    worker.terminate()
                    worker.wait()
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # without the broker
            tables, batches = project.tables(), read_batches(project, "payments")
            ids = pl.concat([batch.rows.scan(tables).select("id").collect() for batch in batches if batch.rows])["id"]
            assert [batch.number for batch in batches] == list(range(1, len(batches) + 1))
    print(f"{options.kills} kills, the last at {at_last_kill:,} of {count:,} messages; {len(batches):,} batches")
    print(f"rows {ids.len():,}, distinct {ids.n_unique():,}, lost {count - ids.n_unique():,}")
    print(f"{seconds:.0f} s, {count / seconds:,.0f} messages/s, peak memory of a process {memory:,.0f} MiB")
    print(f"{os.cpu_count()} cores, load {load_then:.1f} before, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
