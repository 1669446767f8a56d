"""Both compilers of the expression tree against the published cases, and against each other on random trees."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DefinitionError
from cumulant.core.expr import OPERATORS, Call, Column, Literal, Moment, Node, walk
from cumulant.features.definition.dtypes import resolve, result_kind
from cumulant.features.offline.polars_compiler import TYPES, evaluate, expression
from cumulant.features.online.python_compiler import compile_node
from cumulant.testing.expressions import CASES, KINDS, ROW, ExpressionCase, show

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def polars_value(node: Node, rows: list[dict[str, Any]]) -> list[Any]:
    frame = pl.DataFrame(
        {
            name: pl.Series([row[name] for row in rows], dtype=pl.Int64 if kind in {"time", "date"} else TYPES[kind])
            for name, kind in KINDS.items()
        }
    ).with_columns(pl.col("t", "u").cast(TYPES["time"]), pl.col("d").cast(pl.Int32).cast(pl.Date))
    kind = resolve(node, KINDS)[1]
    value = expression(node, KINDS)
    series = frame.select(value.cast(TYPES[kind]).alias("v"))["v"]
    plain = series.to_physical().cast(pl.Int64) if kind in {"time", "date"} else series
    found = plain.to_list()
    return found if len(found) == len(rows) else found * len(rows)


def row_value(node: Node, row: dict[str, Any]) -> Any:
    return compile_node(node, KINDS)(row, {})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_polars(case: ExpressionCase) -> None:
    assert case.accepts(polars_value(case.node, [ROW])[0])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rows(case: ExpressionCase) -> None:
    assert case.accepts(row_value(case.node, ROW))


def test_every_operator_has_a_case() -> None:
    assert {part.op for case in CASES for part in walk(case.node) if isinstance(part, Call)} == set(OPERATORS)


# random trees over random rows
numbers = st.one_of(
    st.none(), st.sampled_from([0.0, -0.0, 1.5, -2.0, 1e300, 1e-300, 7.0, 0.1]), st.integers(-9, 9).map(float)
)
values: dict[str, st.SearchStrategy[Any]] = {
    "int": st.one_of(st.none(), st.integers(-9, 9), st.sampled_from([2**62, -(2**63)])),
    "float": numbers,
    "time": st.one_of(st.none(), st.integers(1_300_000_000, 1_500_000_000).map(lambda s: s * 1_000_000 + 1)),
    "date": st.one_of(st.none(), st.integers(15_000, 17_000)),
    "str": st.one_of(st.none(), st.text("aB é7.-e ", max_size=6)),
    "bool": st.sampled_from([True, False, None]),
}
ZONES = st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Asia/Kathmandu"])
row_strategy = st.fixed_dictionaries({name: values[kind] for name, kind in KINDS.items()})


def leaf(draw: st.DrawFn, kind: str) -> Node:
    named = [name for name, k in KINDS.items() if k == kind]
    if named and draw(st.integers(0, 3)):
        return Column(draw(st.sampled_from(named)))
    if kind == "time":
        return Moment(draw(values["time"]) or 0)
    return Column("d") if kind == "date" else Literal(draw(values[kind]))


def number(draw: st.DrawFn, depth: int) -> Node:
    return tree(draw, draw(st.sampled_from(["int", "float", "bool"])), depth)


def tree(draw: st.DrawFn, kind: str, depth: int) -> Node:
    """A random tree whose kind is `kind`, or the constant null."""
    if depth == 0 or not draw(st.integers(0, 4)):
        return leaf(draw, kind)
    d = depth - 1
    pick = draw(st.sampled_from(["choice", "own", "own", "own"]))
    if pick == "choice":
        a, b = tree(draw, kind, d), tree(draw, kind, d)
        op = draw(st.sampled_from(["when", "fill_null", "coalesce"]))
        return Call(op, (tree(draw, "bool", d), a, b) if op == "when" else (a, b))
    return MAKERS[kind](draw, d)


def make_bool(draw: st.DrawFn, d: int) -> Node:
    op = draw(st.sampled_from(["and", "or", "not", "lt", "eq", "is_null", "is_in", "contains", "ge", "starts_with"]))
    if op in {"and", "or"}:
        return Call(op, (tree(draw, "bool", d), tree(draw, "bool", d)))
    if op == "not":
        return Call(op, (tree(draw, "bool", d),))
    if op in {"contains", "starts_with"}:
        return Call(op, (tree(draw, "str", d),), {"text": draw(st.text("aB.", max_size=2))})
    if op == "is_null":
        return Call(op, (tree(draw, draw(st.sampled_from(sorted(values))), d),))
    if op == "is_in":
        kind = draw(st.sampled_from(["int", "float", "str", "bool"]))
        members = [v for v in draw(st.lists(values[kind], max_size=4)) if v is not None]
        return Call(op, (tree(draw, kind, d),), {"members": members})
    kind = draw(st.sampled_from(["number", "time", "str", "date"]))
    if kind == "number":
        return Call(op, (number(draw, d), number(draw, d)))
    return Call(op, (tree(draw, kind, d), tree(draw, kind, d)))


def make_int(draw: st.DrawFn, d: int) -> Node:
    op = draw(
        st.sampled_from(
            ["add", "sub", "mul", "floordiv", "mod", "neg", "abs", "length", "hour", "weekday", "week", "cast", "max"]
        )
    )
    if op == "length":
        return Call(op, (tree(draw, "str", d),))
    if op in {"hour", "weekday", "week"}:
        return Call(op, (tree(draw, "time", d),), {"zone": draw(ZONES)})
    if op == "cast":
        return Call(op, (tree(draw, draw(st.sampled_from(["int", "float", "str", "bool"])), d),), {"to": "int"})
    count = 1 if op in {"neg", "abs"} else 2
    return Call(op, tuple(tree(draw, "int", d) for _ in range(count)))


def make_float(draw: st.DrawFn, d: int) -> Node:
    op = draw(
        st.sampled_from(
            [
                "add",
                "sub",
                "mul",
                "div",
                "floordiv",
                "mod",
                "sqrt",
                "floor",
                "ceil",
                "round",
                "clip",
                "min",
                "cast",
                "seconds_between",
            ]
        )
    )
    if op == "seconds_between":
        return Call(op, (tree(draw, "time", d), tree(draw, "time", d)))
    if op == "cast":
        return Call(op, (tree(draw, draw(st.sampled_from(["int", "float", "str", "bool"])), d),), {"to": "float"})
    if op == "div":
        return Call(op, (number(draw, d), number(draw, d)))
    options = {"round": {"digits": draw(st.integers(0, 3))}, "clip": {"min": -1.5, "max": 3}}.get(op, {})
    count = 1 if op in {"sqrt", "floor", "ceil", "round", "clip"} else 2
    return Call(op, tuple(tree(draw, "float", d) for _ in range(count)), options)


def make_str(draw: st.DrawFn, d: int) -> Node:
    op = draw(st.sampled_from(["lower", "upper", "strip", "slice", "concat", "cast"]))
    if op == "cast":
        return Call(op, (tree(draw, draw(st.sampled_from(["int", "bool", "str"])), d),), {"to": "str"})
    if op == "slice":
        options = {"start": draw(st.integers(-4, 4)), "length": draw(st.integers(0, 4))}
        return Call(op, (tree(draw, "str", d),), options)
    if op == "concat":
        return Call(op, (tree(draw, "str", d), tree(draw, "str", d)), {"separator": draw(st.sampled_from(["", "-"]))})
    return Call(op, (tree(draw, "str", d),))


def make_time(draw: st.DrawFn, d: int) -> Node:
    if draw(st.booleans()):
        return Call("shift", (tree(draw, "time", d),), {"micros": draw(st.integers(-(10**12), 10**12))})
    return Call("max", (tree(draw, "time", d), tree(draw, draw(st.sampled_from(["time", "date"])), d)))


MAKERS = {
    "bool": make_bool,
    "int": make_int,
    "float": make_float,
    "str": make_str,
    "time": make_time,
    "date": lambda draw, _d: leaf(draw, "date"),
}


@st.composite
def trees(draw: st.DrawFn) -> Node:
    return tree(draw, draw(st.sampled_from(["bool", "int", "float", "str", "time"])), 4)


def alike(a: Any, b: Any) -> bool:
    """To the last digit: the trees hold only operators that are correctly rounded."""
    return type(a) is type(b) and a == b


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(trees(), st.lists(row_strategy, min_size=1, max_size=4))
def test_both_compilers_agree_on_random_trees(node: Node, rows: list[dict[str, Any]]) -> None:
    compiled = compile_node(node, KINDS)
    for ours, theirs in zip((compiled(row, {}) for row in rows), polars_value(node, rows), strict=True):
        assert alike(ours, theirs), (show(node), ours, theirs)


def test_a_deep_tree_stays_small_when_compiled() -> None:
    node: Node = Column("x")
    for _ in range(60):
        node = Call("add", (node, Column("y")))
    expected = 2.5
    for _ in range(60):
        expected += -7.5
    assert polars_value(node, [ROW]) == [expected] == [row_value(node, ROW)]


def test_evaluate_takes_a_frame_as_it_is() -> None:
    frame = pl.DataFrame(
        {
            "a": pl.Series([1, 2, None], dtype=pl.Int8),
            "f": pl.Series([1.5, math.nan, math.inf], dtype=pl.Float32),
            "c": pl.Series(["x", "y", None], dtype=pl.Categorical),
            "at": [datetime(2013, 1, 1, 5), None, datetime(2013, 1, 2)],
        }
    )
    assert evaluate(Call("add", (Column("a"), Column("f"))), frame).to_list() == [2.5, None, None]
    assert evaluate(Call("eq", (Column("c"), Literal("x"))), frame).to_list() == [True, False, None]
    assert evaluate(Call("gt", (Column("at"), Literal("2013-01-01T12:00"))), frame).to_list() == [False, None, True]
    assert evaluate(Call("sub", (Column("at"), Literal("1h"))), frame).to_list()[0] == datetime(
        2013, 1, 1, 4, tzinfo=UTC
    )
    assert evaluate(Literal(3), frame).to_list() == [3, 3, 3]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (Call("add", (Column("s"), Literal(1))), "text and a whole number"),
        (Call("gt", (Column("s"), Literal(1))), "text and numbers differ"),
        (Call("and", (Column("i"), Column("yes"))), "compare first"),
        (Call("when", (Column("i"), Literal(1), Literal(2))), "compare first"),
        (Call("hour", (Column("t"),), {"zone": "Europe/Pariss"}), "Europe/Paris"),
        (Call("hour", (Column("d"),), {"zone": "UTC"}), "a date"),
        (Call("cast", (Column("x"),), {"to": "str"}), "round it"),
        (Call("cast", (Column("x"),), {"to": "flaot"}), "one of"),
        (Call("mean", (Column("x"),)), "no operator"),
        (Call("add", (Column("x"),)), "2 argument"),
        (Call("round", (Column("x"),), {"digit": 1}), "digits"),
        (Call("add", (Column("xx"), Literal(1))), 'no column "xx"'),
        (Call("add", (Column("t"), Literal(1))), "duration"),
        (Call("sub", (Column("t"), Literal("2 hours"))), "not a duration"),
        (Call("gt", (Column("t"), Literal("noon"))), "not a time"),
        (Call("clip", (Column("x"),), {"min": 2, "max": 1}), "above"),
        (Call("is_in", (Column("s"),), {"members": [1]}), "is_in"),
        (Call("slice", (Column("s"),), {"start": 0, "length": -1}), "negative"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(node: Node, words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        resolve(node, KINDS)
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_short_forms_of_times_are_written_out() -> None:
    at, until, day = Column("t"), Column("u"), Column("d")
    assert resolve(Call("sub", (at, until)), KINDS) == (Call("seconds_between", (at, until)), "float")
    assert resolve(Call("sub", (at, day)), KINDS)[1] == "float"
    assert resolve(Call("add", (Literal("1h30m"), at)), KINDS) == (
        Call("shift", (at,), {"micros": 5_400_000_000}),
        "time",
    )
    moment = (datetime(2013, 4, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    assert resolve(Call("lt", (at, Literal("2013-04-01"))), KINDS)[0] == Call("lt", (at, Moment(moment)))
    assert (date(2013, 3, 10) - date(1970, 1, 1)).days == ROW["d"]


def test_kinds_meet_where_they_can() -> None:
    assert result_kind("coalesce", ["int", "null", "float"], {}) == "float"
    assert result_kind("max", ["time", "date"], {}) == "time"
    assert result_kind("min", ["bool", "int"], {}) == "int"
