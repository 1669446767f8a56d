"""Further times of a row in a first project: days to the event time, or nothing; never a value of its own each."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl
import pytest

from cumulant.features.definition.loading import load as load_features
from cumulant.project.file.loading import load
from cumulant.project.new.create import create_from
from cumulant.project.new.elapsed_days import elapsed_days

START = datetime(2024, 1, 1, 9)
ROWS = 300


def table() -> pl.DataFrame:
    """Orders with the customer's first day and last visit before them, and their delivery after them."""
    at = [START + timedelta(hours=11 * number) for number in range(ROWS)]
    return pl.DataFrame(
        {
            "at": at,
            "signup": [one.date() - timedelta(days=1 + number * 37 % 200) for number, one in enumerate(at)],
            "visit": [one - timedelta(minutes=number * 41 % 5000) for number, one in enumerate(at)],
            "shipped": [one + timedelta(hours=number * 7 % 90) for number, one in enumerate(at)],
            "size": [number % 5 for number in range(ROWS)],
            "y": [number * 13 % 7 > 3 for number in range(ROWS)],
        }
    )


def names_of(folder) -> list[str]:
    return [one.name for one in load_features(load(folder).policies.features).features]


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
    types = {name: rule.type for name, rule in rules.items() if name != "y"}
    assert types == {"signup": "date", "visit": "time", "shipped": "time"}
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
    days = [str(date(2023, 1, 1) + timedelta(days=number % 20)) for number in range(ROWS)]
    days[:10] = ["unknown yet"] * 10  # more than may go to quarantine
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


def test_a_date_of_the_same_day_may_be_later_than_the_event():
    rows = table().with_columns(
        pl.when(pl.int_range(pl.len()) == 7).then(pl.col("at").dt.date()).otherwise("signup").alias("signup")
    )
    assert elapsed_days(rows, "at", ["signup"], rows["y"]) == ()
    as_midnight = rows.with_columns(pl.col("signup").cast(pl.Datetime("us")))
    assert elapsed_days(as_midnight, "at", ["signup"], rows["y"]) == ()
    days = rows.with_columns(pl.col("at").dt.date())
    assert elapsed_days(days, "at", ["signup"], rows["y"]) == ()
    before = table().with_columns(pl.col("at").dt.date())
    assert [one.since for one in elapsed_days(before, "at", ["signup"], before["y"])] == ["signup"]


@pytest.mark.parametrize(("of_true", "of_false", "taken"), [(8, 0, False), (0, 8, False), (8, 7, True), (2, 2, True)])
def test_a_time_whose_missing_values_predict_the_target_is_no_feature(of_true, of_false, taken, tmp_path):
    """In 80% of the rows of one class and 0% to 70% of the other: a refund, for example, is known after the event."""
    number = pl.int_range(pl.len()) * 7 % 10
    known = pl.when("y").then(number < of_true).otherwise(number < of_false)
    rows = table().with_columns(pl.when(known).then("visit").alias("visit"))
    assert bool(elapsed_days(rows, "at", ["visit"], rows["y"])) == taken
    rows.drop("signup", "shipped").write_parquet(tmp_path / "orders.parquet")
    made = create_from(tmp_path / "orders.parquet", "y", name="m", directory=tmp_path, time="at")
    assert any("visit (missing values predict the target)" in note for note in made.assumptions) != taken


def test_a_time_whose_missing_values_predict_a_number_is_no_feature():
    amount = pl.Series([float(number * 31 % 300) for number in range(ROWS)])
    rows = table().with_columns(pl.when(amount > 120).then("visit").alias("visit"))
    assert elapsed_days(rows, "at", ["visit"], amount) == ()
    assert elapsed_days(table(), "at", ["visit"], amount) != ()
