"""Which rows of a snapshot an earlier one holds: whatever parts they are stored in, and never wrongly."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import pairwise

import polars as pl
import pytest

from cumulant.core.plan import Field
from cumulant.data.parts.added_rows import SharedRows, count_added, find_shared_rows, scan_added
from cumulant.data.profile import Profile
from cumulant.data.row_columns import ROW
from cumulant.data.snapshot import RowRange, Snapshot, scan
from cumulant.testing.tables import MemoryTables

FIELDS = (Field("n", "int"), Field("x", "float"), Field("word", "str"))


class Store:
    """Snapshots of rows in tables, whose parts are cut and packed by chance."""

    def __init__(self) -> None:
        self.tables = MemoryTables()

    def snapshot(self, rows: list[tuple[object, ...]], rng: random.Random) -> Snapshot:
        cuts = sorted({0, len(rows), *(rng.randrange(len(rows) + 1) for _ in range(3))})
        parts = [self._part(rows[low:high], rng) for low, high in pairwise(cuts)]
        return self._of(tuple(parts))

    def _part(self, rows: list[tuple[object, ...]], rng: random.Random) -> RowRange:
        """Equal rows are equally named; some are in a larger table."""
        around = rng.choice([0, 0, 2])
        padded = [(-1, None, None)] * around + rows + [(-2, None, None)] * around
        frame = pl.DataFrame(padded, schema={"n": pl.Int64, "x": pl.Float64, "word": pl.String}, orient="row")
        key = f"data/s/{padded!r}"
        self.tables.write(key, frame)
        return RowRange(key, len(rows), 1, around or None)

    @staticmethod
    def _of(parts: tuple[RowRange, ...]) -> Snapshot:
        rows = sum(part.rows for part in parts)
        return Snapshot(
            id="s",
            source="s",
            declaration="d",
            parts=parts,
            fields=FIELDS,
            key=(),
            event_time=None,
            known={},
            files=(),
            rows_in=rows,
            rows_passed=rows,
            rows_quarantined=0,
            rows_dropped=0,
            quarantine=None,
            checks=(),
            profile=Profile(rows),
            bytes=1,
            csv_bytes=1,
            accepted=datetime(2024, 1, 1, tzinfo=UTC),
        )


def made(rng: random.Random, count: int) -> list[tuple[object, ...]]:
    return [(rng.randrange(3), rng.choice([0.0, -0.0, 1.5, None]), rng.choice(["a", "", None])) for _ in range(count)]


def read(store: Store, snapshot: Snapshot) -> list[tuple[object, ...]]:
    """Rows with the sign of zero."""
    return [tuple(map(repr, row)) for row in scan(snapshot, store.tables).drop(ROW).collect().rows()]


@pytest.mark.parametrize("seed", range(60))
def test_rows_are_kept_whatever_parts_they_are_stored_in(seed: int) -> None:
    rng, store = random.Random(seed), Store()
    old = made(rng, rng.randrange(20))
    place = rng.randrange(len(old) + 1)
    before = store.snapshot(old, rng)
    now = store.snapshot([*old[:place], *made(rng, rng.randrange(6)), *old[place:]], rng)
    kept = find_shared_rows(before, now, store.tables)
    if kept is None:  # parts that both have may stand so that the others do not match: then all is computed
        return
    check(store, before, now, kept)


def check(store: Store, before: Snapshot, now: Snapshot, kept: tuple[SharedRows, ...]) -> None:
    """What is kept are all earlier rows, in order; what is added are all others."""
    old, new = read(store, before), read(store, now)
    pairs = [(one.before + i, one.now + i) for one in kept for i in range(one.rows)]
    assert [at for at, _ in pairs] == list(range(len(old)))
    places = [at for _, at in pairs]
    assert places == sorted(set(places))
    assert [new[at] for at in places] == old
    added = scan_added(now, kept, store.tables).collect()
    assert added[ROW].to_list() == sorted(set(range(len(new))) - set(places))
    assert [tuple(map(repr, row)) for row in added.drop(ROW).rows()] == [new[at] for at in added[ROW]]
    assert added.height == count_added(now, kept)


def test_most_added_rows_are_found() -> None:
    found = 0
    for seed in range(60):
        rng, store = random.Random(seed), Store()
        old = made(rng, 15)
        now = store.snapshot([*old, *made(rng, 3)], rng)
        found += find_shared_rows(store.snapshot(old, rng), now, store.tables) is not None
    assert found >= 55


@pytest.mark.parametrize("seed", range(20))
def test_a_row_that_is_gone_or_changed_is_no_addition(seed: int) -> None:
    rng, store = random.Random(seed), Store()
    old = [(place, 0.0, "a") for place in range(12)]
    place = rng.randrange(12)
    before = store.snapshot(old, rng)
    for change in ([], [(place, -0.0, "a")], [(place, None, "a")], [(place, 0.0, "")]):
        now = store.snapshot([*old[:place], *change, *old[place + 1 :], (99, 0.0, "a")], rng)
        assert find_shared_rows(before, now, store.tables) is None
    swapped = [old[1], old[0], *old[2:], (99, 0.0, "a")]
    assert find_shared_rows(before, store.snapshot(swapped, rng), store.tables) is None
