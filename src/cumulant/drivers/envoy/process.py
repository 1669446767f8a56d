"""Envoy's process: start, readiness, drain and end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from cumulant.core.errors import EngineUnavailableError
from cumulant.core.system import child_processes
from cumulant.drivers.envoy.admin import Admin

#: threads that answer requests; two serve some ten thousand a second
_THREADS = 4
#: milliseconds until Envoy flushes a log line: what is lost if it is killed
_FLUSH = 50
#: seconds for requests in progress at the end
_DRAIN = 30.0
_END = 10.0
_START = 60.0
_PAUSE = 0.05


def start(program: Path, bootstrap: Path) -> subprocess.Popen[bytes]:
    """Start Envoy, whose access log is its standard output."""
    threads = min(_THREADS, os.cpu_count() or 1)
    command = [str(program), "-c", str(bootstrap), "--concurrency", str(threads), "--log-level", "warning"]
    command += ["--disable-hot-restart", "--file-flush-interval-msec", str(_FLUSH)]
    return child_processes.start(command, stdout=subprocess.PIPE, death_signal=signal.SIGKILL)


def await_ready(envoy: subprocess.Popen[bytes], admin: Admin) -> None:
    """Return when Envoy accepts requests.

    Raises:
        EngineUnavailableError: it ended, or was not ready in time.
    """
    deadline = time.monotonic() + _START
    while not admin.ready():
        if envoy.poll() is not None:
            raise EngineUnavailableError(f"Envoy ended with {envoy.returncode}: the lines above say why")
        if time.monotonic() > deadline:
            raise EngineUnavailableError(f"Envoy was not ready within {_START:.0f} s")
        time.sleep(_PAUSE)


def end(envoy: subprocess.Popen[bytes]) -> None:
    child_processes.stop(envoy, _END)


def drain(admin: Admin) -> None:
    """Refuse new requests, and return when those in progress are answered."""
    admin.request("/healthcheck/fail", method="POST")
    admin.request("/drain_listeners", method="POST")
    deadline = time.monotonic() + _DRAIN
    while admin.active_requests() and time.monotonic() < deadline:
        time.sleep(_PAUSE)
