"""Three months of flights, then April as it happened: each flight scored two hours ahead, each landing told when known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from test_features_intent import LATE, SHARED, flight_sources

from cumulant.drivers.local.online import SqliteOnline
from cumulant.features import OnlineFeatures, compile_plan, compute, load, materialize, parse_predict_at

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


def test_april_through_the_state_is_april_as_trained(frames: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    predict_at = parse_predict_at("sched_dep - 2h")
    definitions = load(SHARED / "intent/flights/features.py")
    plan = compile_plan(definitions, flight_sources(frames), entity="flights", predict_at=predict_at)
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
    # what is known at a moment is told before what is asked at it
    happened: list[tuple[datetime, int, int, str, dict[str, Any]]] = [
        *((row["landed"], 0, i, "flights", row) for i, row in enumerate(landed.select(*key, *LATE, "landed").to_dicts())),
        *((row["time_hour"], 0, i, "weather", row) for i, row in enumerate(weather.to_dicts())),
        *((row["sched_dep"] - AHEAD, 1, i, "flights", row) for i, row in enumerate(asked.select(dict.fromkeys(key + fields)).to_dicts())),
    ]  # fmt: skip
    happened.sort(key=lambda event: event[:3])
    served: list[dict[str, Any]] = []
    told: list[tuple[str, dict[str, Any]]] = []
    for _, kind, _, source, row in happened:
        if kind == 0:
            told.append((source, row))
            continue
        for name in ("flights", "weather"):
            if rows := [row for source, row in told if source == name]:
                online.advance(name, rows)
        told.clear()
        found = online.vectors([{name: row[name] for name in fields}])
        told.append(("flights", row))
        served.append({name: values[0] for name, values in found.columns.items()})
    right = offline[asked["i"].to_list()].select(plan.names).to_dicts()
    wrong = {
        name: (mine[name], true[name])
        for mine, true in zip(served, right, strict=True)
        for name in plan.names
        if not same(mine[name], true[name])
    }
    assert not wrong, wrong
    assert sum(row["origin_late_1h"] is not None for row in served) > COUNT // 2


def same(mine: Any, true: Any) -> bool:
    return bool(mine == true)
