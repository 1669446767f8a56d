"""Layout of the log's folder: row files, drafts, journals, and the state of each worker.

    date=2026-11-24/LIFE-000001-000001.parquet     one part, as written
    date=2026-11-24/LIFE-000001-000017.parquet     parts 1 to 17 of that life of the log process, merged
    date=2026-11-24/.LIFE-000018.writing           in the making; becomes a part by its renaming
    date=2026-11-24/.LIFE-000018.journal           the rows of a part before it is written, where answers wait for them
    workers/NAME.json                              a life of a worker

A merged file covers the parts that it was made of: one that still lies there holds nothing new.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec

from cumulant.core.system.json_files import read_json

_PART = re.compile(r"(?P<life>.+)-(?P<first>\d{6,})-(?P<last>\d{6,})\.parquet")
_DATE = "date="
WRITING = ".writing"
_JOURNAL = re.compile(r"\.(?P<life>.+)-(?P<number>\d{6,})\.journal")


class PredictionFile(NamedTuple):
    """A file of rows: the parts `first` to `last` of one life of a log process."""

    path: Path
    day: date
    life: str
    first: int
    last: int

    def covers(self, other: PredictionFile) -> bool:
        within = self.first <= other.first and other.last <= self.last
        return self.life == other.life and within and self.path != other.path


class WorkerLife(msgspec.Struct, kw_only=True):
    """State of one worker process."""

    worker: str
    #: microseconds since 1970 UTC
    started: int
    #: the last sequence number that it gave; None while it runs, or where nothing saw its end
    last: int | None = None
    #: it said goodbye
    closed: bool = False
    #: rows up to this number are older than the log is kept
    forgotten: int = 0


def part_path(folder: Path, day: date, life: str, first: int, last: int) -> Path:
    return folder / f"{_DATE}{day}" / f"{life}-{first:06d}-{last:06d}.parquet"


def writing_path(folder: Path, day: date, life: str, number: int) -> Path:
    return folder / f"{_DATE}{day}" / f".{life}-{number:06d}{WRITING}"


def journal_path(folder: Path, day: date, life: str, number: int) -> Path:
    return folder / f"{_DATE}{day}" / f".{life}-{number:06d}.journal"


def list_journals(folder: Path) -> list[PredictionFile]:
    """The journals of all days, each with the number of its part."""
    return [
        PredictionFile(journal, day, match["life"], int(match["number"]), int(match["number"]))
        for day, path in list_days(folder)
        for journal in sorted(path.glob(".*.journal"))
        if (match := _JOURNAL.fullmatch(journal.name))
    ]


def is_journal(name: str) -> bool:
    """Whether a file of this name is the journal of a part."""
    return _JOURNAL.fullmatch(name) is not None


def list_days(folder: Path) -> list[tuple[date, Path]]:
    """The days that have a folder, oldest first."""
    dated = []
    for path in folder.glob(f"{_DATE}*"):
        with contextlib.suppress(ValueError):
            dated.append((date.fromisoformat(path.name.removeprefix(_DATE)), path))
    return sorted(dated)


def list_day_files(folder: Path, day: date) -> list[PredictionFile]:
    """Every file of rows of one day, in the order of their parts; covered ones too."""
    try:
        names = os.listdir(folder / f"{_DATE}{day}")  # noqa: PTH208 - names are enough
    except OSError:
        return []
    files = [
        PredictionFile(folder / f"{_DATE}{day}" / name, day, match["life"], int(match["first"]), int(match["last"]))
        for name in names
        if (match := _PART.fullmatch(name)) and not name.startswith(".")
    ]
    return sorted(files, key=lambda file: (file.life, file.first, -file.last))


def split_covered(files: Iterable[PredictionFile]) -> tuple[list[PredictionFile], list[PredictionFile]]:
    """Current files, and those that a merged file covers."""
    lives = defaultdict(list)
    for file in files:
        lives[file.life].append(file)
    current: list[PredictionFile] = []
    covered: list[PredictionFile] = []
    for life_files in lives.values():
        # Wider ones come first at the same beginning, and no two overlap by half.
        newest: PredictionFile | None = None
        for file in sorted(life_files, key=lambda item: (item.first, -item.last)):
            if newest is not None and newest.covers(file):
                covered.append(file)
            else:
                newest = file
                current.append(file)
    return current, covered


def current_files(folder: Path, since: date | None = None, until: date | None = None) -> list[PredictionFile]:
    """The files that hold the rows of the days `since` to `until`, oldest day first."""
    if since is not None and since == until:
        return split_covered(list_day_files(folder, since))[0]
    current: list[PredictionFile] = []
    for day, _ in list_days(folder):
        if (since is None or day >= since) and (until is None or day <= until):
            current += split_covered(list_day_files(folder, day))[0]
    return current


def read_lives(folder: Path) -> list[WorkerLife]:
    """States of all workers, oldest first."""
    lives = (read_json(path, WorkerLife) for path in (folder / "workers").glob("*.json"))
    return sorted((life for life in lives if life is not None), key=lambda life: life.started)


def read_life(folder: Path, worker: str) -> WorkerLife | None:
    """State of a worker; None where there is none."""
    return read_json(_life_path(folder, worker), WorkerLife)


def write_life(folder: Path, known: WorkerLife) -> None:
    """Write the state of a worker atomically.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    path = _life_path(folder, known.worker)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, known)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically; as `write_life`."""
    aside = path.with_name(f".{path.name}")
    aside.write_bytes(msgspec.json.encode(value))
    aside.replace(path)


def forget_life(folder: Path, worker: str) -> None:
    _life_path(folder, worker).unlink(missing_ok=True)


def _life_path(folder: Path, worker: str) -> Path:
    return folder / "workers" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', worker)[:200].lstrip('.') or '_'}.json"
