"""Records of a log for tests: parts whose content is one line a record, a writer to be killed, and a compaction."""

from __future__ import annotations

import importlib
import inspect
import os
import random
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import date, timedelta
from pathlib import Path
from typing import BinaryIO

from cumulant.drivers.local.log import FileLog
from cumulant.ports.log import Log, PartInfo, current_parts, split_covered
from cumulant.testing.secrets import MemorySecrets

#: the first day of the parts of `write_parts`
DAY = date(2026, 11, 24)


def folder_log(folder: Path) -> FileLog:
    """The log whose parts are files below a folder."""
    return FileLog(f"file://{folder}")


def seeded(number: int) -> random.Random:
    """Numbers that are the same in each run of a test."""
    return random.Random(number)  # noqa: S311


def write_half(opened: AbstractContextManager[BinaryIO]) -> None:
    """Begin to write a part, and end as an interrupted writer does. Raises KeyboardInterrupt."""
    with opened as stream:
        stream.write(b"half")
        raise KeyboardInterrupt


def open_log_of(client: str, url: str) -> Log:
    """The log at `url` by the client `module:Class`, with the environment's variables as secrets."""
    module, _, name = client.partition(":")
    make = getattr(importlib.import_module(module), name)
    options = {"secrets": MemorySecrets(dict(os.environ))} if "secrets" in inspect.signature(make).parameters else {}
    return make(url, **options)  # type: ignore[no-any-return]


def append_lines(log: Log, part: PartInfo, lines: Iterable[str]) -> None:
    with log.append(part) as stream:
        stream.write("".join(f"{line}\n" for line in lines).encode())


def lines_of(log: Log, parts: Iterable[PartInfo]) -> list[str]:
    """The records of parts. Raises FileNotFoundError: one was compacted since it was listed."""
    lines: list[str] = []
    for part in parts:
        with log.open(part) as stream:
            lines += stream.read().decode().splitlines()
    return lines


def all_lines(log: Log) -> list[str]:
    """The records of the whole log, read again where parts are compacted meanwhile."""
    while True:
        try:
            return lines_of(log, current_parts(log))
        except FileNotFoundError:
            continue


def write_parts(log: Log, life: str, numbers: Iterable[int], *, days: int = 2) -> None:
    """Append a part for each number, on one of some days in turn, with three records that name it.

    Prints the number once it is acknowledged: what a killed writer has printed must be in the log.
    """
    for number in numbers:
        day = DAY + timedelta(days=number % days)
        lines = [f"{life}/{number}/{row}" for row in range(3)]
        append_lines(log, PartInfo(day, life, number, number), lines)
        print(number, flush=True)  # noqa: T201 - for the process that kills this one


def compact_some(log: Log, random_numbers: random.Random) -> int:
    """Compact random runs of neighbours of a log of lines, and delete what is covered; returns how many runs."""
    runs = 0
    with log.maintenance() as mine:
        for day in log.days() if mine else ():
            current, covered = split_covered(log.parts(day))
            log.delete(covered)
            for life in {part.life for part in current}:
                parts = [part for part in current if part.life == life]
                begin = random_numbers.randrange(len(parts))
                run = parts[begin : begin + random_numbers.randint(2, 6)]
                if len(run) > 1:
                    merged = PartInfo(day, life, run[0].first, run[-1].last)
                    append_lines(log, merged, lines_of(log, run))
                    if not log.grace:
                        log.delete(run)
                    runs += 1
    return runs


if __name__ == "__main__":  # python -m cumulant.testing.log CLIENT URL LIFE FIRST COUNT
    write_parts(open_log_of(*sys.argv[1:3]), sys.argv[3], range(int(sys.argv[4]), int(sys.argv[4]) + int(sys.argv[5])))
