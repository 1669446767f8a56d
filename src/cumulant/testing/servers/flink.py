"""A Flink of its own for tests: a session cluster of a JobManager and a TaskManager, and its SQL gateway."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cumulant.testing.servers.java_server import await_java, start_java
from cumulant.testing.servers.programs import free_port, required_program

_ENTRY = "org.apache.flink.runtime.entrypoint"
#: of servers that soon end: code is compiled once, and not well, and classes of Flink's own files are not verified
_JAVA = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-BytecodeVerificationRemote",
    "-XX:MetaspaceSize=256m",  # what collects garbage only because classes are loaded costs a second
)
_GATEWAY = ("-Xms300m", "-Xmx400m", "-Xmn200m")
_JOBS, _WORKER = ("-Xmx256m",), ("-Xms300m", "-Xmx500m", "-Xmn150m")
_SETTINGS = {
    "execution.target": "remote",
    "parallelism.default": "1",
    "jobmanager.rpc.address": "127.0.0.1",
    "jobmanager.bind-host": "127.0.0.1",
    "rest.address": "127.0.0.1",
    "rest.bind-address": "127.0.0.1",
    "sql-gateway.endpoint.type": "rest",
    "sql-gateway.endpoint.rest.address": "127.0.0.1",
    "sql-gateway.endpoint.rest.bind-address": "127.0.0.1",
    "taskmanager.host": "127.0.0.1",
    "taskmanager.bind-host": "127.0.0.1",
    "taskmanager.numberOfTaskSlots": "8",
    "taskmanager.cpu.cores": "2",
    "taskmanager.memory.framework.heap.size": "100mb",
    "taskmanager.memory.framework.off-heap.size": "64mb",
    "taskmanager.memory.task.heap.size": "400mb",
    "taskmanager.memory.task.off-heap.size": "0mb",
    "taskmanager.memory.network.min": "48mb",
    "taskmanager.memory.network.max": "48mb",
    "taskmanager.memory.managed.size": "32mb",
    "taskmanager.memory.jvm-metaspace.size": "256mb",
    "taskmanager.memory.jvm-overhead.min": "64mb",
    "taskmanager.memory.jvm-overhead.max": "64mb",
    # a worker that was killed is known to be gone as soon as it refuses a connection; one that is slow is not
    "heartbeat.interval": "500 ms",
    "heartbeat.timeout": "2 min",
}


class FlinkCluster:
    """A running session cluster, whose worker can be killed and started again. `gateway` and `jobs`: ports of the REST
    interfaces of the SQL gateway and of the JobManager.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], java: Sequence[str], worker: Sequence[str]) -> None:
        self._program, self._folder = required_program("flink-run"), folder
        self._java, self._worker = java, worker
        self.gateway, self.jobs = free_port(), free_port()
        named = {
            **_SETTINGS,
            "rest.port": str(self.jobs),
            "jobmanager.rpc.port": str(free_port()),
            "sql-gateway.endpoint.rest.port": str(self.gateway),
            "io.tmp.dirs": str(folder),
            **settings,
        }
        lines = "".join(f"{key}: {value}\n" for key, value in named.items())
        (folder / "config.yaml").write_text(lines, encoding="utf-8")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Raises RuntimeError: a process ended, or did not answer in time."""
        place = ("--configDir", str(self._folder))
        self._start("jobmanager", [*_JOBS, f"{_ENTRY}.StandaloneSessionClusterEntrypoint", *place])
        self._start("gateway", [*_GATEWAY, "org.apache.flink.table.gateway.SqlGateway"])
        self.start_worker()
        self._wait(lambda: _answer(self.gateway, "/v3/info") is not None, "gateway")
        self._wait(lambda: bool((_answer(self.jobs, "/overview") or {}).get("slots-total")), "worker")

    def start_worker(self) -> None:
        place = ("--configDir", str(self._folder))
        self._start("worker", [*self._worker, "org.apache.flink.runtime.taskexecutor.TaskManagerRunner", *place])

    def kill_worker(self) -> None:
        self.processes["worker"].kill()
        self.processes["worker"].wait()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        line, environment = (
            [self._program, *self._java, *arguments],
            {**os.environ, "FLINK_CONF_DIR": str(self._folder)},
        )
        self.processes[name] = start_java(line, self._log(name), env=environment)

    def _wait(self, answers: Callable[[], bool], name: str) -> None:
        await_java(self.processes[name], self._log(name), answers)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


@contextmanager
def flink_cluster(
    folder: Path, *, settings: Mapping[str, str] = {}, java: Sequence[str] = _JAVA, worker: Sequence[str] = _WORKER
) -> Iterator[FlinkCluster]:
    """A running cluster, which is gone afterwards. `java`: options of each virtual machine, `worker`: of that of
    the TaskManager too.

    Raises:
        FileNotFoundError: it is not installed.
    """
    cluster = FlinkCluster(folder, settings, java, worker)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def _answer(port: int, path: str) -> Any:
    """The answer of a server; None where it has none yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, ValueError):
        return None
    finally:
        connection.close()
