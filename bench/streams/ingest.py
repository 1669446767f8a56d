"""Messages per second of ingestion from a real Kafka in one process, beside reading alone in the same run.

    python bench/streams/ingest.py --messages 500000

About 100 bytes of JSON each, in 4 partitions of one broker on this machine (tools/engines.sh installs it, and the extra
`kafka` the client). "read" consumes all messages through the driver and drops them; "ingest" is what `cumulant ingest
run --once` calls: consume, decode, check, store, commit. Both begin at the first message; each is repeated, in turn.
CPU seconds are those of this process, with the client's threads.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import random
import resource
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Self

from cumulant.drivers.kafka.streams import KafkaStreams
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_records import read_batches
from cumulant.project.file.loading import load
from cumulant.testing.servers.kafka import kafka_server

PARTITIONS = 4
PROJECT = """
version: 1
model: {{name: bench}}
data:
  payments:
    stream: payments
    key: id
    event_time: at
    rules: {{amount: {{type: float, min: 0, nulls: 0}}, kind: {{in: [card, cash]}}}}
environments: {{bench: {{streams: "{url}"}}}}
"""


def messages(count: int) -> list[bytes]:
    rng = random.Random(19)
    return [
        json.dumps(
            {
                "id": number,
                "customer": f"c{rng.randrange(10_000)}",
                "amount": round(rng.random() * 100, 2),
                "at": f"2026-12-01T10:{number // 60 % 60:02d}:{number % 60:02d}Z",
                "kind": "card" if rng.random() < 0.8 else "cash",
            }
        ).encode()
        for number in range(count)
    ]


class Timer:
    """Wall and CPU seconds of a block."""

    def __enter__(self) -> Self:
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


def read_all(url: str, count: int) -> Timer:
    streams = KafkaStreams(url)
    with Timer() as timer, streams.consume("payments", dict.fromkeys(range(PARTITIONS), 0)) as consumer:
        read = 0
        while read < count:
            read += sum(len(batch.values) for batch in consumer.read(2 << 20, 0.5))
    streams.close()
    return timer


def ingest_all(url: str, count: int, *, profile: bool) -> Timer:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cumulant.yaml").write_text(PROJECT.format(url=url))
        with load(folder, environment="bench") as project:
            who = project.principal()
            profiler = cProfile.Profile()
            if profile:
                profiler.enable()
            with Timer() as timer:
                (result,) = ingest_streams(project, principal=who, once=True)
            if profile:
                profiler.disable()
                pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
            assert (result.rows, result.refused) == (count, 0)
            assert sum(batch.messages for batch in read_batches(project, "payments")) == count
    return timer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    sent = messages(options.messages)
    size = sum(map(len, sent)) / len(sent)
    with tempfile.TemporaryDirectory() as folder, kafka_server(Path(folder)) as broker:
        broker.create_topic("payments", PARTITIONS)
        streams = KafkaStreams(broker.url)
        for partition in range(PARTITIONS):
            streams.produce("payments", sent[partition::PARTITIONS], partition=partition)
        streams.close()
        del sent
        read, ingested = [], []
        for _ in range(options.repeats):
            read.append(read_all(broker.url, options.messages))
            ingested.append(ingest_all(broker.url, options.messages, profile=options.profile))
    rates = {}
    for name, timers in (("read", read), ("ingest", ingested)):
        rates[name] = statistics.median(options.messages / timer.wall for timer in timers)
        cpu = statistics.median(timer.cpu for timer in timers) / options.messages * 1e6
        print(f"{name}: {rates[name]:,.0f} messages/s, {cpu:.2f} us of CPU each")
    shares = [one.wall / other.wall for one, other in zip(read, ingested, strict=True)]
    print(
        f"ingest / read: {statistics.median(shares):.2f}; by CPU {sum(t.cpu for t in read) / sum(t.cpu for t in ingested):.2f}"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.messages:,} messages of {size:.0f} bytes; peak memory {peak:,.0f} MiB (with the messages to send)")
    packages = ", ".join(f"{name} {version(name)}" for name in ("confluent-kafka", "polars", "msgspec"))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {packages}")


if __name__ == "__main__":
    main()
