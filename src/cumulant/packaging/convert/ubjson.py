"""Decoder of UBJSON, the binary format of XGBoost's models, which verifies all claimed sizes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from cumulant.core.errors import DataError

_NUMBERS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None}
_DEPTH = 64


def decode(content: bytes) -> Any:
    """The value in `content`; typed arrays come as lists of numbers.

    Raises:
        DataError: it is cut off, nested too deep, or claims more than it holds.
    """
    try:
        return _Reader(content).value(0)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise DataError(f"the binary JSON cannot be read: {error}") from None


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def _take(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._content):
            raise DataError(f"the binary JSON is cut off at byte {len(self._content):,}")
        self._at += count
        return self._content[self._at - count : self._at]

    def _next(self, mark: bytes) -> bool:
        matches = self._content[self._at : self._at + 1] == mark
        self._at += matches
        return matches

    def _number(self, mark: bytes) -> Any:
        kind = np.dtype(_NUMBERS[mark])
        return np.frombuffer(self._take(kind.itemsize), kind)[0].item()

    def _length(self) -> int:
        mark = self._take(1)
        if mark not in (b"i", b"U", b"I", b"l", b"L"):
            raise DataError(f"the binary JSON has no length at byte {self._at:,}")
        return int(self._number(mark))

    def _text(self) -> str:
        return self._take(self._length()).decode()

    def value(self, depth: int, mark: bytes | None = None) -> Any:
        if depth > _DEPTH:
            raise DataError("the binary JSON is nested too deep")
        mark = mark or self._take(1)
        if mark in _NUMBERS:
            return self._number(mark)
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        match mark:
            case b"S" | b"H":
                return self._text()
            case b"C":
                return self._take(1).decode()
            case b"[":
                return self._array(depth)
            case b"{":
                return self._object(depth)
        raise DataError(f"the binary JSON has an unknown mark at byte {self._at:,}")

    def _array(self, depth: int) -> list[Any]:
        kind = self._take(1) if self._next(b"$") else None
        count = self._length() if self._next(b"#") else None
        if kind in _NUMBERS and count is not None:
            dtype = np.dtype(_NUMBERS[kind])
            numbers: list[Any] = np.frombuffer(self._take(count * dtype.itemsize), dtype).tolist()
            return numbers
        if kind is not None:
            raise DataError(f"the binary JSON has an array of an unknown kind at byte {self._at:,}")
        items: list[Any] = []
        while (len(items) < count) if count is not None else not self._next(b"]"):
            items.append(self.value(depth + 1))
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        count = self._length() if self._next(b"#") else None
        members: dict[str, Any] = {}
        read = 0
        while (read < count) if count is not None else not self._next(b"}"):
            key = self._text()
            members[key] = self.value(depth + 1)
            read += 1
        return members
