"""Messages per second of ingestion from a real Kafka in one process, beside reading alone in the same run.

    python bench/streams/ingest.py --messages 500000
    python bench/streams/ingest.py --messages 500000 --formats json,avro,protobuf

About 100 bytes of JSON each, in 4 partitions of one broker on this machine (tools/engines.sh installs it, and the extra
`kafka` the client). "read" consumes all messages through the driver and drops them; "ingest" is what `cumulant ingest
run --once` calls: consume, decode, check, store, commit. Both begin at the first message; each is repeated, in turn.
CPU seconds are those of this process, with the client's threads. With several formats the same records are in a topic
of each, and all are ingested in turn; schemas are those of a small registry in this process, asked for once.
"""

from __future__ import annotations

import argparse
import base64
import cProfile
import io
import json
import os
import platform
import pstats
import random
import resource
import statistics
import tempfile
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from cumulant.drivers.kafka.streams import KafkaStreams
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_records import read_batches
from cumulant.project.file.loading import load
from cumulant.testing.servers.kafka import kafka_server
from cumulant.testing.servers.schema_registry import SchemaRegistry, schema_registry

PARTITIONS = 4
PROJECT = """
version: 1
model: {{name: bench}}
data:
  payments:
    stream: {topic}
    format: {format}
    key: id
    event_time: at
    rules: {{amount: {{type: float, min: 0, nulls: 0}}, kind: {{in: [card, cash]}}}}
environments: {{bench: {{streams: "{url}", schemas: "{schemas}"}}}}
"""


AVRO = {
    "type": "record",
    "name": "Payment",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": "string"},
        {"name": "amount", "type": "double"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["card", "cash"]}},
    ],
}


def records(count: int) -> list[dict[str, Any]]:
    rng = random.Random(19)
    return [
        {
            "id": number,
            "customer": f"c{rng.randrange(10_000)}",
            "amount": round(rng.random() * 100, 2),
            "at": f"2026-12-01T10:{number // 60 % 60:02d}:{number % 60:02d}Z",
            "kind": "card" if rng.random() < 0.8 else "cash",
        }
        for number in range(count)
    ]


def messages(count: int, kind: str, registry: SchemaRegistry) -> list[bytes]:
    """The same records in one of the formats."""
    if kind == "json":
        return [json.dumps(record).encode() for record in records(count)]
    return _avro(count, registry) if kind == "avro" else _protobuf(count, registry)


def _avro(count: int, registry: SchemaRegistry) -> list[bytes]:
    import fastavro

    head = b"\0" + registry.register("avro-value", json.dumps(AVRO)).to_bytes(4, "big")
    schema, values = fastavro.parse_schema(AVRO), []
    for record in records(count):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, schema, record | {"at": datetime.fromisoformat(record["at"])})
        values.append(head + stream.getvalue())
    return values


def _protobuf(count: int, registry: SchemaRegistry) -> list[bytes]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

    types = descriptor_pb2.FieldDescriptorProto
    needed = timestamp_pb2.DESCRIPTOR
    file = descriptor_pb2.FileDescriptorProto(name="p.proto", syntax="proto3", dependency=[needed.name])
    kinds = file.enum_type.add(name="Kind")
    kinds.value.add(name="card", number=0)
    kinds.value.add(name="cash", number=1)
    message = file.message_type.add(name="Payment")
    for number, (name, kind, named) in enumerate(
        [
            ("id", types.TYPE_INT64, None),
            ("customer", types.TYPE_STRING, None),
            ("amount", types.TYPE_DOUBLE, None),
            ("at", types.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
            ("kind", types.TYPE_ENUM, ".Kind"),
        ],
        1,
    ):
        message.field.add(name=name, number=number, type=kind, type_name=named, label=types.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(needed.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    payment: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("Payment"))
    text = base64.b64encode(file.SerializeToString()).decode()
    head = b"\0" + registry.register("protobuf-value", text, "PROTOBUF").to_bytes(4, "big") + b"\0"
    values = []
    for record in records(count):
        own = payment(id=record["id"], customer=record["customer"], amount=record["amount"], kind=record["kind"])
        own.at.FromJsonString(record["at"])
        values.append(head + own.SerializeToString())
    return values


class Timer:
    """Wall and CPU seconds of a block."""

    def __enter__(self) -> Self:
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


def read_all(url: str, topic: str, count: int) -> Timer:
    streams = KafkaStreams(url)
    with Timer() as timer, streams.consume(topic, dict.fromkeys(range(PARTITIONS), 0)) as consumer:
        read = 0
        while read < count:
            read += sum(len(batch.values) for batch in consumer.read(2 << 20, 0.5))
    streams.close()
    return timer


def ingest_all(url: str, kind: str, count: int, registry: SchemaRegistry, *, profile: bool) -> Timer:
    with tempfile.TemporaryDirectory() as folder:
        declared = "auto" if kind == "json" else kind
        text = PROJECT.format(url=url, topic=kind, format=declared, schemas=registry.location)
        (Path(folder) / "cumulant.yaml").write_text(text.replace("    format: auto\n", ""))
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


def send(url: str, topic: str, sent: list[bytes]) -> float:
    """Send messages to all partitions, and return their mean size."""
    streams = KafkaStreams(url)
    for partition in range(PARTITIONS):
        streams.produce(topic, sent[partition::PARTITIONS], partition=partition)
    streams.close()
    return sum(map(len, sent)) / len(sent)


def report(kind: str, size: float, count: int, read: list[Timer], ingested: list[Timer]) -> None:
    print(f"{kind}, {count:,} messages of {size:.0f} bytes:")
    for name, timers in (("read", read), ("ingest", ingested)):
        rate = statistics.median(count / timer.wall for timer in timers)
        cpu = statistics.median(timer.cpu for timer in timers) / count * 1e6
        print(f"{name}: {rate:,.0f} messages/s, {cpu:.2f} us of CPU each, {1e6 / cpu:,.0f} a CPU second")
    shares = [one.wall / other.wall for one, other in zip(read, ingested, strict=True)]
    by_cpu = sum(timer.cpu for timer in read) / sum(timer.cpu for timer in ingested)
    print(f"ingest / read: {statistics.median(shares):.2f}; by CPU {by_cpu:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--formats", default="json", help="json, avro, protobuf, separated by commas")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    count, formats = options.messages, options.formats.split(",")
    with tempfile.TemporaryDirectory() as folder, kafka_server(Path(folder)) as broker, schema_registry() as registry:
        sizes = {}
        for kind in formats:
            broker.create_topic(kind, PARTITIONS)
            sizes[kind] = send(broker.url, kind, messages(count, kind, registry))
        read: dict[str, list[Timer]] = {kind: [] for kind in formats}
        ingested: dict[str, list[Timer]] = {kind: [] for kind in formats}
        for _ in range(options.repeats):
            for kind in formats:
                read[kind].append(read_all(broker.url, kind, count))
                ingested[kind].append(ingest_all(broker.url, kind, count, registry, profile=options.profile))
    for kind in formats:
        report(kind, sizes[kind], count, read[kind], ingested[kind])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:,.0f} MiB (with the messages to send)")
    packages = ", ".join(f"{name} {version(name)}" for name in ("confluent-kafka", "polars", "msgspec"))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {packages}")


if __name__ == "__main__":
    main()
