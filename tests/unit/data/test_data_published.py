"""The two projects of the examples on their real data."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import polars as pl

from cumulant.data.snapshot import scan

PREPARE = """
import polars as pl


def prepare(raw: pl.LazyFrame) -> pl.LazyFrame:
    minutes = (pl.col("dep_delay") + pl.col("air_time") + 20).cast(pl.Int64)
    sched_dep = pl.col("time_hour") + pl.duration(minutes="minute")
    return raw.with_columns(sched_dep=sched_dep, landed=sched_dep + pl.duration(minutes=minutes))
"""
FLIGHTS = {
    "prepare": "features.py:prepare",
    "key": ["carrier", "flight", "sched_dep"],
    "event_time": "sched_dep",
    "known_time": {"landed": ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]},
    "rules": {"origin": {"in": ["EWR", "JFK", "LGA"]}, "distance": {"min": 1}, "arr_delay": {"nulls": "5%"}},
}


def test_flights_and_their_weather(place, published):
    place.write("features.py", PREPARE)
    path = published("drift/nycflights13_flights.parquet")
    flights = place.ingest("flights", path=str(path), **FLIGHTS)
    assert (flights.rows_in, flights.rows_passed, flights.rows_quarantined) == (336_776, 336_776, 0)
    assert flights.profile["arr_delay"].nulls == 8_255 + 1_175
    assert flights.profile["tailnum"].nulls == 2_512
    assert flights.bytes < flights.csv_bytes / 4
    april = datetime(2013, 4, 1, tzinfo=UTC)
    raw = pl.read_parquet(path).with_columns(sched_dep=pl.col("time_hour") + pl.duration(minutes="minute"))
    visible = scan(flights, place.tables, as_of=april).collect()
    assert visible.height == raw.filter(pl.col("sched_dep") <= april).height
    assert visible.filter(pl.col("landed").is_null() & pl.col("arr_delay").is_not_null()).height == 0
    weather = place.ingest(
        "weather",
        path=str(published("drift/nycflights13_weather.parquet")),
        key=["origin", "time_hour"],
        event_time="time_hour",
    )
    assert (weather.rows_passed, weather.fields[-1].dtype) == (26_115, "time")
    hours = scan(weather, place.tables).select("origin", "time_hour").collect()
    lonely = scan(flights, place.tables).collect().join(hours, on=["origin", "time_hour"], how="anti")
    assert lonely.height == 1_556


def test_a_flight_that_comes_twice_is_quarantined(place, published):
    place.write("features.py", PREPARE)
    raw = pl.read_parquet(published("drift/nycflights13_flights.parquet"))[:20_000]
    place.write("in/1.parquet", raw[:10_000])
    place.write("in/2.parquet", pl.concat([raw[9_990:], raw[-5:]]))
    flights = place.ingest("flights", path="in", **FLIGHTS)
    assert (flights.rows_in, flights.rows_quarantined) == (20_015, 15)
    assert scan(flights, place.tables).collect().height == 20_000


def test_card_payments(place, published):
    found = place.ingest(
        "tx",
        path=str(published("fraud/handbook_tx_2018-04_06.parquet")),
        key="TRANSACTION_ID",
        event_time={"column": "TX_DATETIME", "zone": "UTC"},
        known_time={"7d": ["TX_FRAUD", "TX_FRAUD_SCENARIO"]},
        personal=["CUSTOMER_ID"],
        rules={"TX_AMOUNT": {"min": 0, "max": 10000}, "TX_FRAUD": {"in": [0, 1]}},
    )
    assert (found.rows_in, found.rows_passed) == (872_795, 872_795)
    assert found.profile["TX_FRAUD"].mean is not None
    assert round(found.profile["TX_FRAUD"].mean, 4) == 0.0078
    assert found.profile["CUSTOMER_ID"].quantiles == ()
    may = scan(found, place.tables, as_of=datetime(2018, 5, 1, tzinfo=UTC))
    known = may.filter(pl.col("TX_FRAUD").is_not_null()).select(pl.col("TX_DATETIME").max()).collect().item()
    assert datetime(2018, 4, 23, tzinfo=UTC) < known <= datetime(2018, 4, 24, tzinfo=UTC)


def test_specifications_and_snapshots_import_no_engine():
    code = (
        "import sys, cumulant.data, cumulant.data.spec, cumulant.data.snapshot, cumulant.data.events;"
        "heavy = {'polars', 'pandas', 'numpy', 'pyarrow', 'narwhals', 'ruamel.yaml'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
