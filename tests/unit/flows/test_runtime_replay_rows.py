"""When a replay tells what became of a row: at the latest moment of what its target is made of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from cumulant.core.errors import UsageError
from cumulant.core.plan import Field, KnownAt, Source
from cumulant.core.units import to_micros
from cumulant.flows.replay.replay_rows import check_period, known_labels

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
HOUR = 3_600_000_000
FLIGHTS = Source(
    name="flights",
    key=("flight",),
    event_time="departs",
    fields=(Field("flight", "int"), Field("departs", "time"), Field("landed", "time"), Field("delay", "float")),
    known={"delay": KnownAt(column="landed", delay_us=HOUR), "late": KnownAt(delay_us=24 * HOUR)},
)


def rows() -> pl.DataFrame:
    departs = [NOON + timedelta(hours=hour) for hour in range(4)]
    landed = [departs[0] + timedelta(hours=9), departs[1] + timedelta(hours=2), None, departs[3] + timedelta(hours=1)]
    return pl.DataFrame(
        {
            "departs": departs,
            "landed": landed,
            "delay": [1.0, 2.0, 3.0, None],
            "late": [True, False, True, True],
            "__at": [to_micros(one) - 2 * HOUR for one in departs],
        }
    ).with_columns(pl.col("departs", "landed").cast(pl.Datetime("us", "UTC")))


def hours(found: pl.DataFrame) -> list[float]:
    return [(moment - to_micros(NOON)) / HOUR for moment in found["__known"].to_list()]


def test_a_label_is_told_when_its_column_is_known_in_that_order() -> None:
    found = known_labels(rows(), ("delay",), FLIGHTS)
    # The third has not landed, the fourth has no delay.
    assert found["number"].to_list() == [1, 0]
    assert found["delay"].to_list() == [2.0, 1.0]
    assert hours(found) == [4.0, 10.0]


def test_a_delay_counts_from_the_event_and_the_latest_part_decides() -> None:
    assert hours(known_labels(rows(), ("late",), FLIGHTS)) == [24.0, 25.0, 26.0, 27.0]
    assert hours(known_labels(rows(), ("delay", "late"), FLIGHTS)) == [24.0, 25.0]


def test_without_the_columns_of_the_target_nothing_is_told() -> None:
    assert known_labels(rows(), ("other",), FLIGHTS).height == 0
    assert known_labels(rows(), (), FLIGHTS).height == 0


def test_a_period_ends_after_it_begins() -> None:
    assert check_period(NOON, NOON + timedelta(days=1)) == timedelta(days=1)
    with pytest.raises(UsageError, match="ends before it begins"):
        check_period(NOON, NOON)
