"""Layout of the log's folder: row files, drafts, journals, and the state of each worker.

    date=2026-11-24/LIFE-000001-000001.parquet     one part, as written
    date=2026-11-24/LIFE-000001-000017.parquet     parts 1 to 17 of that life of the log process, merged
    date=2026-11-24/.LIFE-000018.writing           in the making; becomes a part by its renaming
    date=2026-11-24/.LIFE-000018.journal           the rows of a part before it is written, where answers wait for them
    workers/NAME.json                              a life of a worker

A merged file covers the parts that it was made of: one that still lies there holds nothing new.
"""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec

from cumulant.ports.log import Log, PartInfo, day_folder, days_of, parse_name, part_name, sort_parts

WRITING = ".writing"
_JOURNAL = re.compile(r"\.(?P<life>.+)-(?P<number>\d{6,})\.journal")
_WORKERS = "workers"


class JournalFile(NamedTuple):
    """The journal of the part with a number of one life of a log process."""

    path: Path
    day: date
    life: str
    first: int


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
    return folder / day_folder(day) / part_name(life, first, last)


def writing_path(folder: Path, day: date, life: str, number: int) -> Path:
    return folder / day_folder(day) / f".{life}-{number:06d}{WRITING}"


def journal_path(folder: Path, day: date, life: str, number: int) -> Path:
    return folder / day_folder(day) / f".{life}-{number:06d}.journal"


def list_journals(folder: Path) -> list[JournalFile]:
    """The journals of all days, each with the number of its part."""
    return [
        JournalFile(journal, day, match["life"], int(match["number"]))
        for day, path in list_days(folder)
        for journal in sorted(path.glob(".*.journal"))
        if (match := _JOURNAL.fullmatch(journal.name))
    ]


def is_journal(name: str) -> bool:
    """Whether a file of this name is the journal of a part."""
    return _JOURNAL.fullmatch(name) is not None


def list_days(folder: Path) -> list[tuple[date, Path]]:
    """The days that have a folder, oldest first."""
    return [(day, folder / day_folder(day)) for day in days_of(path.name for path in folder.glob("*"))]


def list_day_files(folder: Path, day: date) -> list[PartInfo]:
    """Every part of one day by its name alone, covered ones too."""
    try:
        names = os.listdir(folder / day_folder(day))  # noqa: PTH208 - names are enough
    except OSError:
        return []
    return sort_parts(PartInfo(day, *name) for text in names if (name := parse_name(text)) is not None)


def read_lives(log: Log) -> list[WorkerLife]:
    """States of all workers, oldest first."""
    lives = map(_decode_life, log.states(_WORKERS))
    return sorted((life for life in lives if life is not None), key=lambda life: life.started)


def read_life(log: Log, worker: str) -> WorkerLife | None:
    """State of a worker; None where there is none."""
    content = log.state(_life_name(worker))
    return None if content is None else _decode_life(content)


def write_life(log: Log, known: WorkerLife) -> None:
    """Write the state of a worker atomically. Raises as `Log`."""
    log.put_state(_life_name(known.worker), msgspec.json.encode(known))


def forget_life(log: Log, worker: str) -> None:
    log.delete_state(_life_name(worker))


def _decode_life(content: bytes) -> WorkerLife | None:
    """None where the record is damaged."""
    try:
        return msgspec.json.decode(content, type=WorkerLife)
    except msgspec.MsgspecError:
        return None


def _life_name(worker: str) -> str:
    return f"{_WORKERS}/{re.sub(r'[^A-Za-z0-9._-]', '_', worker)[:200].lstrip('.') or '_'}.json"
