"""The beginning of a message that names its schema: a zero, and the schema's number in four bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

#: what reads one message with its frame: its object, or the rule that it breaks
Reader = Callable[[bytes], dict[str, Any] | str]
#: the names that lead to a field
FieldPath = tuple[str, ...]
#: bytes before the payload
HEAD = 5
#: the most parts of a place of a message type within its file
_MOST_INDEXES = 20


class MessageType(NamedTuple):
    """The place of a message type of Protobuf in its file, from the outermost in, and where the payload begins."""

    indexes: tuple[int, ...]
    begin: int


def schema_number(value: bytes) -> int | None:
    """The number of a message's schema; None: it names none."""
    return int.from_bytes(value[1:HEAD], "big") if len(value) >= HEAD and value[0] == 0 else None


def message_type(value: bytes) -> MessageType | None:
    """The place of a message's type: a count and that many numbers, or one zero for the first type of the file."""
    count, at = _number(value, HEAD)
    if count is None or not 0 <= count <= _MOST_INDEXES:
        return None
    indexes = []
    for _ in range(count):
        index, at = _number(value, at)
        if index is None or index < 0:
            return None
        indexes.append(index)
    return MessageType(tuple(indexes) or (0,), at)


def _number(value: bytes, at: int) -> tuple[int | None, int]:
    """A number of variable length, zigzag, and the place after it."""
    result = 0
    for shift in range(0, 35, 7):
        if at >= len(value):
            return None, at
        byte = value[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (result >> 1) ^ -(result & 1), at
    return None, at
