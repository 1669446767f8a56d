"""Recovery of rows from the journals of a killed log process."""

from __future__ import annotations

import re
import sys
import time
import zlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cumulant.core.system.atomic_files import sync
from cumulant.ports.log import split_covered
from cumulant.serving.prediction_log.storage import log_folder
from cumulant.serving.prediction_log.storage.journal import RECORD, Row, claim_journal
from cumulant.serving.prediction_log.storage.part_writer import SCHEMA, LogPart, size_of

_decode = msgspec.msgpack.Decoder(list[tuple[object, ...]]).decode
#: how the payload of a record begins: a list, of rows of 16 columns or more
_BEGINNING = re.compile(rb"(?=(?:[\x91-\x9f]|\xdc..|\xdd.{4})\xdc\x00)", re.DOTALL)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_WORKER, _SEQUENCE = SCHEMA.get_field_index("worker"), SCHEMA.get_field_index("sequence")
#: columns of every release
_LEAST = 1 + max(number for number, field in enumerate(SCHEMA) if not field.nullable)
#: a worker sends an entry again for as long as its request waits: seconds
AGAIN_SECONDS = 300.0
_LISTINGS = 10


class JournalRecords(msgspec.Struct):
    """Records of a journal.

    Attributes:
        rows: those of the records that can be read.
        damaged: places between or after them that hold something else. An incomplete last record, which was not
            confirmed, and zeros at the end, which a file system leaves that lost power, are not counted.
        damaged_bytes: how long these places are.
    """

    rows: list[Row] = []
    damaged: int = 0
    damaged_bytes: int = 0


def read_records(data: bytes) -> JournalRecords:
    """The records of a journal's content."""
    records, position = JournalRecords(), 0
    while position < len(data):
        rows, end = _record(data, position)
        if rows is not None:
            records.rows += rows
            position = end
            continue
        following = _following(data, position + 1)
        if following is None and _is_tail(data, position, end):
            break
        following = len(data) if following is None else following
        records.damaged += 1
        records.damaged_bytes += following - position
        position = following
    return records


def _record(data: bytes, position: int) -> tuple[list[Row] | None, int]:
    """The rows of the record at this position, None where there is none, and where it ends by its length."""
    begin = position + RECORD.size
    if begin > len(data):
        return None, begin
    size, checksum = RECORD.unpack_from(data, position)
    payload = data[begin : begin + size]
    if size == 0 or len(payload) < size or zlib.crc32(payload) != checksum:
        return None, begin + size
    try:
        return _decode(payload), begin + size
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None, begin + size


def _following(data: bytes, position: int) -> int | None:
    """Where the next record begins that can be read."""
    for match in _BEGINNING.finditer(data, position + RECORD.size):
        begin = match.start() - RECORD.size
        if _record(data, begin)[0] is not None:
            return begin
    return None


def _is_tail(data: bytes, position: int, end: int) -> bool:
    """Whether what follows the last whole record is a record that was cut off by a kill, or zeros."""
    begin = position + RECORD.size
    if begin >= len(data) or not data[position:].strip(b"\0"):
        return True
    if end == begin or end > len(data):
        return end > begin
    _, checksum = RECORD.unpack_from(data, position)
    sound = zlib.crc32(data[begin:end]) == checksum  # whole, and of another kind
    return not sound and not data[end:].strip(b"\0")


def recover(
    folder: Path,
    seen: Callable[[str, int], object] | None = None,
    *,
    age: float = 0.0,
    say: Callable[[str], object] = sys.stderr.write,
) -> None:
    """Write the parts of journals that no process writes to, and remove these journals.

    `seen` is called with the worker and the number of each row, also where its part cannot be written or another
    process recovers it now. Journals that were written less than `age` seconds ago stay. `say` reports journals that
    are damaged, which are set aside, and those of another release.

    Raises:
        OSError: the disk is full or cannot be written; the journals that are left stay as they are.
    """
    failed: OSError | None = None
    for file in log_folder.list_journals(folder):
        try:
            _recover(folder, file, seen, age, say)
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed


def _recover(
    folder: Path,
    file: log_folder.JournalFile,
    seen: Callable[[str, int], object] | None,
    age: float,
    say: Callable[[str], object],
) -> None:
    with claim_journal(file.path, age) as data:
        if data is None:
            if seen is not None:
                _pass_numbers(read_records(_content(file.path)).rows, seen)
            return
        records = read_records(data)
        if seen is not None:
            _pass_numbers(records.rows, seen)
        rows = _of_today(records)
        try:
            _publish(folder, file, rows)
        except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
            notice = _set_aside(file.path)
            say(f"the prediction log cannot read {len(rows)} rows of a journal ({error}): {notice}\n")
            return
        if records.damaged or len(rows) < len(records.rows):
            say(
                f"the prediction log recovered {len(rows)} rows of a damaged journal; {records.damaged} places in it "
                f"({records.damaged_bytes} bytes) and {len(records.rows) - len(rows)} rows cannot be read: "
                f"{_set_aside(file.path)}\n"
            )
        else:
            file.path.unlink(missing_ok=True)
        if rows and any(len(row) != len(SCHEMA) for row in records.rows):
            say(
                f"the prediction log recovered {len(rows)} rows that another release wrote: columns that they lack are "
                f"empty, columns that this release does not know are dropped: {file.path.name}\n"
            )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _pass_numbers(rows: list[Row], seen: Callable[[str, int], object]) -> None:
    for row in rows:
        if len(row) >= _LEAST and isinstance(row[_WORKER], str) and isinstance(row[_SEQUENCE], int):
            seen(row[_WORKER], row[_SEQUENCE])


def _of_today(records: JournalRecords) -> list[Row]:
    """The rows by the columns of this release: missing ones are null, unknown ones are dropped."""
    width = len(SCHEMA)
    return [row[:width] + (None,) * (width - len(row)) for row in records.rows if len(row) >= _LEAST]


def _set_aside(path: Path) -> str:
    """Rename a journal so that no recovery reads it; returns a notice with its name."""
    return f"the file is kept as {path.rename(path.with_suffix('.damaged'))}"


def _publish(folder: Path, file: log_folder.JournalFile, rows: list[Row]) -> None:
    # A kill between the part's renaming and the journal's removal leaves both.
    parts = log_folder.list_day_files(folder, file.day)
    written = any(part.life == file.life and part.first <= file.first <= part.last for part in parts)
    if not rows or written:
        return
    part = LogPart(folder, file.day.toordinal() - _EPOCH_ORDINAL, file.life, file.first)
    try:
        for row in rows:
            part.add(row, size_of(row))
        part.close()
    except BaseException:
        part.discard()
        raise
    sync(file.path.parent)


def newest_number(folder: Path, worker: str) -> int:
    """The newest number of a worker in the files of the last minutes; 0: none.

    Another process of the folder may have recovered what the worker sends again.
    """
    newest, complete, listings = 0, False, 0
    while not complete and listings < _LISTINGS:
        complete, listings = True, listings + 1
        since = datetime.now(UTC).date() - timedelta(days=1)
        days = [day for day, _ in log_folder.list_days(folder) if day >= since]
        for part in (part for day in days for part in split_covered(log_folder.list_day_files(folder, day))[0]):
            path = folder / part.key
            try:
                if time.time() - path.stat().st_mtime < AGAIN_SECONDS:
                    newest = max(newest, _newest_in(path, worker))
            except FileNotFoundError:  # merged meanwhile
                complete = False
            except (OSError, KeyError, pa.ArrowException):  # damaged, which readers report
                continue
    return newest


def _newest_in(path: Path, worker: str) -> int:
    newest = 0
    with pq.ParquetFile(path) as source:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group, columns=["worker", "sequence"], use_threads=False)
            numbers = table["sequence"].filter(pc.equal(table["worker"], worker))
            newest = max(newest, pc.max(numbers).as_py() or 0)
    return newest
