"""Numbers near the ends of their types: profiles, rules of batches and conditions that compute."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from cumulant.core.plan import Field
from cumulant.data.checks.distribution import mean_p_value
from cumulant.data.profile import merge, profile
from cumulant.data.shift import measure_shifts

FIELDS = (Field("x", "float"),)


@pytest.mark.parametrize(
    "parts", [[[1e300, 1e300], [1.0]], [[1.0], [-1e300, 1e300]], [[1.5e308, -1.5e308], [1.5e308]], [[1e200, 2e200]]]
)
def test_moments_of_huge_values_are_those_of_all_rows(parts):
    profiles = [profile(pl.DataFrame({"x": part}), FIELDS) for part in parts]
    for found, values in ((merge(profiles, FIELDS), list(itertools.chain(*parts))), (profiles[0], parts[0])):
        scaled = np.array(values) / 2.0**1000
        assert found["x"].mean == pytest.approx(scaled.mean() * 2.0**1000, rel=1e-12, abs=1e290)
        assert found["x"].std == pytest.approx(scaled.std() * 2.0**1000, rel=1e-12)
    moved = measure_shifts(profiles[0], merge(profiles, FIELDS))
    assert all(math.isfinite(shift.distance) for shift in moved)


@pytest.mark.parametrize("huge", [1e300, -1.7e308])
def test_a_column_of_huge_values_is_ingested_part_by_part(place, huge):
    rows = "".join(f"{i},2024-01-0{1 + i % 5}T00:00:00Z,{huge}\n" for i in range(40))
    place.write("in/a.csv", "id,at,x\n" + rows)
    place.write("in/b.csv", "id,at,x\n99,2024-01-02T00:00:00Z,1.5\n")
    rules = {"x": {"mean": {"min": -1e308 * 1.7, "max": 1e308 * 1.7}, "drift": 0.9, "shares": {"1.5": {"max": "90%"}}}}
    spec = {"path": "in", "key": "id", "event_time": {"column": "at"}, "rules": rules}
    first = place.ingest(**spec)
    place.write("in/c.csv", "id,at,x\n100,2024-01-03T00:00:00Z,-1.7e308\n")
    found = place.ingest(**spec, previous=first)
    assert found.rows_passed == 42
    assert math.isfinite(found.profile["x"].mean)


def test_the_mean_of_huge_values_is_judged_as_that_of_small_ones():
    values = np.random.default_rng(0).normal(1, 0.1, 400)
    for scale in (1.0, 2.0**1020):
        for limit, above in ((0.9, True), (1.004, True), (1.1, False)):
            small = mean_p_value(values, limit, above=above, spread=0.2)
            assert mean_p_value(values * scale, limit * scale, above=above, spread=0.2 * scale) == small


COMPUTED = "id,total,count\n1,10,2\n2,10,0\n3,,0\n4,-10,0\n5,0,0\n"


@pytest.mark.parametrize(
    ("condition", "passed"),
    [
        ("total / count > 1", [1, 3]),
        ("total / count < 100", [1, 3]),
        ("total // count > 1", [1, 3]),
        ("DIV(total, count) > 1", [1, 3]),
        ("MOD(total, count) < 100", [1, 3]),
        ("total % (count) < 1e9", [1, 3]),
        ("total / (count / 2) > -1e9", [1, 3]),
        ("(total - 1) / abs(count::int) > 1 and id > 0", [1, 3]),
        ("count = 0 or total / count > 1", [1, 2, 3, 4, 5]),
        ("case when count > 0 then total / count > 1 else true end", [1, 2, 3, 4, 5]),
        ("1 / 0 > 1", []),
        ('1 / "count" > 0', [1]),
        ("total / case when count = 0 then 0 else count end >= .5", [1, 3]),
        ("sqrt(total) > -1", [1, 2, 3, 5]),
        ("ln(count) < 100", [1]),
        ("count = 0 or sqrt(ln(count) / total) < 1", [1, 2, 3, 4, 5]),
        ("count <> 0 and total / count >= -1 and id is not null", [1]),
        ("coalesce(total / count, 0) >= 0", [1, 2, 3, 4, 5]),
        ("'a/b' = 'a/b' /* 1 / 0 */", [1, 2, 3, 4, 5]),
    ],
)
def test_a_row_whose_condition_has_no_result_is_refused(place, condition, passed):
    place.write("trips.csv", COMPUTED)
    found = place.ingest(table={"where": [condition]}, quarantine=1)
    assert [row[0] for row in place.rows(found, "id")] == passed


def test_spans_of_time_are_divided_as_before(place):
    place.write("trips.csv", "a,b\n2024-01-01T00:00Z,2024-01-01T01:00Z\n2024-01-01T00:00Z,2024-01-01T02:00Z\n")
    rules = {"a": {"type": "time"}, "b": {"type": "time"}}
    condition = "(b - a) / 2 >= interval '1 hour' and (b - a) / (b - a) > 0"
    found = place.ingest(table={"where": [condition]}, rules=rules, quarantine=1)
    assert found.rows_passed == 1


@pytest.mark.parametrize(
    "condition", ["price * pieces > 0", "price + price > 0", "(0 - price) - price < 0", "abs(price) * pieces > 0"]
)
def test_whole_numbers_of_a_condition_do_not_wrap(place, condition):
    place.write("trips.csv", f"id,price,pieces\n1,{2**62},4\n2,{2**62},-4\n3,{-(2**63)},1\n")
    found = place.ingest(table={"where": [condition]}, quarantine=1)
    assert 1 in [row[0] for row in place.rows(found, "id")]


DIGITS = [Decimal(text) for text in ("1234567890123456789.01", "1234567890123456789.02", "0.10")]


def decimals(values, scale=2):
    rows = {"id": pl.Series(values, dtype=pl.Decimal(38, scale)), "n": range(len(values))}
    return pl.DataFrame(rows)


def test_decimals_are_stored_with_all_digits_and_keys_by_them_stay_apart(place):
    assert float(DIGITS[0]) == float(DIGITS[1]), "as floats the keys are one"
    place.write("in/a.parquet", decimals([*DIGITS, DIGITS[0]]))
    place.write("in/b.parquet", decimals([DIGITS[1] + 1, DIGITS[2]], scale=4))
    rules = {"id": {"min": 0, "nulls": 0}}
    found = place.ingest(path="in", key="id", quarantine=1, rules=rules, table={"where": ["id / 2 > 0"]})
    assert [place.tables.scan(part).collect()["id"].to_list() for part in found.parts] == [DIGITS, [DIGITS[1] + 1]]
    assert place.quarantine(found).select("__rule", "id").rows() == [
        ("key:repeat", DIGITS[0]),
        ("key:repeat", DIGITS[2]),
    ]
    assert place.rows(found, "id") == [*((float(value),) for value in DIGITS), (float(DIGITS[1] + 1),)]
    assert found.profile["id"].min == 0.1
    assert found.profile["id"].max == float(DIGITS[1] + 1)


def test_decimals_beside_floats_are_compared_as_floats(place):
    place.write("in/a.parquet", decimals(DIGITS[2:]))
    place.write("in/b.csv", "id,n\n0.10,1\n0.11,1\n")
    found = place.ingest(path="in", key="id", quarantine=1)
    assert place.rows(found, "id") == [(0.1,), (0.11,)]


def test_a_shift_between_the_least_numbers_has_a_distance():
    """Halves of 0 and of the least number above it are equal."""
    before, now = (profile(pl.DataFrame({"x": [0.0] * 60 + [least] * 60 + [1e300]}), FIELDS) for least in (5e-324, 1.0))
    found = [*measure_shifts(before, before), *measure_shifts(before, now)]
    assert found
    assert all(math.isfinite(shift.distance) for shift in found)
