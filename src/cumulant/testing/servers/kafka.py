"""A Kafka broker of its own for tests and benchmarks: one node without others, in a folder, on loopback ports."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # one of them is re-exported unsaid
    AdminClient,
    NewPartitions,
    NewTopic,
)

from cumulant.core.system.child_processes import start
from cumulant.testing.servers.programs import free_port, required_program

#: seconds until a broker answers: it starts a virtual machine of Java, on a busy machine
_READY_SECONDS = 120.0
#: the user of the encrypted listener, and the password
USER, PASSWORD = "ada", "a pass word"
_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule"
_JAVA = (
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    # classes of its own files
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-BytecodeVerificationRemote",
)


class KafkaServer:
    """A broker that can be killed and started again at its place. `pem`: files with the certificate and the key of an
    encrypted listener, whose user has a password.
    """

    def __init__(self, folder: Path, *, pem: tuple[Path, Path] | None = None, heap: str = _JAVA[0]) -> None:
        self._program, self._folder = required_program("kafka-run"), folder
        self._java = (heap, *_JAVA[1:])
        self.port, self.encrypted_port, control = free_port(), free_port(), free_port()
        self._file = folder / "server.properties"
        self._file.write_text("".join(f"{line}\n" for line in self._lines(control, pem)), encoding="utf-8")
        scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        added = ["--add-scram", scram] if pem is not None else []
        identity = ["-t", uuid.uuid4().hex[:22], "-c", str(self._file), *added]
        subprocess.run(
            [self._program, *self._java, "kafka.tools.StorageTool", "format", *identity],
            check=True,
            capture_output=True,
        )
        self.start()

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"

    def start(self) -> None:
        log = (self._folder / "server.log").open("ab")
        with log:
            self.process = start(
                [self._program, *self._java, "kafka.Kafka", str(self._file)],
                death_signal=signal.SIGKILL,
                stdout=log.fileno(),
                stderr=log,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            with contextlib.suppress(KafkaException):
                self.admin().list_topics(timeout=2)
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the broker did not start: see {self._folder / 'server.log'}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0})

    def create_topic(self, name: str, partitions: int) -> None:
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1)
        admin = self.admin()  # kept until it has the answer
        admin.create_topics([topic], operation_timeout=30)[name].result(timeout=60)
        self.wait_for_partitions(admin, name, partitions)

    def add_partitions(self, name: str, partitions: int) -> None:
        """So many as there are to be then."""
        admin = self.admin()
        admin.create_partitions([NewPartitions(name, partitions)], operation_timeout=30)[name].result(timeout=60)
        self.wait_for_partitions(admin, name, partitions)

    @staticmethod
    def wait_for_partitions(admin: AdminClient, name: str, partitions: int) -> None:
        """Wait until the broker tells all who ask of the topic."""
        deadline = time.monotonic() + _READY_SECONDS
        while (known := admin.list_topics(name, timeout=30).topics[name]).error or len(known.partitions) < partitions:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the broker does not know {name}")
            time.sleep(0.05)  # the answer comes before the broker itself has heard of it

    def delete_topic(self, name: str) -> None:
        admin = self.admin()
        admin.delete_topics([name], operation_timeout=30)[name].result(timeout=60)

    def _lines(self, control: int, pem: tuple[Path, Path] | None) -> list[str]:
        plain, control_place = f"PLAINTEXT://127.0.0.1:{self.port}", f"127.0.0.1:{control}"
        encrypted = [] if pem is None else [f"SASL_SSL://localhost:{self.encrypted_port}"]
        lines = [
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@{control_place}",
            "controller.listener.names=CONTROLLER",
            f"listeners={','.join([plain, *encrypted])},CONTROLLER://{control_place}",
            f"advertised.listeners={','.join([plain, *encrypted])}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=PLAINTEXT",
            f"log.dirs={self._folder / 'logs'}",
            "offsets.topic.replication.factor=1",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "auto.create.topics.enable=false",
            "broker.heartbeat.interval.ms=500",
            "broker.session.timeout.ms=5000",  # a killed one is known to be gone, and may be started again, after that
        ]
        if pem is not None:
            certificate, key = (file.read_text(encoding="ascii").strip().replace("\n", "\\n") for file in pem)
            lines += [
                "sasl.enabled.mechanisms=SCRAM-SHA-512",
                f"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={_LOGIN} required;",
                "ssl.keystore.type=PEM",
                f"ssl.keystore.certificate.chain={certificate}",
                f"ssl.keystore.key={key}",
            ]
        return lines


@contextmanager
def kafka_server(folder: Path, *, pem: tuple[Path, Path] | None = None) -> Iterator[KafkaServer]:
    """A running broker; it is gone afterwards.

    Raises:
        FileNotFoundError: it is not installed.
    """
    server = KafkaServer(folder, pem=pem)
    try:
        yield server
    finally:
        server.kill()
