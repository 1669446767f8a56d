"""Schemas of Avro that could take more memory or stack than a message has bytes.

The library reads recursive types by recursion in C, where 10,000 levels end the process, and an item that takes no byte
as often as a message says. Such a schema is refused before any message is read by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cumulant.data.formats.json_limits import MOST_FIELDS, MOST_LEVELS

#: the most values of an item of a list or a map for each byte that it takes
_MOST_PER_BYTE = 8
#: the most characters of a schema with those that it names, and levels of its text
MOST_CHARACTERS, _MOST_TEXT_LEVELS = 4 << 20, 200
#: the most digits of a decimal
_MOST_DIGITS = 1000
_PLAIN = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}


class UnusableSchemaError(Exception):
    """A schema by which no message is read, and why."""


class _Size(NamedTuple):
    """`most`: values of one item at most. `values`, `least`: those of the densest item, and the bytes that it takes."""

    most: int
    values: int
    least: int


def is_deep_text(text: str) -> bool:
    """Whether the text of a schema has more levels than a parser should be given."""
    depth = most = 0
    for sign in text:
        if sign in "{[":
            depth += 1
            most = max(most, depth)
        elif sign in "}]":
            depth -= 1
    return most > _MOST_TEXT_LEVELS


def check_avro(schema: Any, named: Mapping[str, Any]) -> None:
    """Check a schema whose names are full ones. `named`: the types by name.

    Raises:
        UnusableSchemaError: it contains itself, or takes too much.
    """
    size = _Measure(named).size(schema, 0)
    if size.most > MOST_FIELDS:
        raise UnusableSchemaError(f"a message may have {size.most:,} values")


class _Measure:
    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named, self._open = named, set[str]()
        self._known: dict[tuple[str, int], _Size] = {}

    def size(self, schema: Any, level: int) -> _Size:
        if level > MOST_LEVELS:
            raise UnusableSchemaError("it has too many levels")
        if isinstance(schema, list):
            return self._union(schema, level)
        if isinstance(schema, str):
            return _Size(1, 1, _PLAIN[schema]) if schema in _PLAIN else self._of_name(schema, level)
        kind = schema["type"]
        if any(schema.get(name, 0) > _MOST_DIGITS for name in ("precision", "scale")):
            raise UnusableSchemaError(f"a decimal has more than {_MOST_DIGITS:,} digits")
        if kind == "record":
            return self._record(schema, level)
        if kind in ("array", "map"):
            self._check_items(schema["items" if kind == "array" else "values"], level, key=kind == "map")
            return _Size(1, 1, 1)
        if kind == "fixed":
            if not isinstance(schema["size"], int) or schema["size"] < 0:
                raise UnusableSchemaError("a fixed type has no size")
            return _Size(1, 1, schema["size"])
        return _Size(1, 1, 1) if kind == "enum" else self.size(kind, level)

    def _of_name(self, name: str, level: int) -> _Size:
        if name in self._open:
            raise UnusableSchemaError(f"type {name} contains itself")
        if name not in self._named:
            raise UnusableSchemaError(f"type {name} is not known")
        if (name, level) not in self._known:
            self._known[name, level] = self.size(self._named[name], level)
        return self._known[name, level]

    def _record(self, schema: Mapping[str, Any], level: int) -> _Size:
        name = schema["name"]
        if name in self._open:
            raise UnusableSchemaError(f"type {name} contains itself")
        self._open.add(name)
        sizes = [self.size(field["type"], level + 1) for field in schema["fields"]]
        self._open.discard(name)
        return _Size(
            1 + sum(size.most for size in sizes),
            1 + sum(size.values for size in sizes),
            sum(size.least for size in sizes),
        )

    def _union(self, branches: list[Any], level: int) -> _Size:
        sizes = [self.size(branch, level) for branch in branches]
        if not sizes:
            raise UnusableSchemaError("a union has no type")
        densest = max(sizes, key=lambda size: size.values / (size.least + 1))
        return _Size(max(size.most for size in sizes), densest.values, densest.least + 1)

    def _check_items(self, schema: Any, level: int, *, key: bool) -> None:
        size = self.size(schema, level + 1)
        least = size.least + key
        if least == 0 or size.values > _MOST_PER_BYTE * least:
            raise UnusableSchemaError("an item of a list takes no bytes, or few for its values")
