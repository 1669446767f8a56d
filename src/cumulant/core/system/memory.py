"""How much memory a process may take: of the machine, or of its control group."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import resource

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
#: a model that takes more than this share of the machine's memory cannot be served on it
_SHARE = 0.8
_LEAST = 256 << 20
#: of glibc's malloc.h: arrays of more bytes are pages of their own, and of smaller ones so many bytes are kept for the
#: next: without it 128 KiB, and each array of numpy made in a loop is pages of the system anew
_MMAP_THRESHOLD, _LARGE = -3, 2 << 20
_TRIM_THRESHOLD, _KEPT = -1, 4 << 20


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's where that has less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, _CGROUPS):
        with suppress(OSError, ValueError):  # there is none, or it is `max`
            limits.append(int(path.read_text()))
    return min(limits)


def memory_limit(limit: int | None) -> int:
    """The bytes of a declared limit; half of the machine's memory without one."""
    return machine_memory() // 2 if limit is None else limit


def raise_limit(needed: float) -> str:
    """What to do where `resources.memory` is too little for so many bytes."""
    gib = 1 << 30
    return (
        f"set resources.memory to {math.ceil(needed / gib)}GiB or more (this machine has {machine_memory() / gib:.0f} "
        "GiB)"
    )


def resident_memory() -> int:
    """Bytes of memory that this process holds; 0 where the system does not report it."""
    return _addresses()[1] if sys.platform == "linux" else 0


def release_free_memory() -> None:
    """Return freed memory to the system now and, from now on, each large array as soon as it is freed."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_THRESHOLD, _LARGE)
            library.mallopt(_TRIM_THRESHOLD, _KEPT)
            library.malloc_trim(0)


class _Limit:
    """The limit of this process, held from the first block that wants one to the end of the last, in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._before = (0, 0)

    def begin(self, most: int | None) -> None:
        with self._lock:
            if not self._blocks:
                self._before = before = resource.getrlimit(resource.RLIMIT_AS)
                if before[0] == resource.RLIM_INFINITY:
                    resource.setrlimit(resource.RLIMIT_AS, (_most_addresses(most), before[1]))
            self._blocks += 1

    def end(self) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                resource.setrlimit(resource.RLIMIT_AS, self._before)


#: a limit belongs to the process, and so does the count of those who hold it
_LIMIT = _Limit()


@contextmanager
def bounded_memory(most: int | None = None) -> Iterator[None]:
    """Let this process hold `most` bytes, by default four fifths of the machine's memory, and at least 256 MiB more.

    An allocation beyond it fails. Only Linux keeps such a limit. Where several threads or nested blocks bound the
    process, the first one's limit holds until the last one ends. A limit that the process has already stays as it is.
    """
    if sys.platform != "linux":
        yield
        return
    _LIMIT.begin(most)
    try:
        yield
    finally:
        _LIMIT.end()


def _most_addresses(most: int | None) -> int:
    """Bytes of addresses with which the process can hold `most` bytes."""
    reserved, resident = _addresses()
    wanted = int(_SHARE * machine_memory()) if most is None else most
    return reserved + max(_LEAST, wanted - resident)


def _addresses() -> tuple[int, int]:
    """Bytes of addresses that the process has reserved, and of those that hold something."""
    reserved, resident = map(int, Path("/proc/self/statm").read_text().split()[:2])
    return reserved * os.sysconf("SC_PAGE_SIZE"), resident * os.sysconf("SC_PAGE_SIZE")
