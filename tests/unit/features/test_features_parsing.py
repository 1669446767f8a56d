"""Expressions as text."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import CumulantError, DefinitionError
from cumulant.core.expr import Call, Column, Literal
from cumulant.core.plan import Field, PredictAt, Source
from cumulant.features.definition.parsing import parse, parse_predict_at
from cumulant.features.offline.polars_compiler import evaluate

FRAME = pl.DataFrame(
    {
        "arr_delay": [20.0, 3.0, None],
        "x": [True, False, None],
        "a": ["b", "c", None],
        "n": [1, 2, 3],
        "bill to": [1, None, 3],
        "at": [datetime(2013, 1, 1, 5, tzinfo=UTC)] * 3,
    }
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("arr_delay > 15", [True, False, None]),
        ("not x", [False, True, None]),
        ('a == "b"', [True, False, None]),
        ('a in ["b", "z"]', [True, False, None]),
        ('a not in ("b",)', [False, True, None]),
        ("arr_delay is null", [False, False, True]),
        ("arr_delay is not null", [True, True, False]),
        ("arr_delay == null", [False, False, True]),
        ("arr_delay != None", [True, True, False]),
        ("1 < n <= 2", [False, True, False]),
        ("n % 2 == 1 and x or false", [True, False, None]),
        ("-n ** 2 + +n", [0.0, -2.0, -6.0]),
        ("n // 2", [0, 1, 1]),
        ("arr_delay / n if x else -1", [20.0, -1.0, -1.0]),
        ('col("bill to") * 2', [2, None, 6]),
        ("coalesce(arr_delay, 0)", [20.0, 3.0, 0.0]),
        ("abs(-n)", [1, 2, 3]),
        ("round(arr_delay / 7, 1)", [2.9, 0.4, None]),
        ("round(arr_delay / 7, digits=1)", [2.9, 0.4, None]),
        ("clip(n, 2)", [2, 2, 3]),
        ("clip(n, max=2)", [1, 2, 2]),
        ("least(n, 2)", [1, 2, 2]),
        ('contains(a, "b")', [True, False, None]),
        ('upper(a) == "B"', [True, False, None]),
        ('len(concat(a, "xy"))', [3, 3, None]),
        ('hour(at, "Europe/Paris")', [6, 6, 6]),
        ('at - "2h" < "2013-01-01T04:00:00Z"', [True, True, True]),
        ('int("12") + n', [13, 14, 15]),
        ("fill_null(x, true)", [True, False, True]),
    ],
)
def test_what_can_be_written(text: str, values: list[Any]) -> None:
    assert evaluate(parse(text), FRAME).to_list() == values


def test_names_are_checked_where_columns_are_given() -> None:
    assert parse("default payment", columns=["default payment"]) == Column("default payment")
    assert parse("null", columns=["null"]) == Column("null")
    with pytest.raises(DefinitionError, match='no column "arr_dely"') as caught:
        parse("arr_dely > 15", columns=["arr_delay"])
    assert caught.value.hint == 'did you mean "arr_delay"?'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arr_delay >", "cannot read"),
        ("a = 3", "=="),
        ("a && b", "and, or, not"),
        ("arr delay > 15", "col"),
        ("__import__('os').system('true')", "cannot be used|no function"),
        ("open('x')", "no function"),
        ("a.b", "cannot be used"),
        ("a[0]", "cannot be used"),
        ("lambda: 1", "cannot be used"),
        ("[x for x in a]", "cannot be used"),
        ("f'{a}'", "cannot be used"),
        ("a in b", r'in \["a", "b"\]'),
        ("a in [b]", "constants"),
        ("a is 3", "null only"),
        ("absolute(a)", "no function"),
        ("abs()", "1 argument"),
        ("abs(a, 1)", "too many"),
        ("round(a, digit=1)", "digits"),
        ("contains(a, n)", "constants"),
        ("hour(*a)", "cannot be used"),
        ("col(a)", 'col\\("name"\\)'),
        ("1j + 2", "cannot be used"),
        ("99999999999999999999", "64 bits"),
        ("", "cannot read"),
        ("(" * 300 + "a" + ")" * 300, "cannot read"),
        ("a" * 10_001, "10000 characters"),
    ],
)
def test_everything_else_is_refused(text: str, words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(text)
    import re

    assert re.search(words, f"{caught.value.message} {caught.value.hint}"), caught.value.as_dict()


@given(st.text(st.sampled_from("abx_ ()[]{}<>=!&|~+-*/%.,:'\"0123456789\n@;lambdifor"), max_size=30))
def test_any_text_is_parsed_or_refused_and_nothing_else(text: str) -> None:
    try:
        parse(text)
    except CumulantError:
        return
    ast.parse(text.strip(), mode="eval")


def test_aliases_and_casts() -> None:
    assert parse("float(a)") == Call("cast", (Column("a"),), {"to": "float"})
    assert parse("-3") == Literal(-3)


SOURCES = {
    "flights": Source(
        "flights", ("id",), "sched_dep", (Field("sched_dep", "time"), Field("booked at", "time"), Field("n", "int"))
    ),
    "weather": Source("weather", ("id",), "hour", (Field("hour", "time"),)),
}


def test_prediction_times() -> None:
    assert parse_predict_at("sched_dep - 2h", SOURCES) == PredictAt("sched_dep", -7_200_000_000)
    assert parse_predict_at(" sched_dep ", SOURCES) == PredictAt("sched_dep")
    assert parse_predict_at("booked at + 1h30m", SOURCES, entity="flights") == PredictAt("booked at", 5_400_000_000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sched_deb - 2h", "sched_dep"),
        ("sched_dep - 2 months", "duration"),
        ("n", "times are: sched_dep"),
        ("", "cannot read"),
        ("hour", "sched_dep"),
        ("2h", "no column"),
    ],
)
def test_prediction_times_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_predict_at(text, SOURCES, entity="flights")
    assert words in f"{caught.value.message} {caught.value.hint}"
