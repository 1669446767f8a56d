"""Further times of a row in a first project: days to the event time, or nothing; never a value of its own each."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl
import pytest

from cumulant.features import load as load_features
from cumulant.project import create_from, load
from cumulant.project.elapsed import elapsed_days

START = datetime(2024, 1, 1, 9)
ROWS = 300


def table() -> pl.DataFrame:
    """Orders with the customer's first day and last visit before them, and their delivery after them."""
    at = [START + timedelta(hours=11 * number) for number in range(ROWS)]
    return pl.DataFrame(
        {
            "at": at,
            "signup": [one.date() - timedelta(days=number * 37 % 200) for number, one in enumerate(at)],
            "visit": [one - timedelta(minutes=number * 41 % 5000) for number, one in enumerate(at)],
            "shipped": [one + timedelta(hours=number * 7 % 90) for number, one in enumerate(at)],
            "size": [number % 5 for number in range(ROWS)],
            "y": [number * 13 % 7 > 3 for number in range(ROWS)],
        }
    )


def names_of(folder) -> list[str]:
    return [one.name for one in load_features(load(folder).features_path).features]


@pytest.mark.parametrize("missing", ["", "NA"])
def test_times_as_iso_text_are_days_to_the_event_time_where_none_is_later(missing, tmp_path):
    texts = table().with_columns(
        pl.col("at", "visit", "shipped").dt.strftime("%Y-%m-%dT%H:%M:%SZ"), pl.col("signup").cast(pl.String)
    )
    gaps = pl.int_range(pl.len()) % 10 == 0
    texts = texts.with_columns(pl.when(~gaps).then("signup").otherwise(pl.lit(missing)).alias("signup"))
    texts.write_csv(tmp_path / "orders.csv")
    made = create_from(tmp_path / "orders.csv", "y", name="m", directory=tmp_path, time="at")
    assert names_of(made.path) == ["size", "at_hour", "at_weekday", "days_since_signup", "days_since_visit"]
    assert 'col("at").dt.seconds_since(col("signup")) / 86_400' in (made.path / "features.py").read_text()
    rules = load(made.path).spec.data["rows"].rules
    assert {name: rule.type for name, rule in rules.items()} == {"signup": "date", "visit": "time", "shipped": "time"}
    assert any("days from signup to at" in note for note in made.assumptions)
    assert any("shipped (a time" in note for note in made.assumptions)


def test_which_times_are_taken():
    rows = table()
    found = elapsed_days(rows, "at", ["at", "signup", "visit", "shipped", "size"], rows["y"])
    assert [(one.feature, one.since) for one in found] == [
        ("days_since_signup", "signup"),
        ("days_since_visit", "visit"),
    ]
    assert elapsed_days(rows, None, ["signup"], rows["y"]) == ()
    once = pl.int_range(pl.len()) == 7
    late = rows.with_columns(
        pl.when(once).then(pl.col("at") + pl.duration(seconds=1)).otherwise("visit").alias("visit")
    )
    assert elapsed_days(late, "at", ["visit"], rows["y"]) == ()
    few = rows.with_columns(pl.when(pl.int_range(pl.len()) < 49).then("visit").alias("visit"))
    assert elapsed_days(few, "at", ["visit"], rows["y"]) == ()
    cancelled = rows.with_columns(pl.when("y").then("visit").alias("visit"))
    assert elapsed_days(cancelled, "at", ["visit"], rows["y"]) == ()
    copy = rows.with_columns(visit="at")
    assert elapsed_days(copy, "at", ["visit"], rows["y"]) == ()


def test_names_are_free_and_can_be_written_in_python():
    rows = table().rename({"signup": "First day"}).with_columns(days_since_visit=pl.lit(1))
    found = elapsed_days(rows, "at", ["First day", "visit"], rows["y"])
    assert [one.feature for one in found] == ["days_since_other_time", "days_since_visit_2"]


def test_text_of_which_some_is_no_time_stays_text(tmp_path):
    days = ["unknown yet", *(str(date(2023, 1, 1) + timedelta(days=number % 20)) for number in range(ROWS - 1))]
    texts = table().with_columns(signup=pl.Series(days))
    texts.write_csv(tmp_path / "orders.csv")
    made = create_from(tmp_path / "orders.csv", "y", name="m", directory=tmp_path, time="at")
    assert "signup" in names_of(made.path)
    assert "signup" not in load(made.path).spec.data["rows"].rules


def test_a_mark_that_is_not_declared_as_missing_keeps_a_column_text(tmp_path):
    days = ["-" if number % 3 else "2024-01-01" for number in range(ROWS)]
    table().with_columns(signup=pl.Series(days)).write_csv(tmp_path / "orders.csv")
    made = create_from(tmp_path / "orders.csv", "y", name="m", directory=tmp_path, time="at")
    assert "signup" in names_of(made.path)
    assert load(made.path).spec.data["rows"].missing == []
