"""Event times, zones, known times and what `as_of` hides."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError
from cumulant.core.plan import KnownAt
from cumulant.data.proposal.proposal import infer
from cumulant.data.snapshot import scan, source_of


def moments(place, found, column="at"):
    return [row[0] for row in place.rows(found, column)]


def test_offsets_of_every_kind_become_utc_in_the_order_of_the_file(place):
    texts = [
        "2024-01-01T12:00:00Z",
        "2024-01-01 12:00:00+05:30",
        "2024-01-01T06:00:00.25-0500",
        "2023-06-01T00:00+00:00",
    ]
    place.write("trips.jsonl", "".join(f'{{"at": "{text}"}}\n' for text in texts))
    found = place.ingest(path="trips.jsonl", event_time="at")
    assert moments(place, found) == [
        datetime(2024, 1, 1, 12, tzinfo=UTC),
        datetime(2024, 1, 1, 6, 30, tzinfo=UTC),
        datetime(2024, 1, 1, 11, 0, 0, 250_000, tzinfo=UTC),
        datetime(2023, 6, 1, tzinfo=UTC),
    ]


def test_times_without_a_zone_are_refused_or_read_in_the_declared_one(place):
    place.write("trips.csv", "at\n2024-07-01 12:00:00\n2024-01-01\n")
    with pytest.raises(DataError, match="have no zone") as caught:
        place.ingest(event_time="at")
    assert "zone: UTC" in str(caught.value.hint)
    found = place.ingest(event_time={"column": "at", "zone": "America/New_York"})
    assert moments(place, found) == [datetime(2024, 7, 1, 16, tzinfo=UTC), datetime(2024, 1, 1, 5, tzinfo=UTC)]
    assert found.fields[0].zone == "America/New_York"


def test_single_times_without_a_zone_among_others_go_to_quarantine(place):
    place.write("trips.csv", "at\n2024-01-01T12:00:00Z\n2024-01-01T13:00:00\nyesterday\n\n")
    found = place.ingest(event_time="at", quarantine=1)
    assert moments(place, found) == [datetime(2024, 1, 1, 12, tzinfo=UTC)]
    assert place.quarantine(found).select("__rule", "at").rows()[:2] == [
        ("at:zone", "2024-01-01T13:00:00"),
        ("at:type", "yesterday"),
    ]


def test_an_hour_that_was_skipped_does_not_exist_and_one_that_came_twice_is_the_first(place):
    place.write("trips.csv", "at\n2024-03-10 02:30:00\n2024-11-03 01:30:00\n")
    found = place.ingest(event_time={"column": "at", "zone": "America/New_York"}, quarantine=1)
    assert moments(place, found) == [datetime(2024, 11, 3, 5, 30, tzinfo=UTC)]
    assert place.quarantine(found)["__rule"].to_list() == ["at:type"]


def test_naive_columns_of_frames(place):
    frame = pl.DataFrame({"at": [datetime(2024, 1, 1, 12)], "day": [date(2024, 1, 1)]})
    with pytest.raises(DataError, match="have no zone"):
        place.ingest(path="", frame=frame, event_time="at")
    found = place.ingest(path="", frame=frame, event_time={"column": "at", "zone": "Asia/Kolkata"})
    assert place.rows(found, "at", "day") == [(datetime(2024, 1, 1, 6, 30, tzinfo=UTC), date(2024, 1, 1))]
    by_day = place.ingest(path="", frame=frame, event_time={"column": "day", "zone": "UTC"})
    assert moments(place, by_day, "day") == [datetime(2024, 1, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("event", "told"),
    [({"column": "at", "zone": "Europe/Pariss"}, "no time zone"), ("when", 'no column "when"'), ("n", "n:type")],
)
def test_event_times_that_cannot_be(place, event, told):
    place.write("trips.csv", "at,n\n2024-01-01T00:00:00Z,1\n")
    if told == "n:type":
        assert told in place.refused(event_time=event).breaches[0]
        return
    with pytest.raises(DataError, match=told) as caught:
        place.ingest(event_time=event)
    assert caught.value.hint


@given(
    st.lists(
        st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2040, 1, 1)),
        min_size=1,
        max_size=15,
        unique=True,
    ),
    st.sampled_from([None, 0, -5 * 60, 330, 14 * 60]),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_iso_text_is_read_as_python_reads_it(place, times, minutes):
    zone = None if minutes is None else timezone(timedelta(minutes=minutes))
    texts = [time.replace(tzinfo=zone).isoformat() for time in times]
    frame = pl.DataFrame({"at": texts})
    found = place.ingest(path="", frame=frame, event_time={"column": "at", "zone": "UTC"})
    expected = [datetime.fromisoformat(text) for text in texts]
    assert moments(place, found) == [at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC) for at in expected]


@pytest.mark.parametrize("offset", ["", "Z", "+0100", "-05:30"])
def test_the_basic_iso_format_is_read_as_python_reads_it_and_found_as_the_event_time(place, offset):
    texts = [f"201410{day:02}T0{day % 8}300{day % 7}{offset}" for day in range(1, 31)]
    expected = [datetime.fromisoformat(text) for text in texts]
    frame = pl.DataFrame({"sold": texts, "price": range(30)})
    assert infer(frame, path="sales.csv").spec.time.column == "sold"
    found = place.ingest(path="", frame=frame, event_time={"column": "sold", "zone": "UTC"})
    assert moments(place, found, "sold") == [
        at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC) for at in expected
    ]


FLIGHTS = (
    "id,dep,landed,gate,delay,label\n"
    "1,2024-01-01T00:00:00Z,2024-01-01T02:00:00Z,A,5,0\n"
    "2,2024-01-01T03:00:00Z,,B,,1\n"
    "3,2024-01-01T04:00:00Z,2024-01-01T09:00:00Z,C,90,1\n"
    "4,2024-01-02T04:00:00Z,2024-01-02T09:00:00Z,D,9,0\n"
)


def test_as_of_hides_later_rows_and_values_known_later(place):
    place.write("trips.csv", FLIGHTS)
    found = place.ingest(key="id", event_time="dep", known_time={"landed": "delay", "12h": ["label"]})
    assert source_of(found).known == {
        "delay": KnownAt(column="landed"),
        "landed": KnownAt(column="landed"),
        "label": KnownAt(delay_us=12 * 3_600_000_000),
    }
    at = scan(found, place.tables, as_of=datetime(2024, 1, 1, 12, tzinfo=UTC)).collect()
    landed = datetime(2024, 1, 1, 2, tzinfo=UTC), datetime(2024, 1, 1, 9, tzinfo=UTC)
    assert at.select("id", "landed", "gate", "delay", "label", "__row").rows() == [
        (1, landed[0], "A", 5, 0, 0),
        (2, None, "B", None, None, 1),
        (3, landed[1], "C", 90, None, 2),
    ]
    earlier = scan(found, place.tables, as_of=datetime(2024, 1, 1, 8)).collect()
    assert earlier.select("id", "landed", "delay").rows()[-1] == (3, None, None), "not landed yet"
    assert scan(found, place.tables).collect().height == 4


def test_later_rows_change_nothing_that_was_visible_before(place):
    place.write("in/a.csv", FLIGHTS)
    spec = {"path": "in", "key": "id", "event_time": "dep", "known_time": {"landed": ["delay"]}}
    before = place.ingest(**spec)
    place.write(
        "in/b.csv",
        FLIGHTS.replace("2024", "2025")
        .replace("\n1,", "\n5,")
        .replace("\n2,", "\n6,")
        .replace("\n3,", "\n7,")
        .replace("\n4,", "\n8,"),
    )
    after = place.ingest(**spec, previous=before)
    limit = datetime(2024, 6, 1, tzinfo=UTC)
    assert scan(after, place.tables, as_of=limit).collect().equals(scan(before, place.tables, as_of=limit).collect())


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({"lnded": ["delay"]}, 'no column "lnded"'),
        ({"landed": ["dlay"]}, 'no column "dlay"'),
        ({"landed": ["delay"], "7d": ["delay"]}, "twice"),
    ],
)
def test_known_times_that_cannot_be(place, known, told):
    place.write("trips.csv", FLIGHTS)
    with pytest.raises(DataError, match=told) as caught:
        place.ingest(event_time="dep", known_time=known)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1_700_000_000, None], [datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), None]),
        ([1_700_000_000_250], [datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC)]),
        ([1_700_000_000.5], [datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)]),
        ([946_684_800, 4_102_444_800], [datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)]),
    ],
)
def test_numbers_since_1970_are_times_where_a_time_is_wanted(place, values, told):
    frame = pl.DataFrame({"at": values})
    found = place.ingest(path="", frame=frame, rules={"at": {"type": "time"}})
    assert [at for (at,) in place.rows(found, "at")] == told


@pytest.mark.parametrize("value", [0, 946_684_799, 4_102_444_801, 20_240_101, 99_999_999_999_999])
def test_numbers_that_are_no_time_go_to_quarantine(place, value):
    frame = pl.DataFrame({"at": [1_700_000_000, value]})
    found = place.ingest(path="", frame=frame, event_time="at", quarantine=1)
    assert place.quarantine(found).select("__rule", "at").rows() == [("at:type", str(value))]
