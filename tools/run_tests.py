"""Run tests in parallel, and the few that failed once more, alone.

`python tools/run_tests.py PYTEST_ARGUMENT...`. Thousands of tests share a few cores with servers that others of them
started; one that waited too long for its turn says nothing of the code. A test that fails alone, too, fails the run. One
that passes alone is listed at the end: it depends on its speed or on what runs beside it, and is to be mended.

Where memory has room for them, the files of the tests are kept there: tests kill processes and never the machine, so that
waiting for a disk proves nothing. TMPDIR, where it is set, says where they go instead.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cumulant.core.system.memory import machine_memory

#: more failures than these are no accident of timing; none of them is run again
MOST = 10
#: a folder whose files are in memory
MEMORY = Path("/dev/shm")
#: bytes: files of a whole run take up to 4 GiB, its processes as much again
ROOM, FREE = 8 * 2**30, 12 * 2**30
#: of the folders of runs, and of the file in each that its run locks
PREFIX, LOCK = "cumulant-", ".lock"


class Failures:
    """The names of the tests that failed, or whose fixtures did."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.names:
            self.names.append(report.nodeid)


def has_room(folder: Path = MEMORY, memory: Path = Path("/proc/meminfo")) -> bool:
    """Whether the files of a whole run can be kept there, and programs among them be run."""
    try:
        place, lines = os.statvfs(folder), memory.read_text().splitlines()
    except OSError:
        return False
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
    return (
        min(free, machine_memory()) >= FREE
        and place.f_bavail * place.f_frsize >= ROOM
        and not place.f_flag & os.ST_NOEXEC
    )


def is_run(folder: Path) -> bool:
    """Whether the run that a folder is of goes on."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # removed, another user's, or about to be locked
        return folder.exists()
    return False


def remove_killed(memory: Path = MEMORY) -> bool:
    """Remove the files of runs that were killed; whether none goes on."""
    folders = [*memory.glob(f"{PREFIX}*")]
    for folder in folders:
        if not is_run(folder):
            shutil.rmtree(folder, ignore_errors=True)
    return not any(folder.exists() for folder in folders)


@contextmanager
def temporary_files() -> Iterator[Path | None]:
    """Have temporary files of this process and of those it starts in memory, where there is room, and remove them. Gives
    their folder.
    """
    if "TMPDIR" in os.environ or not remove_killed() or not has_room():
        yield None
        return
    folder = tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY)
    ends = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda received, _: sys.exit(128 + received)) for number in ends]
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    try:
        with (Path(folder) / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield Path(folder)
    finally:
        os.environ.pop("TMPDIR")
        tempfile.tempdir = None
        shutil.rmtree(folder, ignore_errors=True)
        for number, handler in zip(ends, before, strict=True):
            signal.signal(number, handler)


def main(arguments: list[str]) -> int:
    with temporary_files() as folder:
        return run(arguments, folder)


def run(arguments: list[str], folder: Path | None) -> int:
    failures = Failures()
    parallel = ["-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]
    code = int(pytest.main([*parallel, *_base(folder, "a"), *arguments], plugins=[failures]))
    names = failures.names
    if code != pytest.ExitCode.TESTS_FAILED or not 0 < len(names) <= MOST:
        return code
    print(f"\n{len(names)} failed; once more, alone:", flush=True)
    command = [sys.executable, "-m", "pytest", *_base(folder, "b"), *names]
    code = subprocess.run(command, check=False).returncode
    if code == pytest.ExitCode.OK:
        print("failed beside other tests, passed alone:", *names, sep="\n  ")
    return code


def _base(folder: Path | None, name: str) -> list[str]:
    """Where the files of tests are: below a short path, as those of sockets have 107 bytes at most."""
    return [] if folder is None else [f"--basetemp={folder / name}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
