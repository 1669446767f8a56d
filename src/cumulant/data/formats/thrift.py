"""Thrift's compact protocol, in which Parquet writes its footer and the headers of its pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_DEPTH = 64
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, LIST, _SET, _MAP, STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12


class Compact:
    """Reads numbers and structs of Thrift's compact protocol. IndexError: the bytes end too early."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def unsigned(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number of more than ten bytes")

    def signed(self) -> int:
        value = self.unsigned()
        return (value >> 1) ^ -(value & 1)

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self.data):
            raise IndexError

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Numbers, flags and structs by the numbers of their fields; None for a field of any other type."""
        if depth > _DEPTH:
            raise ValueError("structs within structs")
        fields: dict[int, Any] = {}
        for number, kind in self.fields():
            if number in fields:
                raise ValueError("a field that comes twice")
            fields[number] = self.value(kind, depth)
        return fields

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct; its value must be read or skipped before the next."""
        number = 0
        while (head := self.byte()) & 15:
            number = number + (head >> 4) if head >> 4 else self.signed()
            yield number, head & 15

    def structs(self, kind: int) -> Iterator[int]:
        """The places in a list of structs; each must be read before the next.

        Raises:
            ValueError: a field of this type is no list of structs.
        """
        head = self.byte()
        if kind != LIST or head & 15 != STRUCT:
            raise ValueError("no list of structs")
        yield from range(head >> 4 if head >> 4 < 15 else self.unsigned())

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if _BYTE < kind < _DOUBLE:
            return self.signed()
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in (LIST, _SET, _MAP):
            return self._elements(kind, depth + 1)
        if kind not in (_BYTE, _DOUBLE, _BINARY):
            raise ValueError(f"a field of type {kind}")
        self.skip({_BYTE: 1, _DOUBLE: 8}.get(kind) or self.unsigned())
        return None

    def _elements(self, kind: int, depth: int) -> None:
        """Skip a list, a set or a map."""
        head = self.byte() if kind != _MAP else 0
        count = head >> 4 if kind != _MAP and head >> 4 < 15 else self.unsigned()
        kinds = [head & 15] if kind != _MAP else list(divmod(self.byte() if count else 0, 16))
        if depth > _DEPTH:
            raise ValueError("lists within lists")
        for _ in range(count):
            for element in kinds:
                if element in (_TRUE, _FALSE):
                    self.byte()
                else:
                    self.value(element, depth)
