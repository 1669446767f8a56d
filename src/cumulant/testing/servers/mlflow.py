"""An MLflow server of its own for tests and demos, with tables (SQLite) and artifacts in a folder of the server.

Not in PostgreSQL: statements of MLflow 3.17 compare numbers with texts, which psycopg 3 does not send.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cumulant.core.system.child_processes import kill_group, start
from cumulant.testing.servers.programs import free_port

_READY_SECONDS = 120.0


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """The URL of a running server; it is gone afterwards, its files stay."""
    port = free_port()
    database = f"sqlite:///{folder / 'mlflow.db'}"
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", database]
    # No jobs: their runners would take more memory than all else.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log.txt").open("ab") as log:
        line = [sys.executable, "-m", "mlflow", *words, "--artifacts-destination", str(folder / "artifacts")]
        process = start(line, stdout=log.fileno(), stderr=log, env=environment, death_signal=signal.SIGKILL)
    try:
        _await_ready(process, port, folder / "log.txt")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()  # its own processes end with it
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        kill_group(process.pid)
        process.wait()


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"mlflow did not start: {log.read_text(encoding='utf-8')[-2000:]}")
