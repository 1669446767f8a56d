"""Entries of a log, one by one and in blocks, against a dictionary."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.features.posted.log_entries import BLOCK, LogEntries

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 3)),
        st.tuples(st.just("add all"), st.integers(0, 3 * BLOCK)),
        st.tuples(st.just("remove"), st.floats(0, 1), st.integers(1, 2 * BLOCK)),
        st.tuples(st.just("remove before"), st.floats(0, 1)),
        st.tuples(st.just("read"), st.floats(0, 1), st.floats(0, 1)),
        st.just(("commit",)),
    ),
    max_size=20,
)


class StoredCells:
    """The blobs of one table."""

    def __init__(self) -> None:
        self.rows = dict[bytes, bytes | None]()

    def get(self, _table, keys):
        return [self.rows.get(key) for key in keys]

    def put(self, _table, rows):
        self.rows.update(rows)


class World:
    """A log's entries in a store, and what they must be."""

    def __init__(self) -> None:
        self.cells, self.right, self.first, self.next = StoredCells(), dict[int, bytes](), 0, 0
        self.entries = LogEntries(self.cells, "log")

    def add(self, count: int) -> None:
        for _ in range(count):
            self.entries.add(self.next, self._key())

    def add_all(self, count: int) -> None:
        first = self.next
        self.entries.add_all(first, [self._key() for _ in range(count)])

    def _key(self) -> bytes:
        self.right[self.next] = key = b"row %03d" % self.next
        self.next += 1
        return key

    def place(self, share: float) -> int:
        return self.first + int(share * (self.next - self.first))

    def remove(self, share: float, step: int) -> None:
        numbers = range(self.place(share), self.next, step)
        self.entries.remove(numbers)
        for number in numbers:
            self.right.pop(number, None)

    def remove_before(self, share: float) -> None:
        end = self.place(share)
        self.entries.remove_before(self.first, end)
        self.right, self.first = {number: key for number, key in self.right.items() if number >= end}, end

    def read(self, share: float, other: float) -> None:
        begin, end = sorted((self.place(share), self.place(other)))
        assert self.entries.read(begin, end) == {
            number: self.right[number] for number in range(begin, end) if number in self.right
        }

    def commit(self) -> None:
        self.cells.put("log", self.entries.changed.items())
        self.entries = LogEntries(self.cells, "log")


@settings(max_examples=200)
@given(_STEPS)
def test_entries_are_those_of_a_dictionary(steps):
    world = World()
    for name, *arguments in steps:
        getattr(world, name.replace(" ", "_"))(*arguments)
    world.read(0, 1)
    world.commit()
    world.read(0, 1)


def test_no_blob_has_the_key_of_an_entry_that_was_removed():
    world = World()
    world.add_all(3 * BLOCK)
    world.remove(0.4, 1)
    world.commit()
    stored = b"".join(blob for blob in world.cells.rows.values() if blob)
    assert 0 < len(world.right) < 3 * BLOCK
    assert all((b"row %03d" % number in stored) == (number in world.right) for number in range(3 * BLOCK))


def test_no_block_keeps_the_key_of_an_entry_before_the_first():
    world = World()
    world.add_all(2 * BLOCK)
    world.remove_before(0.3)
    world.commit()
    stored = b"".join(blob for blob in world.cells.rows.values() if blob)
    assert b"row 037" not in stored
    assert b"row 038" in stored


def test_entries_are_removed_one_by_one_and_before_the_first_in_one_update():
    world = World()
    world.add_all(2 * BLOCK)
    world.commit()
    world.entries.remove([5, 50])
    world.entries.remove_before(0, 40)
    world.commit()
    stored = b"".join(blob for blob in world.cells.rows.values() if blob)
    assert [number for number in (5, 39, 40, 50, 51) if b"row %03d" % number in stored] == [40, 51]
    assert 50 not in world.entries.read(40, 60)


def test_many_entries_take_few_blobs():
    world = World()
    world.add(1)
    world.add_all(100 * BLOCK)
    assert len(world.entries.changed) < 100 + 2 * BLOCK
