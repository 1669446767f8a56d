"""Versions of stored plans: plans without versions are read and keep their hashes, newer ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from cumulant.core import plan as plan_module
from cumulant.core.errors import IntegrityError
from cumulant.core.expr import OPERATORS
from cumulant.core.ids import digest
from cumulant.core.plan import (
    LATER,
    OPERATOR_SET,
    PLAN_FORMAT,
    Aggregation,
    Corrections,
    FeaturePlan,
    Field,
    KnownAt,
    PredictAt,
    Source,
    read_plan,
)
from cumulant.features.definition.definitions import source
from cumulant.features.definition.functions import col, when
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.offline.groups import fingerprint
from cumulant.servable.folder import load_description

#: a plan as it was stored before plans had versions, its hashes then, and the names of operator set 1
STORED = json.loads(Path(__file__).with_name("plan_format_1.json").read_text(encoding="utf-8"))
DAY = 86_400_000_000
PAYMENTS = Source(
    "tx",
    ("id",),
    "at",
    (
        Field("id", "int", nullable=False),
        Field("card", "str", personal=True),
        Field("currency", "str"),
        Field("at", "time", zone="Europe/Paris"),
        Field("done", "time"),
        Field("amount", "float"),
        Field("fraud", "bool"),
    ),
    {"amount": KnownAt("done"), "fraud": KnownAt(delay_us=7 * DAY)},
    subject="card",
)
RATES = Source(
    "rate",
    ("currency", "day"),
    "day",
    (
        Field("currency", "str"),
        Field("day", "time"),
        Field("euros", "float"),
        Field("sent", "time"),
        Field("state", "str"),
    ),
    corrections=Corrections((Field("sent", "time"),), Field("state", "str"), ("gone",)),
)


def compiled() -> FeaturePlan:
    """The definitions of the stored plan, compiled now."""
    tx, rate = source("tx"), source("rate")
    card = tx.by("card")
    defined: dict[str, Any] = {
        "currency": tx.columns("currency"),
        "night": (col("at").dt.hour("Europe/Paris") < 6).described("at night", owner="risk", tags=["time"]),
        "n": card.count(window=["1d", "30d"]),
        "spent": card.sum("amount", window="30d"),
        "bad": card.mean(col("fraud") == True, window="90d"),  # noqa: E712 - an expression
        "last": card.last("amount", window="1h"),
        "euros": rate.as_of("currency", within="2d").columns("euros"),
        "kind": when(col("currency") == "EUR").then("home").otherwise("abroad"),
    }
    sources = {"tx": PAYMENTS, "rate": RATES}
    return compile_plan(collect(defined), sources, entity="tx", predict_at=PredictAt("at", 60_000_000))


def test_a_plan_without_versions_is_read_and_keeps_its_hashes() -> None:
    plan = read_plan(STORED["plan"])
    assert (plan.format, plan.operators) == (1, 1)
    assert plan == compiled()
    assert digest(plan) == digest(compiled()) == STORED["digest"]
    assert fingerprint(plan) == STORED["fingerprint"]


def test_operator_set_1_has_the_names_that_it_always_had() -> None:
    """A new operator or aggregation is entered in `LATER` with a new set: servers of earlier versions lack it."""
    assert {name for name in OPERATORS if f"op:{name}" not in LATER} == {*STORED["operators"]}
    assert {name for name in get_args(Aggregation) if f"agg:{name}" not in LATER} == {*STORED["aggregations"]}


@pytest.mark.parametrize("later", ["op:hour", "agg:mean", "op:eq"])
def test_a_plan_has_the_smallest_operator_set_of_what_it_uses(monkeypatch: pytest.MonkeyPatch, later: str) -> None:
    monkeypatch.setitem(LATER, "op:sqrt", 3)
    assert digest(compiled()) == STORED["digest"]
    monkeypatch.setitem(LATER, later, 2)
    assert compiled().operators == 2
    assert digest(compiled()) != STORED["digest"]


def test_a_plan_whose_rows_a_sequence_orders_is_of_operator_set_2() -> None:
    """An earlier version would read it as if there were no sequence, and other rows would count."""
    assert isinstance(RATES.corrections, Corrections)
    sequenced = msgspec.structs.replace(RATES.corrections, sequence=Field("number", "int"))
    for corrections, operators in ((RATES.corrections, 1), (sequenced, 2)):
        rates = msgspec.structs.replace(RATES, corrections=corrections)
        defined = collect({"n": source("rate").by("currency").count(window="1d")})
        assert compile_plan(defined, {"rate": rates}, entity="rate", predict_at=None).operators == operators


def test_a_plan_whose_rows_event_times_order_is_of_operator_set_3() -> None:
    """An earlier version would take the row that became known last."""
    card, rate = source("tx").by("card"), source("rate")
    plans = [
        compile_plan(
            collect(
                {
                    "last": card.last("amount", window="1h", order=order),
                    "e": rate.as_of("currency", order=order).columns("euros"),
                }
            ),
            {"tx": PAYMENTS, "rate": RATES},
            entity="tx",
            predict_at=None,
        )
        for order in ("known_time", "event_time")
    ]
    assert [plan.operators for plan in plans] == [1, 3]
    assert [b'"order"' in msgspec.json.encode(plan) for plan in plans] == [False, True]
    assert read_plan(msgspec.to_builtins(plans[1])) == plans[1]
    assert fingerprint(plans[0]) != fingerprint(plans[1])


@pytest.mark.parametrize("newer", [{"format": PLAN_FORMAT + 1}, {"operators": OPERATOR_SET + 1}])
def test_a_newer_plan_is_refused_before_the_rest_is_read(tmp_path: Path, newer: dict[str, int]) -> None:
    plan = STORED["plan"] | newer | {"entity": ["of a form that this version does not know"]}
    with pytest.raises(IntegrityError, match=f"up to format {PLAN_FORMAT} and operator set {OPERATOR_SET}") as caught:
        read_plan(plan)
    assert "install the version of Cumulant that wrote it" in str(caught.value.hint)
    (tmp_path / "servable.json").write_text(json.dumps({"format": "cumulant.servable/1", "plan": plan}))
    with pytest.raises(IntegrityError, match=r"the feature plan of .*servable\.json has format"):
        load_description(tmp_path)


def test_what_this_version_writes_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "OPERATOR_SET", 2)
    monkeypatch.setitem(LATER, "op:hour", 2)
    stored = msgspec.to_builtins(compiled())
    assert stored["operators"] == 2
    assert read_plan(stored) == compiled()
