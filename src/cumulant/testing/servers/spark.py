"""A Connect server of Spark of its own for tests and benchmarks, on one machine and a loopback port."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cumulant.testing.servers.java_server import java_server
from cumulant.testing.servers.programs import free_port, required_program

#: of a server that soon ends: code is compiled once, and not well
_JAVA = ("-Xmx768m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
#: of tables of some rows: one partition, and nothing compiled for a query
SMALL = {
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


@contextmanager
def spark_server(
    folder: Path,
    *,
    cores: int = 1,
    java: Sequence[str] = _JAVA,
    settings: Mapping[str, str] = SMALL,
    python: str = sys.executable,
) -> Iterator[int]:
    """The port of a running server, which is gone afterwards.

    `java`: options of the virtual machine; `python`: what workers run, by default this Python with its packages.

    Raises:
        FileNotFoundError: it is not installed.
    """
    program, port = required_program("spark-connect"), free_port()
    named = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.local.dir": str(folder / "scratch"),
        **settings,
    }
    options = [part for key, value in named.items() for part in ("--conf", f"{key}={value}")]
    arguments = ["--master", f"local[{cores}]", "--class", _SERVER, *options, "spark-internal"]
    command = [program, *java, "org.apache.spark.deploy.SparkSubmit", *arguments]
    env = {**os.environ, "PYSPARK_PYTHON": python}
    with java_server(command, folder / "server.log", lambda: _answers(port), env=env):
        yield port


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
