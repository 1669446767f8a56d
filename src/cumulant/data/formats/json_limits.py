"""Limits of JSON lines: nesting and number of fields, checked before lines are parsed as a table.

The time to join two types doubles with each level of nesting (20 levels take 0.03 s, 30 half a minute), and a field of
one line takes memory in every row.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import polars as pl

from cumulant.core.errors import DataError
from cumulant.data.formats.parquet_memory import allowed_memory, refuse_above

#: the rule that a line breaks which is nested deeper than so many levels, its object being the first
DEPTH, MOST_LEVELS = "row:depth", 20
#: fields of a file, those within objects included
MOST_FIELDS = 10_000
#: an object with more fields than so many gets them from the engine in the order of a hash table
UNORDERED = 32
#: bytes that a missing value takes at most while lines are read: of a field of the line, and for each object around
_VALUE, _NESTED = 20, 300
#: bytes that an empty list takes for each field of its items' type, and for each level of objects between (measured)
_FIELD, _LEVEL = 70, 22
#: how many times as much other containers take, in halves (measured)
_EMPTY, _OBJECT, _LIST = 2, 3, 9
#: of a path: the items of a list
_ITEM = "[]"
_STEP, _TYPED, _LONG = 1 << 18, 1 << 16, 1 << 20
_LINE_END, _QUOTE, _OPEN, _CLOSE, _FOLD = 10, 34, 0x7B, 0x7D, 0x20
_NAME = re.compile(rb'"([^"]*+)"\s*+:')


def deep_lines(content: bytes) -> dict[int, str]:
    """The numbers (from 0) of the lines that are nested too deep, each with the rule that it breaks."""
    return {number: DEPTH for place, chunk in _chunks(content, _STEP) for number in _deep(chunk, place)}


def is_deep(text: str) -> bool:
    """Whether a JSON text is nested too deep for a parser."""
    if text.count("{") + text.count("[") <= MOST_LEVELS:
        return False
    return bool(_depths(text.replace("\n", " ").encode()).max() > MOST_LEVELS)


class Fields:
    """The fields of a file's lines, nested ones included, and the bytes of a missing value of each.

    `memory`: the most bytes of the file. `names`: the top-level fields in order.
    """

    def __init__(self, url: str, memory: int | None) -> None:
        self._url, self._most = url, allowed_memory(memory, 0)
        self._bytes: dict[tuple[str, ...], int] = {}
        self._last: pl.Schema | None = None
        self._content = b""
        self._lines = self._present = 0
        self._containers: Counter[tuple[str, ...]] | None = None
        self.names: dict[str, None] = {}

    def add(self, schema: pl.Schema, lines: bytes) -> None:
        """The fields of these lines. Raises DataError where there are more than a table can have."""
        if schema != self._last:
            self._last = schema
            self._bytes.update(_paths(schema))
            new = (name for name in schema if name not in self.names)
            self.names |= dict.fromkeys(sorted(new, key=lambda name: (lines.find(msgspec.json.encode(name)), name)))
        if len(self._bytes) > MOST_FIELDS:
            raise _too_many_fields(self._url)

    def refuse_missing(self, content: bytes) -> None:
        """Raise DataError where missing values of these lines do not fit into memory; exact only if need be."""
        if content is not self._content:
            self._content, self._containers = content, None
            self._lines, self._present = content.count(b"\n") + 1, content.count(b":")
        missing = self._lines * len(self._bytes) - self._present
        if missing <= 0 or missing * sum(self._bytes.values()) // len(self._bytes) <= self._most:
            return
        if self._containers is None:
            self._containers = _containers(content, self._url)
        refuse_above(_needed(self._bytes, self._lines, self._containers), self._most, self._url)


def _containers(content: bytes, url: str) -> Counter[tuple[str, ...]]:
    """The bytes that objects and lists within lines take, by their path, in units of two empty lists."""
    counts: Counter[tuple[str, ...]] = Counter()
    decoder = msgspec.json.Decoder(dict[str, Any])
    for line in content.split(b"\n"):
        try:
            item = decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue  # it is set aside
        for name, value in item.items():
            _count(value, (name,), counts)
        if len(counts) > MOST_FIELDS:
            raise _too_many_fields(url)
    return counts


def _count(value: Any, path: tuple[str, ...], counts: Counter[tuple[str, ...]]) -> None:
    if isinstance(value, dict):
        counts[path] += _OBJECT
        for name, inner in value.items():
            _count(inner, (*path, name), counts)
    elif isinstance(value, list):
        counts[path] += _LIST if value else _EMPTY
        for inner in value:
            _count(inner, (*path, _ITEM), counts)


def _needed(paths: Mapping[tuple[str, ...], int], lines: int, containers: Counter[tuple[str, ...]]) -> int:
    """The bytes that lines take: an object or list has the type of all fields within, null is one value of each."""
    total = 0
    for path in paths:
        names = [part != _ITEM for part in path]
        if _ITEM not in path or not any(names[path.index(_ITEM) :]):
            total += lines * _VALUE
        level = 0
        for place in range(len(path) - 1, 0, -1):
            level += names[place]
            if level:
                total += containers[path[:place]] * (_FIELD + _LEVEL * level) // _EMPTY
    return total


def lines_of(content: bytes, url: str) -> Iterator[tuple[int, bytes]]:
    """The lines in groups whose types are inferred in bounded time, each with the number of lines before it.

    Raises:
        DataError: one has too many fields.
    """
    for before, lines in _chunks(content, _TYPED):
        if len(lines) > _LONG and len({match[1] for match in _NAME.finditer(lines)}) > MOST_FIELDS:
            raise _too_many_fields(url)
        yield before, lines


def _too_many_fields(url: str) -> DataError:
    return DataError(
        f"{url} has more than {MOST_FIELDS:,} fields: names that are data and no columns",
        subject=url,
        hint='write such names as values, {"name": "k1", "value": 1}, one row or list item each',
    )


def _paths(fields: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Path and bytes of all fields, those of objects in lists too."""
    for name, dtype in fields.items():
        path = (*above, name)
        inner = dtype
        while isinstance(inner, pl.List):
            inner, path = inner.inner, (*path, _ITEM)
        yield path, _VALUE + _NESTED * (len(path) - 1)
        if isinstance(inner, pl.Struct):
            yield from _paths({field.name: field.dtype for field in inner.fields}, path)


def _chunks(content: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines of about so many bytes, and how many lines are before them."""
    begin = lines = 0
    while begin < len(content):
        end = content.rfind(b"\n", begin, begin + size) + 1 or content.find(b"\n", begin) + 1 or len(content)
        chunk = content[begin:end]
        yield lines, chunk
        begin, lines = end, lines + chunk.count(b"\n")


def _deep(chunk: bytes, lines: int) -> list[int]:
    """The numbers of the lines that are nested too deep, after so many `lines`."""
    import numpy as np

    if chunk.count(b"{") + chunk.count(b"[") <= MOST_LEVELS:
        return []
    data = np.frombuffer(chunk, np.uint8)
    opened = np.flatnonzero((data | _FOLD) == _OPEN)
    ends = np.append(np.flatnonzero(data == _LINE_END), data.size)
    if np.diff(np.searchsorted(opened, ends), prepend=0).max() <= MOST_LEVELS:
        return []
    return [lines + int(number) for number in np.flatnonzero(_depths(chunk) > MOST_LEVELS)]


def _depths(text: bytes) -> Any:
    """How deep each line is nested; brackets within texts are none."""
    import numpy as np

    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    data = np.frombuffer(text, np.uint8)
    folded = data | _FOLD  # which makes square brackets braces
    ends = np.append(np.flatnonzero(data == _LINE_END), data.size)
    quotes = np.flatnonzero(data == _QUOTE)
    before = np.searchsorted(quotes, np.concatenate([[0], ends[:-1]]))
    signs = np.flatnonzero((folded == _OPEN) | (folded == _CLOSE))
    line = np.searchsorted(ends, signs)
    plain = (np.searchsorted(quotes, signs) - before[line]) % 2 == 0
    signs, line = signs[plain], line[plain]
    depths = np.zeros(ends.size, np.int64)
    if not signs.size:
        return depths
    steps = np.where(folded[signs] == _OPEN, 1, -1)
    level = np.cumsum(steps)
    firsts = np.flatnonzero(np.diff(line, prepend=-1))
    level -= np.repeat(level[firsts] - steps[firsts], np.diff(np.append(firsts, level.size)))
    depths[line[firsts]] = np.maximum.reduceat(level, firsts)
    return depths
