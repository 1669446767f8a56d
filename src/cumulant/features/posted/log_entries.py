"""The entries of a log: which key was posted as which number. Needs msgspec only.

An entry is one blob. Of rows that are added many at a time, `BLOCK` entries whose numbers begin at a multiple of it are
one: each blob of a store costs as much as its index does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from cumulant.features.online.state import encode
from cumulant.ports.online import Cells

_ENTRY, _BLOCK = b"\x01", b"\x03"
BLOCK = 64

_decode = msgspec.msgpack.Decoder(list[bytes]).decode


class LogEntries:
    """The entries of one log inside one update of the store."""

    def __init__(self, cells: Cells, table: str) -> None:
        self._cells, self._table = cells, table
        self._keys: dict[int, bytes] = {}
        #: what is to be written
        self.changed: dict[bytes, bytes | None] = {}

    def add(self, number: int, key: bytes) -> None:
        self._keys[number] = key
        self.changed[_entry_key(number)] = key

    def add_all(self, first: int, keys: Sequence[bytes]) -> None:
        """Add entries of consecutive numbers."""
        end = first + len(keys)
        begin = min(-(-first // BLOCK) * BLOCK, end)
        after = max(end // BLOCK * BLOCK, begin)
        for number in (*range(first, begin), *range(after, end)):
            self.add(number, keys[number - first])
        for number in range(begin, after, BLOCK):
            self.changed[_block_key(number)] = encode(keys[number - first : number - first + BLOCK])
        self._keys.update(zip(range(begin, after), keys[begin - first :], strict=False))

    def read(self, begin: int, end: int) -> dict[int, bytes]:
        """The keys of entries from `begin` to before `end`; those that were removed are absent."""
        numbers = [number for number in range(begin, end) if number not in self._keys]
        firsts = list(dict.fromkeys(number // BLOCK * BLOCK for number in numbers))
        stored = self._stored([*map(_entry_key, numbers), *map(_block_key, firsts)])
        singles = {number: key for number, key in zip(numbers, stored, strict=False) if key is not None}
        blocks = {
            number: key
            for first, blob in zip(firsts, stored[len(numbers) :], strict=True)
            if blob is not None
            for number, key in enumerate(_decode(blob), first)
            if key
        }
        self._keys = blocks | singles | self._keys
        return {number: self._keys[number] for number in range(begin, end) if number in self._keys}

    def remove(self, numbers: Collection[int]) -> None:
        """Remove the keys of entries, which stay numbered."""
        firsts = list(dict.fromkeys(number // BLOCK * BLOCK for number in numbers))
        stored = self._stored([*map(_block_key, firsts)])
        blocks = {first: _decode(blob) for first, blob in zip(firsts, stored, strict=True) if blob is not None}
        for number in numbers:
            self._keys.pop(number, None)
            self.changed[_entry_key(number)] = None
            block = blocks.get(number // BLOCK * BLOCK)
            if block is not None:
                block[number % BLOCK] = b""
        self.changed |= {_block_key(first): encode(block) for first, block in blocks.items()}

    def remove_before(self, begin: int, end: int) -> None:
        """Remove all entries from `begin` to before `end`, before which there is none."""
        last = end // BLOCK * BLOCK
        for number in range(begin, last):
            self.changed[_entry_key(number)] = None
        for number in range(begin // BLOCK * BLOCK, last, BLOCK):
            self.changed[_block_key(number)] = None
        self.remove(range(max(begin, last), end))

    def _stored(self, names: list[bytes]) -> list[bytes | None]:
        """Blobs as they are with what is to be written."""
        before = self._cells.get(self._table, names)
        return [self.changed.get(name, blob) for name, blob in zip(names, before, strict=True)]


def _entry_key(number: int) -> bytes:
    return _ENTRY + number.to_bytes(8, "big")


def _block_key(first: int) -> bytes:
    return _BLOCK + first.to_bytes(8, "big")
