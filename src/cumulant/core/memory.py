"""How much memory a process may take: of the machine, or of its control group."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import resource

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
#: a model that takes more than this share of the machine's memory cannot be served on it
_SHARE = 0.8
_LEAST = 256 << 20


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's where that has less."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, _CGROUPS):
        with suppress(OSError, ValueError):  # there is none, or it is `max`
            found.append(int(path.read_text()))
    return min(found)


@contextmanager
def bounded_memory(most: int | None = None) -> Iterator[None]:
    """Let this process hold `most` bytes, by default four fifths of the machine's memory, and at least 256 MiB more.

    An allocation beyond it fails. Only Linux keeps such a limit. A limit that the process has already stays as it is,
    so that threads that bound themselves at once cannot leave one behind.
    """
    before = resource.getrlimit(resource.RLIMIT_AS) if sys.platform == "linux" else None
    if before is None or before[0] != resource.RLIM_INFINITY:
        yield
        return
    reserved, resident = _addresses()
    left = max(_LEAST, (int(_SHARE * machine_memory()) if most is None else most) - resident)
    resource.setrlimit(resource.RLIMIT_AS, (reserved + left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _addresses() -> tuple[int, int]:
    """Bytes of addresses that the process has reserved, and of those that hold something."""
    reserved, resident = map(int, Path("/proc/self/statm").read_text().split()[:2])
    return reserved * os.sysconf("SC_PAGE_SIZE"), resident * os.sysconf("SC_PAGE_SIZE")
