"""Resource metrics of this process under Prometheus' standard names."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from cumulant.core.version import __version__
from cumulant.serving.telemetry.metrics import Series

_SELF = Path("/proc/self")
#: place of the start, in ticks since the machine started, among what follows the command's name in `stat`
_STARTED = 19


def process_series() -> list[Series]:
    """Processor time everywhere; memory, descriptors and the start where the system has /proc."""
    worker = (str(os.getpid()),)
    series = [
        Series("cumulant_build_info", (__version__, platform.python_version()), 1),
        Series("process_cpu_seconds_total", worker, time.process_time()),
    ]
    if not _SELF.is_dir():
        return series
    values = {
        "process_resident_memory_bytes": _resident(),
        "process_open_fds": sum(1 for _ in (_SELF / "fd").iterdir()),
        "process_max_fds": _most_files(),
        "process_start_time_seconds": _started(),
    }
    return series + [Series(name, worker, value) for name, value in values.items()]


def _resident() -> int:
    pages = int((_SELF / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _most_files() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _started() -> float:
    fields = (_SELF / "stat").read_text().rpartition(")")[2].split()
    up = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up + int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
