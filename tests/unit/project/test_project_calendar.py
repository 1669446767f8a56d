"""Calendar parts of the event time in a first project: which ones, under what names, and the same values everywhere."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from cumulant.data.spec import EventTime, SourceSpec
from cumulant.data.text.casts import column_casts
from cumulant.features.definition.loading import load as load_features
from cumulant.features.definition.parsing import parse
from cumulant.features.offline.polars_compiler import evaluate
from cumulant.project.file.loading import load
from cumulant.project.new.calendar_parts import calendar_parts
from cumulant.project.new.create import create_from, create_from_frame

START = datetime(2023, 1, 1)
ALL = ["hour", "weekday", "month", "day_of_year"]


def times(days: float, *, every: timedelta = timedelta(hours=7)) -> pl.DataFrame:
    count = int(timedelta(days=days) / every) + 1
    return pl.DataFrame({"at": [START + number * every for number in range(count)]})


@pytest.mark.parametrize(
    ("days", "parts"),
    [(1.5, []), (3, ALL[:1]), (13, ALL[:1]), (20, ALL[:2]), (400, ALL[:2]), (460, ALL), (900, ALL)],
)
def test_a_part_is_used_where_the_rows_cover_its_cycle(days, parts):
    found, notes = calendar_parts(times(days), "at")
    assert [one.part for one in found] == parts
    assert [one.feature for one in found] == [f"at_{part}" for part in parts]
    missing = [part for part in ("month", "day_of_year") if part not in parts and days > 31]
    assert all(part in notes[-1] for part in missing)


def test_single_wrong_dates_are_not_the_span():
    wrong = pl.DataFrame({"at": [datetime(1970, 1, 1)]})
    days = pl.concat([times(3, every=timedelta(minutes=10)), wrong])
    assert [one.part for one in calendar_parts(days, "at")[0]] == ["hour"]


def test_two_spells_of_a_year_are_no_months():
    spells = [start + timedelta(hours=number) for start in (START, datetime(2024, 7, 1)) for number in range(480)]
    found, notes = calendar_parts(pl.DataFrame({"at": spells}), "at")
    assert [one.part for one in found] == ["hour", "weekday"]
    assert "month, day_of_year" in notes[-1]


def test_local_days_in_utc_have_no_hour():
    days = times(900, every=timedelta(days=1))
    utc = pl.col("at").dt.replace_time_zone("America/New_York").dt.convert_time_zone("UTC")
    assert [one.part for one in calendar_parts(days.with_columns(utc), "at")[0]] == ALL[1:]


@pytest.mark.parametrize(("offset", "declared"), [("", True), ("+00:00", False)])
def test_the_zone_is_declared_only_for_times_without_an_offset(offset, declared, tmp_path):
    rows = times(30).with_columns(size=pl.int_range(pl.len()) % 5, y=pl.int_range(pl.len()) % 2)
    rows = rows.with_columns(pl.col("at").dt.strftime(f"%Y-%m-%d %H:%M:%S{offset}"))
    rows.write_csv(tmp_path / "t.csv")
    made = create_from(tmp_path / "t.csv", "y", name="m", directory=tmp_path)
    [note] = [one for one in made.assumptions if "in UTC are" in one]
    assert '.hour("Europe/Paris") in features.py' in note
    assert ("event_time: {column: at, zone: Europe/Paris}" in note) == declared


def test_a_declared_zone_and_the_part_in_it_give_the_local_hour():
    spec = SourceSpec(event_time=EventTime(column="at", zone="Europe/Paris"))
    rows = pl.DataFrame({"at": ["2024-07-01 10:00:00"]})
    [cast] = column_casts(rows.schema, spec, "rows")
    assert evaluate(parse('hour(at, "Europe/Paris")', columns=["at"]), rows.select(cast.expr)).to_list() == [10]


def test_dates_have_no_hour():
    found, _ = calendar_parts(times(900, every=timedelta(days=1)).with_columns(pl.col("at").cast(pl.Date)), "at")
    assert [one.part for one in found] == ALL[1:]
    assert calendar_parts(pl.DataFrame({"x": [1, 2]}), None) == ((), [])
    assert calendar_parts(pl.DataFrame({"at": [None, None]}, schema={"at": pl.Datetime("us")}), "at") == ((), [])


def test_names_are_free_and_can_be_written_in_python():
    rows = times(3).with_columns(at_hour=pl.lit(1))
    assert [one.feature for one in calendar_parts(rows, "at")[0]] == ["at_hour_utc"]
    rows = times(3).rename({"at": "Date/Time"})
    assert [one.feature for one in calendar_parts(rows, "Date/Time")[0]] == ["event_hour"]


def test_a_made_project_has_them_of_its_event_time(tmp_path):
    rows = times(900, every=timedelta(hours=5))
    rows = rows.with_columns(size=pl.Series(np.random.default_rng(0).random(rows.height)))
    rows = rows.with_columns(y=pl.col("at").dt.hour() + pl.col("size"))
    made = create_from_frame(rows, "y", name="m", directory=tmp_path)
    project = load(made.path)
    names = [one.name for one in load_features(project.policies.features).features]
    assert names == ["size", *(f"at_{part}" for part in ALL)]
    assert "at (the time of the event)" in "\n".join(made.assumptions)


def test_no_part_of_a_time_that_the_target_is_made_of(tmp_path):
    rows = times(30).with_columns(size=pl.int_range(pl.len()) % 5)
    made = create_from_frame(rows, "hour(at) > 12", name="m", directory=tmp_path, time="at")
    assert [one.name for one in load_features(load(made.path).policies.features).features] == ["size"]


def test_no_part_of_a_personal_time(tmp_path):
    rows = times(30).rename({"at": "birth_date"})
    rows = rows.with_columns(size=pl.int_range(pl.len()) % 5, kind=pl.int_range(pl.len()) % 7)
    project = load(create_from_frame(rows, "size > 2", name="m", directory=tmp_path, time="birth_date").path)
    assert project.spec.data["rows"].personal == ["birth_date"]
    assert [one.name for one in load_features(project.policies.features).features] == ["kind"]


def test_a_time_can_be_all_that_there_is_to_learn_from(tmp_path):
    rows = times(30).with_columns(y=pl.col("at").dt.hour() > 12)
    project = load(create_from_frame(rows, "y", name="m", directory=tmp_path).path)
    assert [one.name for one in load_features(project.policies.features).features] == ["at_hour", "at_weekday"]
