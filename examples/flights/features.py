"""What is known about a flight two hours before departure. Public names below are features; windows add a suffix."""

import polars as pl

from cumulant.features import col, source


def prepare(raw: pl.LazyFrame) -> pl.LazyFrame:  # row by row; a pandas function works as well
    minutes = (pl.col("dep_delay") + pl.col("air_time") + 20).cast(pl.Int64)
    sched_dep = pl.col("time_hour") + pl.duration(minutes="minute")
    return raw.with_columns(sched_dep=sched_dep, landed=sched_dep + pl.duration(minutes=minutes))


flights, weather = source("flights"), source("weather")  # paths, keys, times: cumulant.yaml

# The row itself, as the request brings it. `dep_delay` here would be refused at plan time.
row = flights.columns("carrier", "origin", "dest", "distance")
hour = col("sched_dep").dt.hour("America/New_York")
weekday = col("sched_dep").dt.weekday("America/New_York")

# The last weather known at the prediction, if not older than 3 hours; else missing.
at_origin = weather.as_of("origin", within="3h").columns("temp", "wind_speed", "precip", "visib")

# Windows hold what became known in them: flights that landed, never this one.
_late = col("arr_delay") > 15  # inside by(...), a column of the past flight
origin_late = flights.by("origin").mean(_late, window=["1h", "6h", "1d"])
carrier_late = flights.by("carrier").mean(_late, window=["1d", "7d", "30d"])
route_late = flights.by("origin", "dest").mean(_late, window=["7d", "30d"])
route_n = flights.by("origin", "dest").count("arr_delay", window="30d")
plane_delay = flights.by("tailnum").last("arr_delay", window="1d")
