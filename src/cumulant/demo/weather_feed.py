"""The demo's weather: a feed that delivers a day without values, and is fixed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from cumulant import datasets

_WHOLE, _BEFORE, _DAY, _REST = "weather.parquet", "weather-1.parquet", "weather-2.parquet", "weather-3.parquet"
_TO_COME = "weather-3.to-come"
#: what the feed measures
_MEASURED = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "pressure", "visib")


def withhold(data: Path, since: datetime) -> None:
    """The weather of the folder `data` as the feed has delivered it by `since`."""
    import polars as pl

    whole = data / _WHOLE
    if whole.exists():
        rows = pl.read_parquet(whole)
        late = pl.col("time_hour") >= since
        rows.filter(~late).write_parquet(data / _BEFORE)
        rows.filter(late).write_parquet(data / _TO_COME)
        whole.unlink()


def deliver_again(data: Path, since: datetime) -> None:
    """Restore the weather as `withhold` left it, whatever the feed delivered since."""
    for path in data.glob("weather*"):
        path.unlink()
    shutil.copyfile(datasets.WEATHER, data / _WHOLE)
    withhold(data, since)


def go_null(data: Path, day: datetime) -> None:
    """The feed delivers `day`, with nothing measured."""
    import polars as pl

    within = pl.col("time_hour").is_between(day, day + timedelta(days=1), closed="left")
    rows = pl.read_parquet(data / _TO_COME).filter(within)
    rows.with_columns(pl.lit(None, pl.Float64).alias(name) for name in _MEASURED).write_parquet(data / _DAY)


def restore_values(data: Path) -> None:
    """The feed delivers what was measured, that day and after it."""
    (data / _DAY).unlink(missing_ok=True)
    (data / _TO_COME).replace(data / _REST)


@contextmanager
def as_in_spring(data: Path, since: datetime, *, fixed: bool) -> Iterator[None]:
    """Where the feed is `fixed` by now, the block sees what was delivered by `since`, as the first demo did."""
    if not fixed:
        yield
        return
    deliver_again(data, since)
    try:
        yield
    finally:
        restore_values(data)
