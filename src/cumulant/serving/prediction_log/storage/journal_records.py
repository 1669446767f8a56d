"""The records of a journal, read also where some of them are damaged."""

from __future__ import annotations

import re
import zlib

import msgspec

from cumulant.serving.prediction_log.storage.journal import RECORD, Row

_decode = msgspec.msgpack.Decoder(list[tuple[object, ...]]).decode
#: how the payload of a record begins: a list, of rows of 16 columns or more
_BEGINNING = re.compile(rb"(?=(?:[\x91-\x9f]|\xdc..|\xdd.{4})\xdc\x00)", re.DOTALL)


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
