"""Posted rows in any order of arrival, in pieces and repeated: one state, and the features of the same rows offline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiled_tables import SMALL, check_form, rows_of

from cumulant.core.plan import FeaturePlan, Field, KnownAt, PredictAt, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.offline.offline import compute
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.online.tiles import TILES, TileRule
from cumulant.features.posted.state_update import advance
from cumulant.testing.online import MemoryOnline

Row = dict[str, Any]
START = datetime(2024, 1, 1, tzinfo=UTC)
CARDS = ["a", "b", None]
SCHEMA: Any = {
    "id": pl.Int64,
    "part": pl.String,
    "card": pl.String,
    "at": pl.Datetime("us", "UTC"),
    "done": pl.Datetime("us", "UTC"),
    "amount": pl.Float64,
    "word": pl.String,
}


def plan_of(*key: str) -> FeaturePlan:
    """Windows and lookups in which the order of events at one moment shows, over rows of a key."""
    fields = [
        Field("id", "int"),
        Field("part", "str"),
        Field("card", "str"),
        Field("at", "time"),
        Field("done", "time"),
    ]
    fields += [Field("amount", "float"), Field("word", "str")]
    known = {"word": KnownAt(column="done")}
    tx = source("tx")
    card = tx.by("card")
    defined = {
        "last_amount": card.last("amount", window="6h"),
        "last_word": card.last("word", window="6h"),
        "newest": tx.as_of("card").columns("amount", "word"),
        "total": card.sum("amount", window="6h"),
        "number": card.count(window="6h"),
        "different": card.distinct("word", window="6h"),
    }
    sources = {"tx": Source("tx", key, "at", tuple(fields), known)}
    return compile_plan(collect(defined), sources, entity="tx", predict_at=PredictAt("at", 0))


PLANS = {"number": plan_of("id"), "text": plan_of("part"), "both": plan_of("part", "id")}


def made_rows(random: Random, count: int) -> list[Row]:
    """Rows of which many become known at one moment."""
    rows = []
    for number in random.sample(range(100), count):
        at = START + timedelta(hours=random.randrange(3))
        rows.append(
            {
                "id": number - 50,
                "part": f"p{number}",
                "card": random.choice(CARDS),
                "at": at,
                "done": random.choice([START + timedelta(hours=3), at, None]),
                "amount": random.choice([None, 0.1, 0.2, 1e9]),
                "word": random.choice([None, "x", "y", "z"]),
            }
        )
    return rows


def arriving(plan: FeaturePlan, rows: list[Row], random: Random) -> list[list[Row]]:
    """The rows as posts: whole or in two pieces, some of them repeated, in any order."""
    key, pieces = plan.sources["tx"].key, []
    for row in rows:
        late = set(random.sample(sorted(row), random.randrange(5))) - {*key}
        early = {name: value for name, value in row.items() if name not in late}
        pieces += [early, {name: row[name] for name in (*key, *late)}] if late else [row]
    pieces += random.choices(pieces, k=len(pieces))
    random.shuffle(pieces)
    cuts = sorted(random.choices(range(len(pieces) + 1), k=3))
    return [pieces[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(pieces)], strict=True)]


def filled(
    plan: FeaturePlan, stored: list[Row], posts: list[list[Row]], tiles: TileRule = TILES, *, again: bool = False
) -> MemoryOnline:
    """A table that is filled and posted to; `again`: and then filled from the same rows and what was posted."""
    store, frames = MemoryOnline(), {"tx": pl.DataFrame(stored, schema=SCHEMA)}
    materialize(plan, frames, store, table="t", tiles=tiles)
    writer = StateWriter(plan, store, "t", now_us=lambda: 0, tiles=tiles)
    for post in posts:
        advance([writer], "tx", post)
    if again:
        materialize(plan, frames, store, table="t", tiles=tiles)
    return store


@pytest.mark.slow
@settings(max_examples=90, deadline=None)
@given(
    st.sampled_from(sorted(PLANS)),
    st.sampled_from([TILES, SMALL, TileRule(1, 4, seed=1), TileRule(8, 3, seed=1)]),
    st.integers(1, 20),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_any_order_of_arrival_gives_one_state_and_the_features_offline(
    key: str, tiles: TileRule, count: int, seed: int, again: bool
) -> None:
    plan, random = PLANS[key], Random(seed)
    rows = made_rows(random, count)
    cut = random.randint(0, count)
    whole = filled(plan, rows, [], tiles)
    posted = filled(plan, rows[:cut], arriving(plan, rows[cut:], random), tiles, again=again)
    check_form(posted, tiles)
    assert rows_of(posted) == rows_of(whole)
    shuffled = random.sample(rows, count)
    offline = compute(plan, {"tx": pl.DataFrame(shuffled, schema=SCHEMA)}).to_dicts()
    for together_from in (1, 1000):
        served = OnlineFeatures(plan, posted, "t", together_from=together_from).vectors(shuffled)
        assert served.late == [None] * count
        found = [{name: served.columns[name][at] for name in plan.names} for at in range(count)]
        assert found == [{name: row[name] for name in plan.names} for row in offline]


@pytest.mark.parametrize("together_from", [1, 1000])
@pytest.mark.parametrize("key", sorted(PLANS))
def test_a_row_that_is_scored_has_its_later_place_among_rows_of_its_moment(key: str, together_from: int) -> None:
    """Before it is stored, a row counts in its own windows where training counts it."""
    plan = PLANS[key]
    rows = [
        {"id": n, "part": f"p{n}", "card": "a", "at": START, "done": START, "amount": float(n), "word": f"{n}"}
        for n in range(1, 9)
    ]
    offline = compute(plan, {"tx": pl.DataFrame(rows, schema=SCHEMA)}).to_dicts()
    for row, trained in zip(rows, offline, strict=True):
        others = [other for other in rows if other is not row]
        store = filled(plan, others, [])
        served = OnlineFeatures(plan, store, "t", together_from=together_from).vectors([row]).columns
        apart = compute(plan, {"tx": pl.DataFrame(others, schema=SCHEMA)}, rows=pl.DataFrame([row], schema=SCHEMA))
        for name in ("last_amount_6h", "amount", "total_6h", "number_6h"):
            assert served[name] == [trained[name]] == apart[name].to_list(), name
