"""ISO 8601 texts: a column of one form is read as one of several, and both as Python reads each text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.data.text import iso_text
from cumulant.data.text.date_text import read_one

OFFSET = r"(Z|z|[+-](?:0\d|1[0-5]):?[0-5]\d)?"
EXTENDED = rf"(\d{{4}})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{{1,9}}))?)?)?\s*{OFFSET}"
BASIC = rf"(\d{{4}})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(?:\.(\d{{1,9}}))?\s*{OFFSET}"


def expected(text: str, zone: str | None, written=None) -> tuple[datetime | None, bool]:
    """The time in UTC, and whether the text has an offset."""
    match = re.fullmatch(EXTENDED, text, re.ASCII) or re.fullmatch(BASIC, text, re.ASCII)
    local, offset = None, None
    if match is not None:
        *parts, second, fraction, offset = match.groups()
        micros, leap = int((fraction or "").ljust(9, "0")[:6]), second == "60"
        try:
            local = datetime(*(int(part or 0) for part in parts), 59 if leap else int(second or 0), micros)  # type: ignore[call-arg]
        except ValueError:
            local = None
        else:
            local += timedelta(seconds=leap)  # a leap second is the next one
    if offset is not None:
        digits = re.sub("[:Zz]", "", offset).ljust(5, "0")
        minutes = int(digits[1:3]) * 60 + int(digits[3:5])
        shift = timedelta(minutes=-minutes if digits[0] == "-" else minutes)
        return (None if local is None else local.replace(tzinfo=UTC) - shift), True
    if local is None and written is not None:
        local = read_one(text, written)
    if local is None:
        return None, False
    moment = local.replace(tzinfo=ZoneInfo(zone or "UTC")).astimezone(UTC)
    skipped = moment.astimezone(ZoneInfo(zone or "UTC")).replace(tzinfo=None) != local
    return (None if skipped else moment), False


DAY = st.one_of(
    st.dates(datetime(1990, 1, 1).date(), datetime(2090, 1, 1).date()).map(str),
    st.sampled_from(["2024-02-30", "2024-02-29", "2023-02-29", "2024-13-01", "2024-01-00", "2024-3-10", "2024-11-03"]),
)
CLOCK = st.one_of(
    st.times().map(lambda time: time.isoformat()),
    st.times().map(lambda time: time.isoformat("minutes")),
    st.times().map(lambda time: time.isoformat("milliseconds")),
    st.sampled_from(["24:00:00", "12:60:00", "12:00:60", "12:00:61", "02:30:00", "01:30:00.123456789", "1:00:00"]),
)
ENDS = st.sampled_from(["", "", "Z", "Z", "z", " Z", "+01:00", "-0530", "+15:59", "+16:00", "+99:00", "+1", "garbage"])
TEXT = st.one_of(
    st.tuples(DAY, st.sampled_from("TT  t"), CLOCK, ENDS).map("".join),
    st.tuples(DAY, ENDS).map("".join),
    st.sampled_from(
        ["20240131T120000Z", "20240131T120060.5+0100", "20240231T000000", "31/12/2024 3:15 PM", "", "２024-01-01"]
    ),
)


@st.composite
def column(draw: st.DrawFn) -> list[str | None]:
    """Texts of one form, with others among them in some."""
    sign, end = draw(st.sampled_from("T ")), draw(st.sampled_from(["", "Z", "+02:00"]))
    unit = draw(st.sampled_from(["minutes", "seconds", "milliseconds", "microseconds", ""]))
    times = draw(st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)), max_size=6))
    texts = [(time.isoformat(sign, unit) if unit else str(time.date())) + end for time in times]
    return draw(st.permutations([*texts, *draw(st.lists(st.none() | TEXT, max_size=4))]))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([0, 500]),
    column(),
    st.sampled_from([None, "UTC", "America/New_York", "Asia/Kolkata"]),
    st.sampled_from([None, "31/12/2024", "12/31/2024"]),
)
def test_times_are_those_that_python_reads(many, texts, zone, written) -> None:
    text = pl.col("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iso_text, "_MANY", many)
        rows = pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)}).select(
            moment=iso_text.moments(text, zone, written), offset=iso_text.has_offset(text), day=iso_text.days(text)
        )
    wanted = [(None, None) if one is None else expected(one, zone, written) for one in texts]
    assert rows.select("moment", "offset").rows() == wanted
    days = [None if one is None else expected(re.sub(f"{OFFSET}$", "", one), None)[0] for one in texts]
    assert rows["day"].to_list() == [moment and moment.date() for moment in days]


@pytest.mark.parametrize(
    "texts",
    [
        ["2024-01-31T12:00:00Z", "2024-02-29T23:59:59Z"],
        ["2024-01-31 12:00:00.5", "2024-02-29 23:59:59.123456789"],
        ["2024-01-31T12:00+0100", None, "2024-01-31T12:00-05:30"],
        ["2024-01-31", "2024-02-30"],
    ],
)
def test_a_column_of_one_form_is_searched_for_it_once(monkeypatch, texts) -> None:
    monkeypatch.setattr(iso_text, "_any_form", None)
    texts = texts * iso_text._MANY
    found = pl.DataFrame({"text": texts}).select(iso_text.moments(pl.col("text"), None, None)).to_series().to_list()
    assert found == [text and expected(text, None)[0] for text in texts]


def test_free_text_is_ruled_out_by_a_sample(monkeypatch) -> None:
    """As each format is parsed slowly. Dates are still recognized where the first values are none."""
    parts, lengths = iso_text._parts, []
    monkeypatch.setattr(iso_text, "_parts", lambda text: lengths.append(text.len()) or parts(text))
    assert iso_text.mostly_dates(pl.Series(["to be called back"] * 9_000), 0.9) is None
    assert sum(lengths) < 9_000
    late = iso_text.mostly_dates(pl.Series(["unknown"] * 900 + ["2024-01-31"] * 8_100), 0.9)
    assert late is not None
    assert late.are_dates.sum() == 8_100
