"""Local times and UTC against `zoneinfo`, which the server goes by: all kinds of years, before and after 2100."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from cumulant.data.text.zones import to_local, to_utc

ZONES = (
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Africa/Casablanca",
    "Asia/Gaza",
    "America/Santiago",
    "Asia/Kathmandu",
)


def moments(seed: int) -> list[datetime]:
    """Any times from 1900 to 9998, and many on the days around which clocks change, to the second."""
    chosen = random.Random(seed)
    days = [datetime(year, month, 1) for year in range(2090, 2130) for month in (3, 4, 9, 10, 11)]
    near = [day + timedelta(days=chosen.randrange(31), seconds=chosen.randrange(4 * 3600)) for day in days * 4]
    anywhere = [
        datetime(chosen.randrange(1900, 9999), 1, 1) + timedelta(seconds=chosen.randrange(365 * 86_400))
        for _ in range(400)
    ]
    edges = [datetime(2099, 12, 31, 23, 59, 59, 999_999), datetime(2100, 1, 1), datetime(9998, 12, 31, 23, 59)]
    return near + anywhere + edges


def read(local: datetime, zone: ZoneInfo) -> datetime | None:
    moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return moment if moment.astimezone(zone).replace(tzinfo=None) == local else None


@pytest.mark.parametrize("name", ZONES)
def test_clocks_change_by_the_rule_of_the_zone_for_ever(name):
    zone, values = ZoneInfo(name), moments(1)
    frame = pl.DataFrame({"local": [*values, None]}, schema={"local": pl.Datetime("us")})
    found = frame.select(
        utc=to_utc(pl.col("local"), name), local=to_local(pl.col("local").dt.replace_time_zone("UTC"), name)
    )
    right = [read(value, zone) for value in values]
    assert found["utc"].to_list() == [*right, None]
    shown = [value.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None) for value in values]
    assert found["local"].to_list() == [*shown, None]


def test_a_lazy_selection_of_no_rows_has_its_types():
    frame = pl.LazyFrame(schema={"local": pl.Datetime("ms")}).select(to_utc(pl.col("local"), "Europe/Paris"))
    assert frame.collect().schema == {"local": pl.Datetime("us", "UTC")} == frame.collect_schema()
