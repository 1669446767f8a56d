from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core import units
from cumulant.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("15min", 900),
        ("2h", 7200),
        ("30d", 2_592_000),
        ("1w", 604_800),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("0.5h", 1800),
    ],
)
def test_durations_read_as_written(text, seconds):
    assert units.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "30", "d", "1 month", "-2h", "2h ago", "1y", "1h, 2m"])
def test_what_is_no_duration_is_refused_with_examples(text):
    with pytest.raises(UsageError) as caught:
        units.duration(text)
    assert "30d" in caught.value.hint


@given(st.integers(0, 10**15).map(lambda micros: timedelta(microseconds=micros)))
def test_a_shown_duration_reads_back(span):
    shown = units.duration(units.show_duration(span))
    assert abs(shown - span) <= timedelta(microseconds=1)


def test_sizes_and_shares():
    assert units.size("64MiB") == 64 * 2**20
    assert units.size("10GB") == 10**10
    assert units.share("5%") == 0.05
    assert units.share(0.25) == 0.25
    with pytest.raises(UsageError):
        units.share("120%")
    with pytest.raises(UsageError):
        units.size("many")


@pytest.mark.parametrize(
    ("text", "number"), [("2M", 2_000_000), ("1.5M", 1_500_000), ("500k", 500_000), (" 3 G ", 3 * 10**9), (1200, 1200)]
)
def test_counts_read_as_written(text, number):
    assert units.count(text) == number


@pytest.mark.parametrize("text", ["", "2m", "1e6", "-2M", "0", 0, -5, "1.5", "1.0005k", "2 MB", "1,000"])
def test_what_is_no_count_is_refused_with_examples(text):
    with pytest.raises(UsageError) as caught:
        units.count(text)
    assert "2M" in caught.value.hint


@given(st.integers(1, 10**12))
def test_a_shown_count_reads_back_as_at_most_as_many(number):
    assert 0 <= number - units.count(units.show_count(number)) < number / 99


def test_moments_are_utc():
    assert units.moment("2013-04-01") == datetime(2013, 4, 1, tzinfo=UTC)
    assert units.moment("2013-04-01T02:00:00+02:00") == datetime(2013, 4, 1, tzinfo=UTC)
    with pytest.raises(UsageError):
        units.moment("1 April")


@given(
    st.datetimes(
        min_value=datetime(1900, 1, 1),
        max_value=datetime(2200, 1, 1),
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5))]),
    )
)
def test_micros_round_trip(when):
    assert units.from_micros(units.to_micros(when)) == when
