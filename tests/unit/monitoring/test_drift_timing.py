"""What is odd about times and numbers of rows is said in words, and what is not is not."""

from datetime import UTC, datetime, timedelta

import polars as pl

from cumulant.core.units import to_micros
from cumulant.monitoring.drift.profiles import ProfileBlock
from cumulant.monitoring.drift.timing import mixed_zones, oddities

START, DAY = datetime(2026, 1, 5, tzinfo=UTC), timedelta(days=1)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def windows(rows, *, without=()):
    """A block a day from START on, less the days `without`."""
    days = [(day, count) for day, count in enumerate(rows) if day not in without]
    return [ProfileBlock(to_micros(START + day * DAY), count, timed=True) for day, count in days]


def said(blocks):
    return " | ".join(oddities(blocks, DAY, NOW))


def test_a_steady_month_says_nothing():
    assert said(windows([100, 120, 90] * 10)) == ""
    assert said([ProfileBlock(0, 100), ProfileBlock(100, 3)]) == ""
    weekends = [day for day in range(28) if day % 7 > 4]
    assert said(windows([100] * 28, without=weekends)) == ""


def test_gaps_and_volumes_are_told_with_their_days():
    assert "2 windows of 1d have no row at all (after 2026-01-09)" in said(windows([100] * 20, without=(5, 6)))
    told = said(windows([1000] * 10 + [150] + [1000] * 5 + [9000, 1000]))
    assert "1 windows have unusually few rows, where 1,000 are usual (2026-01-15: 150)" in told
    assert "1 windows have unusually many rows, where 1,000 are usual (2026-01-21: 9,000)" in told
    # The last one may have just begun.
    assert said(windows([1000] * 10 + [150])) == ""
    assert "1 of 11 windows have fewer than 20 rows" in said(windows([1000] * 10 + [1]))


def test_clocks_that_were_wrong():
    blocks = windows([100] * 20)
    old = [ProfileBlock(0, 1, timed=True), *blocks]
    assert "1 rows lie far before all others (1970-01-01): a clock may have been wrong" in said(old)
    ahead = [*blocks, ProfileBlock(to_micros(datetime(2031, 1, 1, tzinfo=UTC)), 2, timed=True)]
    assert "2 rows have times to come, from 2031-01-01 on: a clock is wrong" in said(ahead)
    # A log that began again after half a year is no clock.
    later = [*blocks, *(ProfileBlock(to_micros(NOW - day * DAY), 100, timed=True) for day in range(9, 0, -1))]
    assert "clock" not in said(later)


def test_texts_of_two_kinds_of_time():
    plain, zoned = "2026-01-05T10:00:00", "2026-01-05T10:00:00+02:00"
    assert "1 of 3 times have no offset" in (mixed_zones(pl.Series([plain, zoned, zoned])) or "")
    assert mixed_zones(pl.Series([plain, plain, "2026-01-05"])) is None
    assert mixed_zones(pl.Series([zoned, "2026-01-05T10:00:00Z", None])) is None
