"""The process that works on something, and whether it still runs: known at once on the same machine."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import msgspec

from cumulant.project.host_name import declared_host_name, host_name

_START_TIME = 19
"""Where /proc/PID/stat holds the start time, counted after the program's name."""


class Process(msgspec.Struct, frozen=True):
    """A process: `host` is one boot of one machine (or container), `born` distinguishes reused process ids."""

    host: str
    pid: int
    born: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition(':')[0]}"


def this_process() -> Process:
    return process_of(os.getpid())


def process_of(pid: int) -> Process:
    """A process of this machine."""
    return Process(_host(), pid, _born(pid) or "")


def is_here(process: Process) -> bool:
    """Whether its number means a process of this machine, as it runs now."""
    return _same_boot(process.host, _host())


def is_gone(process: Process) -> bool:
    """True only where that is certain: the same machine, and no such process there. A lease decides the rest."""
    if not is_here(process) or sys.platform == "win32":
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    born = _born(process.pid)
    return born is not None and born != process.born


def _host() -> str:
    """The machine's name, and a hash of its boot and its space of process ids (containers share a boot).

    A declared name counts as a machine of its own: processes of another one cannot be judged by their number.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot = space = ""
    return f"{host_name()}:{_hash(boot + space + declared_host_name())}"


def _same_boot(host: str, other: str) -> bool:
    """Whether both name one boot and one space of process ids. A network may rename a machine while it runs, so the
    name counts only where the boot is unknown.
    """
    boot = host.rpartition(":")[2]
    return host == other if boot == _hash("") else boot == other.rpartition(":")[2]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _born(pid: int) -> str | None:
    """The start time of a living process; "" once it has ended and only waits to be read; None where unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in {"Z", "X"} else fields[_START_TIME]
