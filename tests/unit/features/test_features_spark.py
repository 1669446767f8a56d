"""Spark SQL of feature plans, as text; `tests/live/test_live_spark.py` runs it."""

from __future__ import annotations

import msgspec
import pytest

from cumulant.core.errors import DefinitionError
from cumulant.core.expr import OPERATORS, Call, Column, Literal
from cumulant.features.spark.compiler import compile_query
from cumulant.features.spark.expressions import expression, operators
from cumulant.features.spark.sql_text import name, text
from cumulant.testing.plans.cases import plan_case


def test_every_operator_compiles():
    assert set(operators()) == set(OPERATORS)


def test_names_and_texts_cannot_end_early():
    assert name("a`; DROP TABLE b") == "`a``; DROP TABLE b`"
    assert text("${env:HOME}") == "'\\u0024{env:HOME}'"  # Spark would put a variable of its server there
    assert text("o'clock\\' OR 1=1\n\0") == "'o\\'clock\\\\\\' OR 1=1\\u000a\\u0000'"


def test_the_text_grows_with_the_depth_of_an_expression_and_not_with_its_uses():
    def depth(levels: int) -> int:
        node = Column("x")
        for _ in range(levels):
            node = Call("mod", (Call("round", (node,), {"digits": 2}), Literal(7.5)))
        return len(expression(node, {"x": "float"})[0])

    assert depth(16) - depth(8) < 1.1 * (depth(8) - depth(0))


def in_order_of_known_times(plan):
    measured = [(spec, spec.window or spec.lookup) for spec in plan.features]
    features = tuple(spec for spec, measure in measured if measure is None or measure.order is msgspec.UNSET)
    return msgspec.structs.replace(plan, features=features)


def test_a_query_names_its_views_and_their_columns():
    def added(kind: str, seed: int) -> dict[str, tuple[str, ...]]:
        """The columns of each view that are no fields of the source."""
        plan = in_order_of_known_times(plan_case(kind, seed).plan)
        fields = {of: [field.name for field in source.fields] for of, source in plan.sources.items()}
        return {
            view.view: tuple(column for column in view.columns if column not in fields.get(view.view, fields["tx"]))
            for view in compile_query(plan).inputs
        }

    assert added("in order", 0) == {"other": (), "tx": ("__row",)}  # a whole number is its own identity
    assert added("in order", 1) == {"other": ("__identity",), "tx": ("__row", "__identity")}
    dates = ("__from", "__until")
    with pytest.raises(DefinitionError, match='word_by_event_1h: Spark SQL has no order="event_time"'):
        compile_query(plan_case("in order", 0).plan)
    assert added("corrected", 0) == {"other": dates, "tx": dates, "rows_to_predict": ("__row",)}
