"""Events per second of a job of Flink from Kafka to Kafka, beside the embedded runner in the same run.

    PYTHONPATH=bench/streams python bench/features/flink.py --events 200000 --history 100000

Needs `flink-run` and `kafka-run` of tools/engines.sh on the PATH. The windows of the Fraud Detection Handbook
(`examples/fraud/features.py`). "embedded" is one run of `bench/streams/online.py`: `cumulant ingest run --once` with
online features in SQLite, from files. "flink" is the job of `features start-job` on a session cluster of one JobManager
and one TaskManager, with parallelism 1. It has processed the history before, so that planning, start-up and the first
compilation are apart; then the events are written to its topic of four partitions. Its clock runs from then until the
last of their results is committed. Processor time is that of TaskManager and JobManager; the brokers' and the
producer's are apart. Results of some rows are compared with those computed of all rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import online
import polars as pl

from cumulant.features.offline.offline import compute
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.features.jobs.run_job import start_job, stop_jobs
from cumulant.flows.project.planning import plan as make_plan
from cumulant.project.file.loading import load
from cumulant.testing.servers.flink import FlinkCluster, flink_cluster
from cumulant.testing.servers.kafka import kafka_server

PROJECT = online.PROJECT.replace("stream: tx", "stream: tx\n    lateness: 1m\n    idle: 1h").partition("environments:")[
    0
]
ENVIRONMENT = """environments:
  bench:
    streams: {streams}
    stream_engine: flink://127.0.0.1:{gateway}?checkpoints={folder}&interval=1s&jobmanager=127.0.0.1:{jobs}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--history", type=int, default=100_000, help="payments of 30 days before")
    parser.add_argument("--heap", default="3g", help="of the TaskManager")
    parser.add_argument("--customers", type=int, default=5_000)
    parser.add_argument("--terminals", type=int, default=10_000)
    options = parser.parse_args()
    rest = {"unlabelled": 0.0, "seconds": 86_400, "batch": 32, "profile": False, "folder": None}
    for name, value in rest.items():
        setattr(options, name, value)
    history = online.payments(0, options.history, online.START, 30 * 86_400, options)
    begin = online.START + timedelta(days=30)
    events = online.payments(options.history, options.events, begin, options.seconds, options)
    print(f"{options.events:,} events after {options.history:,}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    embedded(options, history, events)
    flink(options, history, events)
    print(f"load {os.getloadavg()[0]:.1f}")


def embedded(options: argparse.Namespace, history: list[bytes], events: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        template = Path(name)
        for part, values in (("history", history), ("events", events)):
            online.produce(template, values)
            shutil.move(template / "tx", template / part)
        spent = online.measure(options, "sqlite", template, 0)
    wall, cpu = (sum(spent[f"{part} {clock}"] for part in ("ingest", "apply")) for clock in ("wall", "cpu"))
    report("embedded", options.events, wall, cpu)


def flink(options: argparse.Namespace, history: list[bytes], events: list[bytes]) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("flink", "kafka", "project"):
            (folder / name).mkdir()
        worker = (f"-Xms{options.heap}", f"-Xmx{options.heap}")
        cluster = stack.enter_context(flink_cluster(folder / "flink", java=("-XX:+UseParallelGC",), worker=worker))
        broker = stack.enter_context(kafka_server(folder / "kafka"))
        broker.create_topic("tx", online.PARTITIONS)
        place = folder / "project"
        environment = ENVIRONMENT.format(
            streams=broker.url, gateway=cluster.gateway, jobs=cluster.jobs, folder=(folder / "checkpoints").as_uri()
        )
        (place / "cumulant.yaml").write_text(PROJECT.replace("{{", "{").replace("}}", "}") + environment)
        shutil.copy(online.ROOT / "examples/fraud/features.py", place / "features.py")
        project = stack.enter_context(load(place, environment="bench"))
        who, streams = project.principal(), project.streams()
        produce(streams, history)
        ingest_streams(project, principal=who, once=True)
        plan = make_plan(project, principal=who, checks=False).features
        started = time.perf_counter()
        job = start_job(project, principal=who)
        with streams.consume(job.topic, dict.fromkeys(streams.partitions(job.topic), 0)) as results:
            before = awaited(results, 0.99 * len(history))
            print(
                f"flink: {len(before):,} results of the history {time.perf_counter() - started:.0f} s after the start"
            )
            cpu, wall = seconds(cluster), time.perf_counter()
            ends = [ending(events[-1], number) for number in range(online.PARTITIONS)]
            produce(streams, [*events, *ends])
            written = time.perf_counter() - wall
            rows = awaited(results, len(history) + len(events) - len(before))
            wall, cpu = time.perf_counter() - wall, seconds(cluster) - cpu
        report("flink", options.events, wall, cpu)
        print(f"flink: the events were written in {written:.1f} s")
        stop_jobs(project, principal=who)
        compare(plan, [*history, *events], [*before, *rows])


def ending(last: bytes, number: int) -> bytes:
    """A payment an hour after the last one, for each partition: watermarks pass all events."""
    row = json.loads(last)
    later = (datetime.fromisoformat(row["TX_DATETIME"]) + timedelta(hours=1)).isoformat()
    return json.dumps(row | {"TRANSACTION_ID": 10**12 + number, "TX_DATETIME": later}).encode()


def produce(streams, values: list[bytes]) -> None:
    for partition in range(online.PARTITIONS):
        utc = (value.replace(b"+00:00", b"Z") for value in values[partition :: online.PARTITIONS])
        streams.produce("tx", utc, partition=partition)


def awaited(results, count: float) -> list[bytes]:
    rows: list[bytes] = []
    while len(rows) < count:
        rows += [value for part in results.read(4 << 20, 5.0) for value in part.values if value]
    return rows


def seconds(cluster: FlinkCluster) -> float:
    """Processor seconds of the TaskManager and the JobManager so far."""
    total = 0
    for name in ("worker", "jobmanager"):
        fields = Path(f"/proc/{cluster.processes[name].pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def report(name: str, events: int, wall: float, cpu: float) -> None:
    print(f"{name}: {wall:.1f} s, {events / wall:,.0f} events/s, {events / cpu:,.0f} a core second ({cpu:.1f} s of it)")


def compare(plan, sent: list[bytes], results: list[bytes]) -> None:
    frame = pl.DataFrame([json.loads(value) for value in sent], infer_schema_length=None).with_columns(
        pl.col("TX_DATETIME").str.to_datetime(time_zone="UTC")
    )
    right = compute(plan, {"tx": frame})
    by_key = dict(zip(frame["TRANSACTION_ID"].to_list(), right.to_dicts(), strict=True))
    rows = [json.loads(value) for value in results]
    assert len({row["TRANSACTION_ID"] for row in rows}) == len(rows) == len(sent)
    count = 0
    for row in random.Random(1).sample(rows, 5_000):
        for feature in plan.names:
            value, other = row[feature], by_key[row["TRANSACTION_ID"]][feature]
            same = value == other or (value is not None and abs(value - other) <= 1e-9 * max(abs(value), 1))
            assert same, (feature, row, other)
            count += 1
    print(f"{count:,} values equal to those computed of all rows, each row once")


if __name__ == "__main__":
    main()
