#!/usr/bin/env python3
"""The Black Friday demo on a Kafka broker, Flink and Valkey of its own, which end with it.

`make demo-fraud ENGINES=live` installs the programs and runs this; arguments are those of `cumulant demo-fraud`. The
demo itself runs `live_demo.py replace-topic PORT` and `live_demo.py restart-online PORT` for two of its faults.
"""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # one of them is re-exported unsaid

from cumulant.demo.fraud.project import PARTITIONS, TOPIC
from cumulant.testing.servers.flink import flink_cluster
from cumulant.testing.servers.kafka import KafkaServer, kafka_server
from cumulant.testing.servers.programs import required_program
from cumulant.testing.servers.valkey import ValkeyServer, valkey_server


@contextmanager
def restarting(valkey: ValkeyServer) -> Iterator[None]:
    """The server is started again where it ends, as by a service manager; it keeps nothing."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            with suppress(subprocess.TimeoutExpired):
                valkey.process.wait(0.2)
                if not over.is_set():
                    valkey.start()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def replace_topic(port: str) -> None:
    """Delete the demo's topic, and make another one of its name."""
    broker = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})
    broker.delete_topics([TOPIC], operation_timeout=30)[TOPIC].result(timeout=60)
    anew = NewTopic(TOPIC, num_partitions=PARTITIONS, replication_factor=1)
    broker.create_topics([anew], operation_timeout=30)[TOPIC].result(timeout=60)
    KafkaServer.wait_for_partitions(broker, TOPIC, PARTITIONS)


def restart_online(port: str) -> None:
    """End the server; `restarting` starts it again."""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as link:
        link.sendall(b"SHUTDOWN NOSAVE\r\n")
        link.recv(1)  # the connection ends with the server


def main(arguments: list[str]) -> int:
    faults = {"replace-topic": replace_topic, "restart-online": restart_online}
    if arguments and arguments[0] in faults:
        faults[arguments[0]](arguments[1])
        return 0
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the servers end, too
    with tempfile.TemporaryDirectory(prefix="cumulant-live-") as folder:
        try:
            for program in ("kafka-run", "flink-run", "valkey-server"):
                required_program(program)
            print("Kafka, Flink and Valkey start", file=sys.stderr)
            flink_folder = Path(folder) / "flink"
            flink_folder.mkdir()
            with (
                kafka_server(Path(folder)) as kafka,
                flink_cluster(flink_folder) as flink,
                valkey_server() as valkey,
                restarting(valkey),
            ):
                kafka.create_topic(TOPIC, PARTITIONS)
                place = f"checkpoints={flink_folder.as_uri()}/checkpoints&jobmanager=127.0.0.1:{flink.jobs}"
                line = [
                    sys.executable,
                    "-m",
                    "cumulant.cli",
                    "demo-fraud",
                    "--streams",
                    kafka.url,
                    "--online",
                    valkey.url,
                    "--stream-engine",
                    f"flink://127.0.0.1:{flink.gateway}?{place}&interval=1s",
                    "--replace-topic",
                    shlex.join([sys.executable, __file__, "replace-topic", str(kafka.port)]),
                    "--restart-online",
                    shlex.join([sys.executable, __file__, "restart-online", str(valkey.port)]),
                ]
                return subprocess.run([*line, *arguments], check=False).returncode
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 3
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
