"""Servers as processes: started, waited for, measured with all their descendants, ended whatever happens."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE = 90.0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def tree(root: int) -> list[int]:
    """`root` and its descendants; workers have sessions of their own, so groups would miss them."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _kilobytes(path: str, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return 0


class Server:
    """One server and every process that it started."""

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        port: int,
        log: Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name, self.port, self.log = name, port, log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=cwd,
                env={**os.environ, **(env or {})},
            )

    def ready(self, request: bytes) -> Server:
        """Return once `request` is answered with 200."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                if ask(self.port, request)[0] == 200:
                    return self
            time.sleep(0.1)
        tail = self.log.read_text(errors="replace")[-2000:]
        self.stop()
        raise RuntimeError(f"{self.name} does not answer on port {self.port}; it said:\n{tail}")

    def pids(self) -> list[int]:
        return tree(self.process.pid)

    def cpu(self) -> float:
        """Seconds of processor time of all its processes so far."""
        return sum(map(_cpu, self.pids()))

    def rss(self) -> float:
        """MiB resident, of all its processes; shared pages count in each."""
        return sum(_kilobytes(f"/proc/{pid}/status", "VmRSS") for pid in self.pids()) / 1024

    def pss(self) -> float:
        """MiB, of all its processes; a shared page counts once."""
        return sum(_kilobytes(f"/proc/{pid}/smaps_rollup", "Pss") for pid in self.pids()) / 1024

    def stop(self) -> None:
        pids = self.pids()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(8)
        for pid in pids if self.process.poll() is None else [pid for pid in pids[1:] if _ours(pid, pids)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)


def output(command: list[str], timeout: float) -> str:
    """What a program prints; it and all that it started are ended, should it take longer or this process be stopped."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        found, _ = process.communicate(timeout=timeout)
    finally:
        for pid in tree(process.pid) if process.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(5)
    if process.returncode:
        raise RuntimeError(f"{command[1]} ended with code {process.returncode}")
    return found


def _ours(pid: int, pids: list[int]) -> bool:
    """Whether what has that id now is an orphan of the stopped server, not a newcomer."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) in (1, *pids)
    except OSError:
        return False


def ask(port: int, request: bytes, timeout: float = 10.0) -> tuple[int, bytes]:
    """Send one whole HTTP request; status and body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as wire:
        wire.sendall(request)
        answer: Any = http.client.HTTPResponse(wire)
        answer.begin()
        return answer.status, answer.read()
