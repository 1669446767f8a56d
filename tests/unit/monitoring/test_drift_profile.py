"""Profiles: counts that add up, in bounded memory, of whatever a table holds."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import DataError
from cumulant.core.units import from_micros
from cumulant.monitoring.drift import profiling
from cumulant.monitoring.drift.blocks import by_rows, by_time, moments
from cumulant.monitoring.drift.profiles import DriftProfile, merge
from cumulant.monitoring.drift.profiling import profile

FIRST = datetime(2026, 3, 1, tzinfo=UTC)


def rows(days=4, size=50, seed=0):
    generator = np.random.default_rng(seed)
    n = days * size
    amount = generator.lognormal(3, 1, n)
    amount[generator.random(n) < 0.1] = np.nan
    place = generator.choice(["ny", "la", None], n, p=[0.6, 0.3, 0.1]).tolist()
    at = [FIRST + timedelta(days=i // size, minutes=i % size) for i in range(n)]
    return pl.DataFrame(
        {"at": at, "amount": amount, "place": place, "count": generator.poisson(4, n), "key": np.arange(n)}
    )


ROLES = {"amount": "feature", "place": "feature", "count": "prediction", "key": "feature", "at": "feature"}


def test_a_new_day_is_counted_alone_and_added(tmp_path):
    table = rows()
    reference = profile(table, ROLES)
    both = profile(table, ROLES, like=reference, cut=by_time(table["at"], timedelta(days=1)))
    days = [
        profile(day, ROLES, like=reference, cut=by_time(day["at"], timedelta(days=1)))
        for (_,), day in table.group_by(pl.col("at").dt.date(), maintain_order=True)
    ]
    assert merge([*days[2:], *days[:2]]) == both
    assert [block.rows for block in both.blocks] == [50] * 4
    assert both.blocks[1].start == int((FIRST + timedelta(days=1)).timestamp() * 1e6)
    assert msgspec.json.decode(msgspec.json.encode(both), type=DriftProfile) == both
    other = profile(table.head(80), ROLES)
    with pytest.raises(DataError, match="do not count the same cells"):
        merge([both, other])
    # A scan of a file, and chunks of a column, count the same.
    table.write_parquet(tmp_path / "t.parquet")
    lazy = pl.scan_parquet(tmp_path / "t.parquet")
    cut = by_time(table["at"], timedelta(days=1))
    assert profile(lazy, ROLES, like=reference, cut=cut) == both


def test_counts_are_those_of_the_values_in_chunks_too(monkeypatch):
    table = rows()
    whole = profile(table, ROLES)
    amount, place, count = whole.columns
    assert (sum(amount.counts[0]), amount.missing[0]) == (
        int(table["amount"].is_not_nan().sum()),
        int(table["amount"].is_nan().sum()),
    )
    assert place.counts[0][: len(place.cells.values)] == tuple(
        int((table["place"] == value).sum()) for value in place.cells.values
    )
    assert place.cells.values[0] == "ny"
    assert place.missing == (table["place"].null_count(),)
    assert {one.name: one.reason for one in whole.skipped} == {
        "key": "every row has its own value, as keys have",
        "at": "times move by themselves",
    }
    assert count.role == "prediction"
    monkeypatch.setattr(profiling, "CHUNK", 64)
    chunked = profile(table, ROLES, like=whole, cut=by_rows(table.height, 60))
    monkeypatch.undo()
    assert chunked == profile(table, ROLES, like=whole, cut=by_rows(table.height, 60))
    assert [block.rows for block in chunked.blocks] == [60, 60, 60, 20]


def test_what_does_not_fit_the_reference_is_counted_apart():
    table = pl.DataFrame({"n": [1.0, 2.0, 3.0, 4.0] * 30, "c": ["a", "b", "b", "c"] * 30})
    reference = profile(table, dict.fromkeys(table.columns, "feature"))
    odd = pl.DataFrame(
        {"n": ["2.5", "x", None, "1e9", "-inf", ""], "c": [1.0, 2.0, None, 1.0, 2.0, 1.0], "new": [0] * 6}
    )
    number, category = (found := profile(odd, dict.fromkeys(odd.columns, "feature"), like=reference)).columns
    assert (number.unreadable, number.missing) == ((1,), (2,))
    assert (number.counts[0][0], number.counts[0][-1], sum(number.counts[0])) == (1, 1, 3)
    assert (category.counts[0][-1], category.examples) == (5, ("1", "2"))
    assert found.extra == ("new",)
    nested = profile(pl.DataFrame({"n": [[1.0], [2.0]]}), {"n": "feature"}, like=reference)
    assert nested.columns[0].unreadable == (2,)
    assert [one.absent for one in nested.columns] == [False, True]


def test_a_million_new_categories_stay_small():
    known = pl.DataFrame({"c": [f"k{i % 500}" for i in range(20_000)]})
    reference = profile(known, {"c": "feature"})
    new = profile(
        pl.DataFrame({"c": pl.int_range(200_000, eager=True).cast(pl.String)}), {"c": "feature"}, like=reference
    )
    assert new.columns[0].counts[0][-1] == 200_000
    assert len(msgspec.json.encode(new)) < 20_000
    text = profile(pl.DataFrame({"c": [f"note {i}" for i in range(200)]}), {"c": "feature"})
    assert text.skipped[0].reason == "most rows have their own text, as keys and free text have"


def test_more_categories_than_are_remembered_are_not_called_unseen():
    many = pl.DataFrame({"c": [f"k{i % 52_000}" for i in range(156_000)]})
    reference = profile(many, {"c": "feature"})
    assert not reference.columns[0].cells.complete
    found = profile(many, {"c": "feature"}, like=reference).columns[0]
    assert (found.counts[0][-1], sum(found.counts[0]), found.examples) == (0, 156_000, ())


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_windows_of_times_in_parts_are_those_of_all_times(size):
    days = [40, 3, None, 3, 7, None, None, 1, 40, 9, -2]
    times = pl.Series("t", [None if day is None else datetime(2026, 1, 20) + timedelta(days=day) for day in days])
    for given in (times, times.dt.to_string(), times.dt.replace_time_zone("Europe/Berlin")):
        whole = by_time(given, timedelta(days=2))
        parts = by_time((given[at : at + size] for at in range(0, len(given), size)), timedelta(days=2))
        assert (parts.blocks, parts.left_out) == (whole.blocks, whole.left_out)
        assert parts.places.tolist() == whole.places.tolist()


def test_times_are_read_and_rows_without_one_left_out():
    written = ["2026-03-01 10:00:00", "2026-03-02", "2026-03-02T23:59:59.5+02:00", "2026-03-01T00:00Z", "never", None]
    read = moments(pl.Series("t", written))
    told = [None if one is None else from_micros(one).isoformat() for one in read]
    assert told == [
        "2026-03-01T10:00:00+00:00",
        "2026-03-02T00:00:00+00:00",
        "2026-03-02T21:59:59.500000+00:00",
        "2026-03-01T00:00:00+00:00",
        None,
        None,
    ]
    cut = by_time(pl.Series("t", ["2026-03-01 10:00:00", None, "2026-03-03 00:00:00"]), timedelta(days=1))
    assert (len(cut.blocks), cut.left_out, cut.codes.tolist()) == (2, 1, [0, 2, 1])
    with pytest.raises(DataError, match="column x holds no times"):
        by_time(pl.Series("x", ["a", "b"]), timedelta(days=1))
    with pytest.raises(DataError, match="holds no times"):
        by_rows(2, 1, pl.Series("x", [1, 2]))
    spread = pl.Series("t", [datetime(1970, 1, 1) + timedelta(days=i) for i in range(6000)])
    with pytest.raises(DataError, match="6,000 windows of 1d"):
        by_time(spread, timedelta(days=1))
    ordered = by_rows(5, 2, pl.Series("t", [datetime(2026, 1, day) for day in (5, 1, 4, 2, 3)]))
    assert ordered.codes.tolist() == [2, 0, 1, 0, 1]
    assert [block.rows for block in ordered.blocks] == [2, 2, 1]
    frame = pl.DataFrame({"v": [1.0, 2.0, 3.0]})
    counted = profile(frame, {"v": "feature"}, cut=cut)
    assert (counted.rows, counted.left_out, sum(map(sum, counted.columns[0].counts))) == (2, 1, 2)


def test_what_cannot_be_profiled_is_said():
    with pytest.raises(DataError, match="no column b"):
        profile(pl.DataFrame({"a": [1]}), {"b": "feature"})
    with pytest.raises(DataError, match="no row"):
        profile(pl.DataFrame({"a": []}), {"a": "feature"})
    empty = profile(
        pl.DataFrame({"a": [None, None], "b": pl.Series([None, None], dtype=pl.Float64)}),
        {"a": "feature", "b": "feature"},
    )
    assert [one.reason for one in empty.skipped] == ["the reference holds no value of it"] * 2


@pytest.mark.parametrize(
    ("values", "unseen", "missing"),
    [
        (pl.Series([1.0, float("inf"), 2.0]), 1, 0),
        (pl.Series([1.0, float("nan"), 2.0]), 0, 1),
        (pl.Series([1.0, 1e30, 2.0]), 1, 0),
        (pl.Series([["x"], None, ["y"]]), 2, 1),
        (pl.Series([b"\xff", b"1", None]), 2, 1),
        (pl.Series([{"a": 1}, None, {"a": 2}]), 2, 1),
    ],
)
def test_a_category_that_comes_as_another_type_is_counted(values, unseen, missing):
    reference = profile(pl.DataFrame({"code": ["1", "2"] * 50}), {"code": "feature"})
    (column,) = profile(values.alias("code").to_frame(), {"code": "feature"}, like=reference).columns
    assert (column.counts[0][-1], column.missing[0], sum(column.counts[0])) == (unseen, missing, 3 - missing)


def test_a_number_that_comes_as_a_category_is_read():
    reference = profile(pl.DataFrame({"fare": [1.5, 2.5] * 50}), {"fare": "feature"})
    now = pl.DataFrame({"fare": ["1.5", "much", None]}, schema={"fare": pl.Categorical})
    (column,) = profile(now, {"fare": "feature"}, like=reference).columns
    assert (sum(column.counts[0]), column.unreadable, column.missing) == (1, (1,), (1,))
