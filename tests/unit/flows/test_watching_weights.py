"""A column counts what the features count that read it, however indirectly."""

import pytest

from cumulant.core.expr import Call, Column, Feature
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field, Lookup, PredictAt, Source, Window
from cumulant.flows.monitoring.reference import LEAST, weights_of

FIELDS = tuple(
    Field(name, kind)
    for name, kind in (
        ("amount", "float"),
        ("kind", "str"),
        ("at", "time"),
        ("who", "str"),
        ("note", "str"),
        ("id", "int"),
    )
)
SOURCES = {name: Source(name=name, key=("id",), event_time="at", fields=FIELDS) for name in ("pay", "prices")}
PLAN = FeaturePlan(
    entity="pay",
    predict_at=PredictAt("at"),
    sources=SOURCES,
    request=FIELDS,
    features=(
        FeatureSpec("_part", "float", expr=Call("mul", (Column("amount"), Column("amount")))),
        FeatureSpec("squared", "float", expr=Feature("_part")),
        FeatureSpec("hour", "int", expr=Call("hour", (Column("at"),), {"zone": "UTC"})),
        FeatureSpec("price", "float", lookup=Lookup("prices", ("kind",), "note", None)),
        FeatureSpec("seen", "float", window=Window("pay", ("who",), "mean", Column("amount"), 1)),
    ),
)


def test_a_column_counts_what_its_features_count():
    weights, unread = weights_of(PLAN, {"squared": 3.0, "hour": 1.0, "price": 2.0, "seen": 0.0})
    mean = (3 + 1 + 2) / 6
    assert weights == pytest.approx(
        {
            "amount": 3 / mean,
            "at": 1 / mean,
            "kind": 2 / mean,
            "who": LEAST,
            "note": LEAST,
            "request.id": LEAST,
        }
    )
    assert unread == ("who", "note", "request.id")


def test_a_window_over_the_same_source_reads_key_and_value():
    weights, unread = weights_of(PLAN, {"seen": 1.0})
    assert weights["amount"] == weights["who"] == pytest.approx(3.0)
    assert set(unread) == {"kind", "at", "note", "request.id"}


@pytest.mark.parametrize("importance", [{}, {"squared": 0.0}, {"gone": 1.0}])
def test_where_the_model_tells_nothing_there_are_no_weights(importance):
    assert weights_of(PLAN, importance) == ({}, ())
