"""Dates that are not ISO 8601: how they are recognised, read, and read again where rows are given for prediction."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import RequestError
from cumulant.core.ids import digest
from cumulant.core.plan import Field
from cumulant.data.files.prediction_rows import as_fields, prediction_spec
from cumulant.data.files.reading import read as read_file
from cumulant.data.proposal.proposal import infer
from cumulant.data.spec import EventTime, RuleSpec, SourceSpec
from cumulant.data.text import date_text
from cumulant.data.text.casts import column_casts
from cumulant.project.file.loading import load
from cumulant.project.new.create import create_from

DAY, MONTH, YEAR = "31/12/2024", "12/31/2024", "2024/12/31"


def read(values: list[str], form: str) -> list[datetime | None]:
    return pl.DataFrame({"x": values}).select(date_text.read(pl.col("x"), form)).to_series().to_list()


@pytest.mark.parametrize(
    ("text", "form", "value"),
    [
        ("31/12/2024", DAY, datetime(2024, 12, 31)),
        ("1.2.24", DAY, datetime(2024, 2, 1)),
        ("1-2-68", DAY, datetime(2068, 2, 1)),
        ("1/2/69", DAY, datetime(1969, 2, 1)),
        ("12/31/2024 3:15 PM", MONTH, datetime(2024, 12, 31, 15, 15)),
        ("12/31/2024 12:00am", MONTH, datetime(2024, 12, 31)),
        ("12/31/2024, 12:05:07 PM", MONTH, datetime(2024, 12, 31, 12, 5, 7)),
        ("2024/12/31T15:04:05.25", YEAR, datetime(2024, 12, 31, 15, 4, 5, 250_000)),
        ("2024.2.29", YEAR, datetime(2024, 2, 29)),
        ("2/1/2024 00:00", DAY, datetime(2024, 1, 2)),
        ("31/12/2024 23:59:59.1234567", DAY, datetime(2024, 12, 31, 23, 59, 59, 123_456)),
        ("29/2/2023", DAY, None),
        ("12/31/2024", DAY, None),
        ("31/12/2024", MONTH, None),
        ("31/12/24", YEAR, None),
        ("31/12-2024", DAY, None),
        ("31/12/2024 13:00 PM", DAY, None),
        ("31/12/2024 0:10 AM", DAY, None),
        ("31/12/2024 24:00", DAY, None),
        ("31/12/2024 23:59:60", DAY, None),
        ("31/12/202", DAY, None),
        ("2024-12-31", DAY, None),
        ("1.2.3.4", DAY, None),
        ("", DAY, None),
        ("31/12/2024 x", DAY, None),
        ("31/12/2024 15", DAY, None),
    ],
)
def test_a_date_is_read_in_its_format_or_not_at_all(text, form, value):
    assert read([text], form) == [value]
    assert date_text.read_one(text, form) == value


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31)),
    st.sampled_from([DAY, MONTH, YEAR]),
    st.sampled_from("/.-"),
    st.sampled_from(["", " %H:%M", " %H:%M:%S", " %I:%M:%S %p", "T%H:%M:%S.%f"]),
    st.booleans(),
)
def test_what_python_writes_is_read_back(moment, form, mark, clock, short):
    year = "%y" if short and form != YEAR else "%Y"
    parts = {DAY: ["%d", "%m", year], MONTH: ["%m", "%d", year], YEAR: [year, "%m", "%d"]}[form]
    text = moment.strftime(mark.join(parts) + clock)
    known = datetime.strptime(text, mark.join(parts) + clock)
    assert read([text], form) == [known]
    assert date_text.read_one(text, form) == known


@given(st.text(alphabet="0123456789/.- :APMapm,T", max_size=24), st.sampled_from([DAY, MONTH, YEAR]))
def test_one_text_is_read_as_a_column_is(text, form):
    assert [date_text.read_one(text, form)] == read([text.strip()], form)


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (["31/12/2024", "1/2/2024"], DAY),
        (["12/31/2024", "1/2/2024"], MONTH),
        (["1/2/2024", "3/4/2024"], None),
        (["31/12/2024", "12/31/2024"], None),
        (["13-07-02", "24-07-22"], None),
        (["12/31/24", "1/5/24"], MONTH),
        (["2.14.10", "2.15.11"], None),
        (["2024/1/2"], YEAR),
        (["31/12/2024", "soon"], None),
        (["31.12.24"], None),
        (["10.0.0.1"], None),
        (["2024-01-05"], None),
        (["2024-1-5"], YEAR),
    ],
)
def test_a_format_is_found_only_where_every_value_has_it(values, form):
    assert date_text.detect(pl.Series(values)) == form


ROWS = "booked,born,unclear,y\n" + "\n".join(
    f"{1 + i % 28}/{1 + i % 12}/2024 {i % 12 + 1}:30 PM,{1 + i % 12}/{1 + i % 28}/1980,{1 + i % 9}/{1 + i % 7}/2024,{i % 2}"
    for i in range(60)
)


def test_a_proposal_declares_clear_orders_and_says_which_are_not(tmp_path):
    (tmp_path / "rows.csv").write_text(ROWS)
    frame = read_file(tmp_path / "rows.csv", "rows.csv", SourceSpec(path="rows.csv"))
    proposal = infer(frame, path="rows.csv", target="y", rules=False)
    rules = proposal.spec.rules
    assert proposal.spec.time == EventTime(column="booked", zone="UTC")
    assert (rules["booked"].type, rules["booked"].date_format) == ("time", DAY)
    assert (rules["born"].type, rules["born"].date_format) == ("date", MONTH)
    assert "unclear" not in rules
    assert any("unclear stays text" in note and "31/12/2024" in note for note in proposal.notes)


def test_a_project_of_such_a_file_reads_it_and_the_rows_to_predict(tmp_path):
    (tmp_path / "rows.csv").write_text(ROWS)
    spec = load(create_from(tmp_path / "rows.csv", "y", name="p", directory=tmp_path).path).spec.data["rows"]
    fields = [Field("booked", "time", zone="Europe/Paris"), Field("born", "date")]
    given_rows = pl.DataFrame(
        {"booked": ["2/1/2024 1:00 PM", "2024-01-02T12:00:00Z"], "born": ["12/31/1980", "1980-12-31"]}
    )
    found = as_fields(given_rows, fields, rules=spec.rules)
    assert found["booked"].to_list() == [datetime(2024, 1, 2, 12, tzinfo=UTC)] * 2
    assert found["born"].to_list() == [date(1980, 12, 31)] * 2
    assert prediction_spec(spec, fields, "x.csv").rules == {}
    with pytest.raises(RequestError, match="booked"):
        as_fields(given_rows.with_columns(booked=pl.lit("1/31/2024")), fields, rules=spec.rules)


def test_a_wrong_date_goes_to_quarantine_as_any_wrong_time_does():
    spec = SourceSpec(event_time="d", rules={"d": RuleSpec(date_format=DAY)})
    frame = pl.DataFrame({"d": ["31/12/2024", "12/31/2024", None]})
    [cast] = column_casts(frame.schema, spec, "s")
    assert frame.select(cast.expr)["d"].null_count() == 2
    assert frame.select(cast.present)["d"].to_list() == [True, True, False]


def test_a_source_without_the_key_keeps_its_identity():
    plain = SourceSpec(rules={"a": RuleSpec(min=1)}).plain()
    assert "date_format" not in plain["rules"]["a"]
    assert digest(plain) != digest(SourceSpec(rules={"a": RuleSpec(min=1, date_format=DAY)}).plain())


@pytest.mark.parametrize(("text", "form"), [("31-02-24", DAY), ("24-12-31", MONTH), ("31-04-24", None)])
def test_a_date_that_does_not_exist_is_none_of_year_31(text, form):
    spec = SourceSpec(rules={"d": RuleSpec(type="date", date_format=form)})
    frame = pl.DataFrame({"d": [text, "2024-02-29"]})
    [cast] = column_casts(frame.schema, spec, "s")
    assert frame.select(cast.expr)["d"].to_list() == [None, date(2024, 2, 29)]


@pytest.mark.parametrize("text", ["31/12/2024", "31-12-2024", "31.12.2024 10:00"])
def test_a_year_is_no_offset(text):
    spec = SourceSpec(event_time="d", rules={"d": RuleSpec(date_format=DAY)})
    frame = pl.DataFrame({"d": [text]})
    [cast] = column_casts(frame.schema, spec, "s")
    assert frame.select(cast.zoneless)["d"].to_list() == [True]
