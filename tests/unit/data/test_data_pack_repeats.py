"""Repeated keys in packs of many small files: the same rows, versions and identity as where each file is a part."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import polars as pl
import pytest

from cumulant.data.parts import part_store

pytestmark = pytest.mark.slow

DAY = datetime(2024, 1, 10, tzinfo=UTC)
MODES = ("quarantine", "first", "latest")


def alone(monkeypatch) -> None:
    """Let every file be a part of its own."""
    monkeypatch.setattr(part_store, "FEWEST", 1 << 40)
    monkeypatch.setattr(part_store, "_FAN", 1 << 40)


def arrive(place, previous, number: float, **more):
    return place.ingest(path="in", key="id", quarantine=1, now=DAY + timedelta(days=number), previous=previous, **more)


@pytest.mark.parametrize("files", [4, 24])
@pytest.mark.parametrize("mode", MODES)
def test_decimal_keys_of_several_types_are_compared_by_all_their_digits(place, mode, files):
    """No one decimal type holds the digits of all."""
    types = [pl.Decimal(10, 2), pl.Decimal(38, 20), pl.Decimal(38, 0), pl.Int64()]
    for n in range(files):
        own = int("12345678901234567890123456789012345678") + n if n % 4 == 2 else 1000 + n
        values = [Decimal(n // 4), Decimal(own)]
        keys = pl.Series(values if n % 4 != 3 else [int(value) for value in values], dtype=types[n % 4])
        place.write(f"in/{n:02}.parquet", pl.DataFrame({"id": keys, "km": [n, n]}))
    found = arrive(place, None, 0, on_repeat=mode)
    assert found.rows_current == files + files // 4
    if mode != "latest":
        assert place.quarantine(found)["__rule"].to_list() == ["key:repeat"] * (files - files // 4)


def test_refused_decimals_of_several_types_are_stored_as_they_came(place):
    values = [pl.Series([Decimal("-1.25"), Decimal(1)], dtype=pl.Decimal(10, 2))]
    values += [pl.Series([Decimal(f"-{'9' * 38}"), Decimal(1)], dtype=pl.Decimal(38, 0)), pl.Series([-7, 1])]
    for n, column in enumerate(values):
        place.write(f"in/{n}.parquet", pl.DataFrame({"id": [2 * n, 2 * n + 1], "km": column}))
    found = arrive(place, None, 0, rules={"km": {"min": 0}})
    assert place.quarantine(found)["km"].to_list() == ["-1.25", f"-{'9' * 38}", "-7"]


def test_a_row_that_comes_back_in_a_growing_file_keeps_its_own_moment(place):
    """Equal rows of one file arrived at different times; the last one counts."""
    text, found = "id,km\n", None
    for number, line in enumerate(("1,10\n", "1,11\n", "1,10\n", "2,5\n")):
        text += line
        place.write("in/a.csv", text)
        found = arrive(place, found, number, on_repeat="latest")
        again = arrive(place, found, number + 0.5, on_repeat="latest")
        assert (again.id, place.rows(again)) == (found.id, place.rows(found))
    assert sorted(place.rows(found, "id", "km")) == [(1, 10), (2, 5)]
    place.write("in/a.csv", "id,km\n7,7\n" + text.removeprefix("id,km\n"))
    assert sorted(place.rows(arrive(place, found, 9, on_repeat="latest"), "km")) == [(5,), (7,), (10,)]


@pytest.mark.parametrize("mode", ["first", "latest"])
def test_neither_packing_nor_reading_again_changes_the_identity(place, mode, monkeypatch):
    """Names of files are against the order in which they arrive."""
    found, more = None, {"on_repeat": mode, "rules": {"plate": {"unique": True}}}
    for n in range(20):
        place.write(f"in/{50 - n}.csv", f"id,km,plate\n{n // 3},{n},{n // 2}\n")
        before, found = found, arrive(place, found, n, **more)
    with monkeypatch.context() as patch:
        alone(patch)
        unread = tuple(msgspec.structs.replace(file, parts=("0" * 64,)) for file in before.files)  # type: ignore[attr-defined]
        single = arrive(place, msgspec.structs.replace(before, files=unread), 19, force=True, **more)
    assert len(found.parts) < len(single.parts) == 20
    assert found.id == single.id == arrive(place, found, 20, force=True, **more).id
    assert place.rows(found) == place.rows(single)


def test_a_late_file_takes_no_unique_value_where_no_key_is_declared(place):
    more = {"path": "in", "rules": {"plate": {"unique": True}}, "quarantine": 1}
    place.write("in/b.csv", "n,plate\n1,P\n")
    before = place.ingest(**more)
    place.write("in/a.csv", "n,plate\n2,P\n")
    assert place.rows(place.ingest(previous=before, now=DAY + timedelta(days=1), **more), "n") == [(1,)]
