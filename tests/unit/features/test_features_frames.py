"""What the offline engine reads: types, zones, keys, and columns that are not as the plan expects."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError
from cumulant.core.plan import Field, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.functions import col
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.offline.frames import key_codes, read_fields
from cumulant.features.offline.offline import compute
from cumulant.features.online.requests import RequestReader

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]


def one(field: Field, values: list[Any], dtype: Any = None) -> list[Any]:
    return read_fields("s", [field], pl.DataFrame({field.name: pl.Series(values, dtype=dtype)}))[field.name].to_list()


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.one_of(
        st.datetimes(datetime(1995, 1, 1), datetime(2030, 1, 1)),
        st.integers(-300, 300).map(lambda m: datetime(2013, 3, 31, 2) + timedelta(minutes=m)),
        st.integers(-300, 300).map(lambda m: datetime(2013, 11, 3, 1) + timedelta(minutes=m)),
        st.integers(-300, 300).map(lambda m: datetime(2013, 4, 7, 2) + timedelta(minutes=m)),
        st.integers(-3000, 3000).map(lambda m: datetime(2011, 12, 30) + timedelta(minutes=m)),
    ),
)
def test_a_naive_time_is_read_alike_offline_and_in_requests(zone: str, local: datetime) -> None:
    """Repeated hours as their first occurrence, skipped ones as null, in every zone."""
    field = Field("t", "time", zone=zone)
    offline = one(field, [local])[0]
    served = RequestReader([field]).read({"t": local.isoformat()})["t"]
    assert (None if offline is None else (offline - EPOCH) // timedelta(microseconds=1)) == served


def test_types_are_brought_to_those_of_the_plan() -> None:
    assert one(Field("a", "float"), [1, None], pl.Int32) == [1.0, None]
    assert one(Field("a", "float"), [float("nan"), float("inf"), 2.5], pl.Float32) == [None, None, 2.5]
    assert one(Field("a", "int"), [5], pl.UInt8) == [5]
    assert one(Field("a", "str"), ["x", None], pl.Categorical) == ["x", None]
    assert one(Field("a", "time"), [date(2013, 1, 1)], pl.Date) == [datetime(2013, 1, 1, tzinfo=UTC)]
    assert one(Field("a", "time"), [datetime(2013, 1, 1)], pl.Datetime("ns", "Europe/Paris")) == [
        datetime(2013, 1, 1, tzinfo=UTC)
    ]
    assert one(Field("a", "int"), [None]) == [None]


def test_frames_that_are_not_as_planned_are_refused() -> None:
    with pytest.raises(DataError, match='s has no column "amount"') as caught:
        read_fields("s", [Field("amount", "float")], pl.DataFrame({"amout": [1]}))
    assert caught.value.hint == 'did you mean "amout"?'
    with pytest.raises(DataError, match="is String and was float"):
        read_fields("s", [Field("amount", "float")], pl.DataFrame({"amount": ["x"]}))


def test_positions_come_along_or_are_made() -> None:
    field = Field("a", "int")
    assert read_fields("s", [field], pl.DataFrame({"a": [1, 2], "__row": [7, 9]}))["__row"].to_list() == [7, 9]
    assert read_fields("s", [field], pl.LazyFrame({"a": [1, 2]}))["__row"].to_list() == [0, 1]
    assert read_fields("s", [field], pl.DataFrame({"b": [1, 2]}), optional=True)["a"].to_list() == [None, None]


VALUES = {
    "int": st.one_of(st.integers(-5, 5), st.sampled_from([2**62, -(2**63)])),
    "str": st.text("ab", max_size=2),
    "flag": st.booleans(),
    "day": st.dates(date(2000, 1, 1), date(2000, 1, 4)),
}


@settings(deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries({name: st.one_of(st.none(), values) for name, values in VALUES.items()}), max_size=20
    ),
    st.integers(0, 20),
)
def test_equal_keys_get_equal_numbers_and_nulls_none(rows: list[dict[str, Any]], cut: int) -> None:
    schema = {"int": pl.Int64, "str": pl.String, "flag": pl.Boolean, "day": pl.Date}
    frames = [pl.DataFrame(rows[:cut], schema=schema), pl.DataFrame(rows[cut:], schema=schema)]
    for by in (["int"], ["str"], ["flag", "day"], ["int", "str", "flag", "day"]):
        codes = [int(code) for part in key_codes(frames, by) for code in part]
        keys = [tuple(row[name] for name in by) for row in rows]
        assert [code == -1 for code in codes] == [None in key for key in keys]
        pairs = {(key, code) for key, code in zip(keys, codes, strict=True) if code >= 0}
        assert len(pairs) == len({key for key, _ in pairs}) == len({code for _, code in pairs})


def test_columns_expressions_and_rows_without_any_time() -> None:
    table = Source("t", ("id",), None, (Field("id", "int"), Field("x", "float"), Field("name", "str")))
    plan = compile_plan(
        collect({"row": source("t").columns("name"), "x": col("x") * 2, "y": col("x") + 1}),
        {"t": table},
        entity="t",
        predict_at=None,
    )
    frame = pl.DataFrame({"id": [3, 1], "x": [1.0, None], "name": ["a", "b"]})
    assert compute(plan, {"t": frame}).to_dict(as_series=False) == {
        "__row": [0, 1],
        "name": ["a", "b"],
        "x": [2.0, None],
        "y": [2.0, None],
    }
    assert compute(plan, {}, rows=frame.select("x")).to_dict(as_series=False) == {
        "__row": [0, 1],
        "name": [None, None],
        "x": [2.0, None],
        "y": [2.0, None],
    }


def test_a_source_that_is_not_given_is_named() -> None:
    table = Source("t", ("id",), "at", (Field("id", "int"), Field("at", "time"), Field("k", "int")))
    plan = compile_plan(
        collect({"n": source("t").by("k").count(window="1d")}), {"t": table}, entity="t", predict_at=None
    )
    with pytest.raises(DataError, match="rows of t are needed"):
        compute(plan, {})


def test_no_rows_at_all() -> None:
    table = Source(
        "t", ("id",), "at", (Field("id", "int"), Field("at", "time"), Field("k", "str"), Field("x", "float"))
    )
    by = source("t").by("k")
    defined = {
        "n": by.count(window="1d"),
        "d": by.distinct("x", window="1d"),
        "s": by.std("x", window="1d"),
        "m": by.max("x", window="1d"),
        "l": by.last("k", window="1d"),
    }
    plan = compile_plan(collect(defined), {"t": table}, entity="t", predict_at=None)
    empty = pl.DataFrame(schema={"id": pl.Int64, "at": pl.Datetime("us", "UTC"), "k": pl.String, "x": pl.Float64})
    found = compute(plan, {"t": empty})
    assert (found.height, found.columns) == (0, ["__row", *plan.names])
    asked = pl.DataFrame({"id": [1], "at": [datetime(2013, 1, 1, tzinfo=UTC)], "k": ["a"], "x": [2.0]})
    assert compute(plan, {"t": empty}, rows=asked).row(0)[1:] == (1, 1, None, 2.0, "a")
