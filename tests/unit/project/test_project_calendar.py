"""Calendar parts of the event time in a first project: which ones, under what names, and the same values everywhere."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from cumulant.features import load as load_features
from cumulant.project import create_from_frame, load
from cumulant.project.calendar_parts import calendar_parts

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
    names = [one.name for one in load_features(project.features_path).features]
    assert names == ["size", *(f"at_{part}" for part in ALL)]
    assert "at (the time of the event)" in "\n".join(made.assumptions)


def test_no_part_of_a_time_that_the_target_is_made_of(tmp_path):
    rows = times(30).with_columns(size=pl.int_range(pl.len()) % 5)
    made = create_from_frame(rows, "hour(at) > 12", name="m", directory=tmp_path, time="at")
    assert [one.name for one in load_features(load(made.path).features_path).features] == ["size"]


def test_no_part_of_a_personal_time(tmp_path):
    rows = times(30).rename({"at": "birth_date"})
    rows = rows.with_columns(size=pl.int_range(pl.len()) % 5, kind=pl.int_range(pl.len()) % 7)
    project = load(create_from_frame(rows, "size > 2", name="m", directory=tmp_path, time="birth_date").path)
    assert project.spec.data["rows"].personal == ["birth_date"]
    assert [one.name for one in load_features(project.features_path).features] == ["kind"]


def test_a_time_can_be_all_that_there_is_to_learn_from(tmp_path):
    rows = times(30).with_columns(y=pl.col("at").dt.hour() > 12)
    project = load(create_from_frame(rows, "y", name="m", directory=tmp_path).path)
    assert [one.name for one in load_features(project.features_path).features] == ["at_hour", "at_weekday"]
