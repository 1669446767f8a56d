"""Local times to UTC and back, also after 2099, where Polars' table of clock changes ends.

Later clock changes follow the zone's rule, which differs by kind of year: the weekday of 1 January, and leap years.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

LOCAL, UTC_MICROS = pl.Datetime("us"), pl.Datetime("us", "UTC")
#: 2100 in microseconds since 1970 UTC
_FAR = 4_102_444_800_000_000
_SECOND = 1_000_000
_KINDS = 14


def to_utc(local: pl.Expr, zone: str) -> pl.Expr:
    """A local time (without zone) as UTC microseconds. Of a repeated time the first is taken, a skipped one is null."""
    if zone == "UTC":
        return local.cast(LOCAL).dt.replace_time_zone("UTC")
    return local.cast(LOCAL).map_batches(
        lambda series: _utc(series, zone), return_dtype=UTC_MICROS, is_elementwise=True
    )


def to_local(moment: pl.Expr, zone: str) -> pl.Expr:
    """A time in UTC as what clocks in the zone show, without zone."""
    if zone == "UTC":
        return moment.cast(UTC_MICROS).dt.replace_time_zone(None)
    return moment.cast(UTC_MICROS).map_batches(
        lambda series: _local(series, zone), return_dtype=LOCAL, is_elementwise=True
    )


def _utc(series: pl.Series, zone: str) -> pl.Series:
    times = series.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
    far = (series.to_physical() >= _FAR).fill_null(value=False)
    if not far.any():
        return times
    import numpy as np  # for times after 2099 alone: commands that show stored rows do without it

    local = series.filter(far).to_physical().to_numpy()
    moments, exists = np.zeros_like(local), np.zeros(len(local), dtype=np.bool_)
    for offset in sorted({int(offset) for rule in _rules(zone) for offset in rule.offsets}, reverse=True):
        candidate = local - offset  # the largest offset gives the earliest moment
        fits = ~exists & (_offsets(candidate, zone) == offset)
        moments[fits], exists[fits] = candidate[fits], True
    later = pl.DataFrame({"moment": moments, "exists": exists}).select(pl.when("exists").then("moment"))
    return times.scatter(far.arg_true(), later.to_series().cast(UTC_MICROS))


def _local(series: pl.Series, zone: str) -> pl.Series:
    times = series.dt.convert_time_zone(zone).dt.replace_time_zone(None)
    far = (series.to_physical() >= _FAR).fill_null(value=False)
    if not far.any():
        return times
    moments = series.filter(far).to_physical().to_numpy()
    return times.scatter(far.arg_true(), pl.Series(moments + _offsets(moments, zone)).cast(LOCAL))


class _Rule(NamedTuple):
    """Of one kind of year: when the offset changes, in microseconds after its begin in UTC, and the offsets."""

    changes: Ints
    offsets: Ints


def _offsets(moments: Ints, zone: str) -> Ints:
    """What the zone's clocks are ahead of UTC at each moment, in microseconds."""
    import numpy as np

    years = moments.astype("datetime64[us]").astype("datetime64[Y]")
    days = years.astype("datetime64[D]").astype(np.int64)
    lengths = (years + 1).astype("datetime64[D]").astype(np.int64) - days
    kinds = days % 7 * 2 + (lengths == 366)
    since = moments - days * 86_400 * _SECOND
    result = np.zeros_like(moments)
    for kind, rule in enumerate(_rules(zone)):
        at = kinds == kind
        result[at] = rule.offsets[np.searchsorted(rule.changes, since[at], side="right")]
    return result


@cache
def _rules(zone: str) -> tuple[_Rule, ...]:
    """The rule of each kind of year after 2099, by weekday of its first day (as days since 1970, modulo 7) and leap."""
    years: dict[int, int] = {}
    for year in range(2101, 2501):
        begin, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
        years.setdefault((begin - datetime(1970, 1, 1, tzinfo=UTC)).days % 7 * 2 + ((end - begin).days == 366), year)
    return tuple(_rule(ZoneInfo(zone), years[kind]) for kind in range(_KINDS))


def _rule(zone: ZoneInfo, year: int) -> _Rule:
    import numpy as np

    begin = datetime(year, 1, 1, tzinfo=UTC)

    def offset(second: int) -> int:
        ahead = (begin + timedelta(seconds=second)).astimezone(zone).utcoffset()
        assert ahead is not None
        return ahead // timedelta(microseconds=1)

    changes, offsets = [], [offset(0)]
    for day in range(366):
        low, high = day * 86_400, (day + 1) * 86_400
        if offset(high) == offsets[-1]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
        changes.append(high * _SECOND)
        offsets.append(offset(high))
    return _Rule(np.array(changes, dtype=np.int64), np.array(offsets, dtype=np.int64))
