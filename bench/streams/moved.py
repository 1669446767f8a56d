"""Two brokers of a real Kafka: one is killed, and partitions are moved, while their messages are ingested.

    python bench/streams/moved.py

Each partition has a replica on both brokers. Messages are sent before and after the second broker is killed (its partition
gets another leader), and after both partitions were moved to it. Is each message in the table once, and what is told?
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # it is re-exported unsaid

from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_reader import IngestLimits
from cumulant.flows.data.stream_records import find_state, read_batches
from cumulant.project.file.loading import load
from cumulant.project.project import Project
from cumulant.testing.servers.kafka import KafkaServer, kafka_server
from cumulant.testing.servers.programs import free_port, required_program

PATIENCE = 120.0
JAVA = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
PROJECT = """
version: 1
model: {{name: bench}}
data: {{payments: {{stream: payments, key: id}}}}
environments: {{bench: {{streams: "{url}"}}}}
"""


class SecondBroker:
    """Joins the cluster of a first one."""

    def __init__(self, first: KafkaServer, folder: Path) -> None:
        self.port, self._file = free_port(), folder / "second.properties"
        properties = (folder / "server.properties").read_text().splitlines()
        control = next(line for line in properties if line.startswith("controller.quorum.voters"))
        place = f"PLAINTEXT://127.0.0.1:{self.port}"
        kept = [line for line in properties if line.split("=")[0] in {"controller.listener.names", "inter.broker.listener.name", "listener.security.protocol.map", "broker.heartbeat.interval.ms", "broker.session.timeout.ms"}]  # fmt: skip
        own = ["process.roles=broker", "node.id=2", f"listeners={place}", f"advertised.listeners={place}"]
        self._file.write_text("\n".join([*kept, control, *own, f"log.dirs={folder / 'second'}"]))
        meta = (folder / "logs" / "meta.properties").read_text().splitlines()
        cluster = next(line.partition("=")[2] for line in meta if line.startswith("cluster.id"))
        run_tool("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._file))
        self.start()

    def start(self) -> None:
        command = [required_program("kafka-run"), *JAVA, "kafka.Kafka", str(self._file)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def run_tool(*words: str) -> None:
    subprocess.run([required_program("kafka-run"), *JAVA, *words], check=True, capture_output=True)


def wait_until(condition: Callable[[], bool]) -> float:
    """Seconds until the condition holds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE:
            raise SystemExit("it took too long")
        time.sleep(0.1)
    return time.monotonic() - began


def measure(first: KafkaServer, second: SecondBroker, project: Project, folder: Path) -> None:
    admin, streams, sent = first.admin(), project.streams(), 0
    told: list[str] = []
    stop = threading.Event()

    def leaders() -> dict[int, tuple[int, list[int]]]:
        partitions = admin.list_topics("payments", timeout=10).topics["payments"].partitions
        return {number: (each.leader, sorted(each.isrs)) for number, each in partitions.items()}

    def send() -> None:
        nonlocal sent
        for partition in (0, 1):
            values = [json.dumps({"id": number}).encode() for number in range(sent, sent + 1000)]
            streams.produce("payments", values, partition=partition)
            sent += 1000

    def is_ingested() -> bool:
        state, _ = find_state(project, "payments")
        return state is not None and state.messages >= sent

    def follow() -> None:
        limits = IngestLimits(seconds=0.2)
        ingest_streams(
            project,
            principal=project.principal(),
            stop=stop,
            limits=limits,
            progress=lambda text, _=None: told.append(text),
        )

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        send()
        wait_until(is_ingested)
        second.kill()
        seconds = wait_until(lambda: leaders()[1][0] == 1)
        send()
        wait_until(is_ingested)
        print(f"broker killed: another leader after {seconds:.1f} s, all messages ingested")
        second.start()
        wait_until(lambda: all(replicas == [1, 2] for _, replicas in leaders().values()))
        plan = {"version": 1, "partitions": [{"topic": "payments", "partition": p, "replicas": [2]} for p in (0, 1)]}
        (folder / "plan.json").write_text(json.dumps(plan))
        place = f"127.0.0.1:{first.port}"
        tool = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
        run_tool(tool, "--bootstrap-server", place, "--reassignment-json-file", str(folder / "plan.json"), "--execute")
        wait_until(lambda: all(each == (2, [2]) for each in leaders().values()))
        send()
        wait_until(is_ingested)
        print("partitions moved to the other broker: all messages ingested")
    finally:
        stop.set()
        follower.join()
    tables = project.tables()
    rows = [batch.rows.scan(tables).collect()["id"] for batch in read_batches(project, "payments") if batch.rows]
    ids = Counter(number for column in rows for number in column)
    print(f"sent {sent:,}, distinct {len(ids):,}, the most often {max(ids.values())}")
    print("told:", [text for text in told if "messages of" not in text] or "nothing")


def main() -> None:
    with tempfile.TemporaryDirectory() as name, kafka_server(Path(name)) as first:
        folder = Path(name)
        second = SecondBroker(first, folder)
        try:
            wait_until(lambda: len(first.admin().list_topics(timeout=10).brokers) == 2)
            topic = NewTopic("payments", 2, replica_assignment=[[1, 2], [2, 1]])
            admin = first.admin()  # kept until it has the answer
            admin.create_topics([topic])["payments"].result(timeout=60)
            root = folder / "project"
            root.mkdir()
            (root / "cumulant.yaml").write_text(PROJECT.format(url=f"{first.url},127.0.0.1:{second.port}"))
            with load(root, environment="bench") as project:
                measure(first, second, project, folder)
        finally:
            second.kill()


if __name__ == "__main__":
    main()
