"""The engines as time passes, on random histories with ties, nulls, late columns and awkward numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cumulant.core.plan import FeaturePlan, Field, KnownAt, PredictAt, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.functions import col, when
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.offline.offline import compute
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.testing.online import MemoryOnline
from cumulant.testing.plans import oracle

HOUR = timedelta(hours=1)
# the night on which Paris puts its clocks back
START = datetime(2013, 10, 27, 0, 0, tzinfo=UTC)
SCHEMA = {
    "id": pl.Int64,
    "card": pl.String,
    "shop": pl.Int64,
    "at": pl.Datetime("us", "UTC"),
    "amount": pl.Float64,
    "items": pl.Int64,
    "label": pl.Boolean,
    "word": pl.String,
    "done": pl.Datetime("us", "UTC"),
    "result": pl.Float64,
    "asked": pl.Datetime("us", "UTC"),
}
DTYPES = {
    "id": "int",
    "card": "str",
    "shop": "int",
    "at": "time",
    "amount": "float",
    "items": "int",
    "label": "bool",
    "word": "str",
    "done": "time",
    "result": "float",
    "asked": "time",
}

tx, other = source("tx"), source("other")
card, pair, other_card = tx.by("card"), tx.by("card", "shop"), other.by("card")
WINDOWS = ["1h", "3h", "2d"]
DEFINED: dict[str, Any] = {
    f"card_{agg}_{value}": getattr(card, agg)(value, window=WINDOWS)
    for agg in ("sum", "mean", "min", "max", "std", "distinct", "last", "count")
    for value in ("amount", "items")
}
DEFINED |= {
    "card_n": card.count(window=WINDOWS),
    "words": card.distinct("word", window=WINDOWS),
    "word": card.last("word", window=WINDOWS),
    "label_rate": card.mean("label", window=WINDOWS),
    "label_max": card.max("label", window="3h"),
    "label_last": pair.last("label", window="3h"),
    "first_at": pair.min("at", window="2d"),
    "pair_n": pair.count(window=WINDOWS),
    "result_mean": pair.mean("result", window=WINDOWS),
    "result_last": card.last("result", window=WINDOWS),
    "big": card.sum(when(col("amount") > 0).then(col("amount") * 2).otherwise(col("items")), window="3h"),
    "other_n": other_card.count("amount", window=WINDOWS),
    "other_std": other_card.std("amount", window=WINDOWS),
    "other_late": other_card.mean("result", window=WINDOWS),
    "near": other.as_of("card", "shop", within="2h").columns("amount", "word"),
    "ever": other.as_of("card").columns("label", "items"),
    "itself": tx.as_of("card", within="1h").columns("shop"),
}


def make_source(name: str, delay: timedelta) -> Source:
    return Source(
        name=name,
        key=("id",),
        event_time="at",
        fields=tuple(Field(column, dtype) for column, dtype in DTYPES.items()),
        known={"result": KnownAt(column="done"), "label": KnownAt(delay_us=delay // timedelta(microseconds=1))},
    )


def make_plan(offset: timedelta, delay: timedelta, column: str = "at") -> FeaturePlan:
    sources = {"tx": make_source("tx", delay), "other": make_source("other", delay)}
    at = PredictAt(column, offset // timedelta(microseconds=1))
    return compile_plan(collect(DEFINED), sources, entity="tx", predict_at=at)


PLANS = [make_plan(offset, HOUR) for offset in (timedelta(0), -HOUR, HOUR, 2 * HOUR)]
PLANS.append(make_plan(HOUR / 2, HOUR, "asked"))
plans = st.integers(0, len(PLANS) - 1)
moments = st.one_of(st.none(), st.integers(0, 24).map(lambda q: START + q * HOUR / 2))
awkward = st.sampled_from(
    [0.0, -0.0, 0.1, 0.2, -0.3, 1e12, -1e12, 1e-9, 5e-324, 1e300, -1e300, 1.7e308, 3.14, 1e16, 1.0]
)
amounts = st.one_of(st.none(), awkward, st.floats(-100, 100, allow_nan=False).map(lambda x: round(x, 2)))
rows_of = st.fixed_dictionaries(
    {
        "card": st.sampled_from(["a", "b", None]),
        "shop": st.sampled_from([1, 2, -3, None]),
        "at": moments,
        "amount": amounts,
        "items": st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([2**62, 2**63 - 1, -(2**63), 17 * 10**17])),
        "label": st.sampled_from([True, False, None]),
        "word": st.sampled_from(["x", "y", "", None]),
        "done": moments,
        "result": amounts,
        "asked": moments,
    }
)


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    rows = draw(st.lists(rows_of, max_size=14))
    return [{"id": i, **row} for i, row in enumerate(rows)]


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA)


def assert_same(ours: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    assert len(ours) == len(right)
    for mine, expected in zip(ours, right, strict=True):
        wrong = {name: (mine[name], value) for name, value in expected.items() if not oracle.same(mine[name], value)}
        assert not wrong, wrong


quick = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@quick
@given(histories(), histories(), st.data(), plans)
def test_what_becomes_known_later_changes_nothing_earlier(
    tx_rows: Any, other_rows: Any, data: st.DataObject, chosen: int
) -> None:
    plan = PLANS[chosen]
    cut = START + 6 * HOUR
    before = compute(plan, {"tx": frame(tx_rows), "other": frame(other_rows)})
    late = data.draw(histories())
    later = [
        {**row, "id": 500 + i, "at": cut + (row["at"] - START) + HOUR if row["at"] else None}
        for i, row in enumerate(late)
    ]
    after = compute(plan, {"tx": frame(tx_rows + later), "other": frame(other_rows + later)})
    offset = timedelta(microseconds=plan.predict_at.offset_us)
    kept = [i for i, row in enumerate(tx_rows) if (at := row[plan.predict_at.column]) is None or at + offset <= cut]
    for name in plan.names:
        assert_same([{"v": before[name][i]} for i in kept], [{"v": after[name][i]} for i in kept])


@quick
@given(histories(), histories(), st.integers(0, 12), st.integers(0, 8), plans)
def test_a_store_filled_as_of_a_moment_serves_what_was_known_then(
    tx_rows: Any, other_rows: Any, since: int, length: int, chosen: int
) -> None:
    plan = PLANS[chosen]
    start = START + since * HOUR
    as_of = start + length * HOUR
    frames = {"tx": frame(tx_rows), "other": frame(other_rows)}
    store = MemoryOnline()
    materialize(plan, frames, store, table="t", as_of=as_of, since=start)
    offset = timedelta(microseconds=plan.predict_at.offset_us)
    column = plan.predict_at.column
    asked = [row for row in tx_rows if row[column] is not None and start <= row[column] + offset <= as_of]
    served = OnlineFeatures(plan, store, "t").vectors(asked)
    right = oracle.features(plan, {"tx": tx_rows, "other": other_rows}, asked)
    assert_same([{n: served.columns[n][i] for n in plan.names} for i in range(len(asked))], right)


def test_a_plan_survives_json() -> None:
    plan = PLANS[0]
    assert msgspec.json.decode(msgspec.json.encode(plan), type=FeaturePlan) == plan


def test_a_row_to_predict_without_a_key_comes_after_the_rows_that_tie_with_it():
    fields = tuple(Field(name, DTYPES[name]) for name in ("card", "at", "amount"))
    plan = compile_plan(
        collect({"last": source("tx").by("card").last("amount", window="2d")}),
        {"tx": Source("tx", (), "at", fields, {})},
        entity="tx",
        predict_at=PredictAt("at", 0),
    )
    schema = {name: SCHEMA[name] for name in ("card", "at", "amount")}
    past, own = ([{"card": "a", "at": START, "amount": amount}] for amount in (2.0, 1.0))
    history = pl.DataFrame(past, schema=schema).lazy()
    assert compute(plan, {"tx": history}, rows=pl.DataFrame(own, schema=schema))[plan.names[0]].to_list() == [1.0]
