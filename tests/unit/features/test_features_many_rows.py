"""Results of a request: equal one row at a time, for many rows at once and offline, whatever else the plan computes."""

from __future__ import annotations

import gc
import math
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from cumulant.core.plan import FeaturePlan, Field, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.offline.kernel.sums import PrefixSums
from cumulant.features.offline.offline import compute
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.testing.online import MemoryOnline

START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = ("x", "y", "z")
FIELDS = (Field("id", "int"), Field("card", "str"), Field("at", "time"), *(Field(name, "float") for name in COLUMNS))
TX = Source("tx", ("id",), "at", FIELDS)
card = source("tx").by("card")
LARGEST = sys.float_info.max
ONE_BY_ONE, AT_ONCE = 10**9, 1


def make_plan(aggregations: str, *columns: str, window: str | list[str] = "1d") -> FeaturePlan:
    names = [(kind, column) for kind in aggregations.split() for column in columns]
    features = {f"{kind}_{column}": getattr(card, kind)(column, window=window) for kind, column in names}
    return compile_plan(collect(features), {"tx": TX}, entity="tx", predict_at=None)


def events(cards: list[str], **columns: list[float]) -> pl.DataFrame:
    count = len(cards)
    at = [START + timedelta(seconds=number) for number in range(count)]
    values = {name: columns.get(name, [0.0] * count) for name in COLUMNS}
    times = {"at": pl.Datetime("us", "UTC")}
    return pl.DataFrame({"id": range(count), "card": cards, "at": at, **values}, schema_overrides=times)


def row(number: int, name: str, **values: float | None) -> dict[str, Any]:
    at = START + timedelta(hours=8)
    return {"id": 10**7 + number, "card": name, "at": at, **dict.fromkeys(COLUMNS), **values}


def filled(plan: FeaturePlan, frame: pl.DataFrame) -> MemoryOnline:
    store = MemoryOnline()
    materialize(plan, {"tx": frame}, store, table="t")
    return store


def served(plan: FeaturePlan, store: MemoryOnline, rows: list[dict[str, Any]], together_from: int) -> Any:
    return OnlineFeatures(plan, store, "t", together_from=together_from).vectors(rows).columns


def computed(plan: FeaturePlan, frame: pl.DataFrame, rows: list[dict[str, Any]]) -> Any:
    return compute(plan, {"tx": frame}, rows=pl.DataFrame(rows, schema=frame.schema)).to_dict(as_series=False)


@pytest.mark.parametrize("own", [1.0, None, -LARGEST])
@pytest.mark.parametrize(
    "stored",
    [
        [LARGEST] * 5,
        [-LARGEST] * 600,
        [1.7e308, 1.7e308, -1.7e308, -0.6e308],
        [LARGEST, LARGEST, -LARGEST, -LARGEST, 3e-310],
        [LARGEST, -LARGEST] * 400,
    ],
)
def test_sums_near_and_beyond_the_largest_float(stored: list[float], own: float | None) -> None:
    plan, frame, rows = make_plan("sum mean", "x"), events(["a"] * len(stored), x=stored), [row(0, "a", x=own)]
    values = [*stored, *([] if own is None else [own])]
    right = computed(plan, frame, rows)
    for together_from in (ONE_BY_ONE, AT_ONCE):
        found = served(plan, filled(plan, frame), rows, together_from)
        assert found == {name: right[name] for name in found}
        mean = math.fsum(value / 2**64 for value in values) / len(values) * 2.0**64
        assert found["mean_x_1d"] == [pytest.approx(mean, rel=1e-15, abs=1e-309)]


def test_a_sum_that_is_a_float_is_given_though_twice_its_half_was_not() -> None:
    plan, frame = make_plan("sum", "x"), events(["a"] * 4, x=[1.7e308, 1.7e308, -1.7e308, -0.6e308])
    for together_from in (ONE_BY_ONE, AT_ONCE):
        assert served(plan, filled(plan, frame), [row(0, "a")], together_from) == {"sum_x_1d": [1.1e308]}


@pytest.mark.parametrize("together_from", [ONE_BY_ONE, AT_ONCE])
def test_a_deviation_beyond_the_largest_float_is_null(together_from: int) -> None:
    plan, frame = make_plan("std", "x"), events(["a", "a", "b", "b"], x=[LARGEST, -LARGEST, 1.0, 3.0])
    found = served(plan, filled(plan, frame), [row(0, "a"), row(1, "b", x=5.0)], together_from)
    assert found == {"std_x_1d": [None, 2.0]}


@pytest.mark.parametrize("own", [0.1, 1e-9, -1e17, 3e200, None])
def test_sums_of_long_windows_are_rounded_once(own: float | None) -> None:
    random = np.random.default_rng(1)
    cards = [str(number) for number in range(40)]
    stored = {name: random.uniform(0, 100, 600).tolist() for name in cards}
    frame = events(
        [name for name in cards for _ in range(600)], x=[value for values in stored.values() for value in values]
    )
    plan = make_plan("sum", "x")
    rows = [row(number, name, x=own) for number, name in enumerate(cards)]
    right = [math.fsum([*values, *([] if own is None else [own])]) for values in stored.values()]
    store = filled(plan, frame)
    assert served(plan, store, rows, ONE_BY_ONE) == served(plan, store, rows, AT_ONCE) == {"sum_x_1d": right}
    assert computed(plan, frame, rows)["sum_x_1d"] == right


@pytest.mark.parametrize("each", [20, 120, 200])
@pytest.mark.parametrize("other", ["like x", "tiny", "of all sizes", "zero"])
def test_a_result_does_not_depend_on_how_many_columns_the_plan_has(each: int, other: str) -> None:
    random = np.random.default_rng(each)
    cards, count = [str(number) for number in range(60)], 60 * each
    x = random.uniform(0.1, 100, count)
    others = {
        "like x": random.uniform(0.1, 100, count),
        "tiny": random.uniform(1e-300, 1e-299, count),
        "of all sizes": 10 ** random.uniform(-300, 300, count),
        "zero": np.zeros(count),
    }
    y = others[other]
    frame = events(cards * each, x=x.tolist(), y=y.tolist(), z=x[::-1].tolist())
    windows = ["5h", "6h", "7h", "8h", "10h", "1d", "2d", "3d"]
    rows = [row(at, name, x=1.5, y=float(y[at]), z=2.5) for at, name in enumerate(cards)]
    kinds = "sum mean min max std"
    whole = make_plan(kinds, *COLUMNS, window=windows)
    found = served(whole, filled(whole, frame), rows, AT_ONCE)
    for column in COLUMNS:
        alone = make_plan(kinds, column, window=windows)
        right = served(alone, filled(alone, frame), rows, AT_ONCE)
        assert {name: found[name] for name in right} == right


def test_columns_of_very_different_size_are_summed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each has the digits of all, which takes several times as long."""
    limbs: list[int] = []
    prepare = PrefixSums.__init__

    def prepared(self: PrefixSums, *args: Any) -> None:
        prepare(self, *args)
        limbs.append(len(self._prefixes))

    cards = [str(number) for number in range(20)] * 20
    values = np.random.default_rng(1).uniform(0.1, 100, len(cards))
    frame = events(cards, x=values.tolist(), y=(values * 1e-300).tolist(), z=values[::-1].tolist())
    plan = make_plan("sum mean", *COLUMNS)
    rows = [row(at, name, x=1.5, y=1e-300, z=2.5) for at, name in enumerate(cards[:20])]
    store = filled(plan, frame)
    monkeypatch.setattr(PrefixSums, "__init__", prepared)
    served(plan, store, rows, AT_ONCE)
    assert len(limbs) == 2, "x and z together, y alone"
    assert max(limbs) <= 3


@pytest.mark.parametrize("size", [1, 100])
def test_kept_entities_are_not_tracked_by_the_garbage_collector(size: int) -> None:
    names = [str(number) for number in range(500)]
    plan = make_plan("sum mean std max last", "x")
    store = filled(plan, events(names * 3, x=[0.5] * 1500))
    online = OnlineFeatures(plan, store, "t", together_from=100)
    requests = [[row(0, name, x=1.0) for name in names[at : at + size]] for at in range(0, 500, size)]
    online.vectors(requests[0])
    gc.collect()
    before = len(gc.get_objects())
    for rows in requests[1:]:
        online.vectors(rows)
    for _ in range(3):  # a tuple is no longer tracked once its items are not
        gc.collect()
    assert len(gc.get_objects()) - before < 0.2 * 500


@pytest.mark.parametrize("seed", range(3))
def test_rows_without_a_key_count_in_their_own_windows_however_many_events_there_are(seed: int) -> None:
    """Keys of an entity with many events are looked up in another way than those of few."""
    random = np.random.default_rng(seed)
    sizes = {"few": int(random.integers(1, 64)), "many": int(random.integers(65, 200)), "more": 300}
    frame = events([name for name, size in sizes.items() for _ in range(size)], x=[1.0] * sum(sizes.values()))
    keyless = pl.Series(random.random(len(frame)) < 0.1) | frame["card"].is_first_distinct()
    frame = frame.with_columns(id=pl.when(keyless).then(None).otherwise("id"))
    plan = make_plan("sum count distinct", "x")
    rows = [row(at, name, x=1000.0 + at) for at, name in enumerate([*sizes] * 8)]
    rows = [{**each, "id": None} if random.random() < 0.5 else each for each in rows]
    rows += [{**rows[0], "card": name, "id": frame.filter(card=name)["id"].max()} for name in sizes]
    store, right = filled(plan, frame), computed(plan, frame, rows)
    for together_from in (ONE_BY_ONE, AT_ONCE):
        ours = served(plan, store, rows, together_from)
        assert ours == {name: right[name] for name in ours}
