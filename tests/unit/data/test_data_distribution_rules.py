"""Rules on the distribution of a column, evaluated on each new batch: mean, quantiles, shares of values, distance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import DataError, UsageError
from cumulant.core.refs import TableRef
from cumulant.data.checks.verdict import warnings_of
from cumulant.drivers.local.tables import FileTables

START = datetime(2024, 1, 1, tzinfo=UTC)


def days(first: int, count: int, rows: int = 200, *, seed: int = 0, scale: float = 1.0, card: float = 0.5):
    """`rows` payments a day: log-normal amounts, of which days differ a little, and their kind."""
    random = np.random.default_rng([seed, first])
    frames = []
    for day in range(first, first + count):
        level = random.normal(0, 0.05)
        frames.append(
            pl.DataFrame(
                {
                    "id": range(day * 1000, day * 1000 + rows),
                    "at": [START + timedelta(days=day, seconds=second) for second in range(rows)],
                    "amount": scale * random.lognormal(level, 1, rows),
                    "kind": random.choice(["card", "cash", "other"], rows, p=[card, 0.9 - card, 0.1]),
                }
            )
        )
    return pl.concat(frames)


def source(rules, **more):
    return {"path": "in", "key": "id", "event_time": "at", "rules": rules} | more


@pytest.fixture
def history(place):
    """Thirty sound days, accepted, and what ingests a new day under other rules."""
    place.write("in/0.parquet", days(0, 30))
    first = place.ingest(**source({}))

    def evaluated(frame, rules, *, refused, **more):
        place.write("in/1.parquet", frame)
        spec = source(rules, **more) | {"previous": first}
        return (place.refused if refused else place.ingest)(**spec)

    return evaluated


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"rules": {"amount": {"quantiles": {"p50": {"max": 2}}}}}, '`quantiles` of amount: "p50" is not a share'),
        ({"rules": {"amount": {"quantiles": {"50": {"max": 2}}}}}, '"50" is not a share'),
        ({"rules": {"kind": {"shares": {"card": {"min": "lots"}}}}}, '`shares` of kind: "lots" is not a share'),
        ({"rules": {"amount": {"nulls": "some"}}}, '"some" is not a share'),
        ({"rules": {"amount": {"mean": {"min": 5, "max": 3}}}}, "`mean` of amount has a min above its max"),
        ({"rules": {"amount": {"quantiles": {"50%": {"min": 5, "max": 3}}}}}, "`quantiles` of amount has a min above"),
        ({"rules": {"kind": {"shares": {"card": {"min": "60%", "max": 0.5}}}}}, "`shares` of kind has a min above"),
        ({"batch": {"min_rows": "half"}}, '"half" is no limit on the rows of a batch'),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused_though_no_row_is_new(place, spec, text):
    place.write("in/0.parquet", days(0, 1))
    first = place.ingest(**source({}))
    with pytest.raises(UsageError, match=text):
        place.ingest(**(source({}) | spec), previous=first)


class CountingTables(FileTables):
    """The local tables, and how often one is opened."""

    scans = 0

    def scan(self, ref: TableRef | str) -> pl.LazyFrame:
        self.scans += 1
        return super().scan(ref)


def test_earlier_rows_are_read_only_where_there_are_new_ones(place):
    place.tables = CountingTables(f"file://{place.root.parent / 'tables'}")
    for day in range(5):
        place.write(f"in/{day}.parquet", days(day, 1))
    first = place.ingest(**source({}))
    counts = []
    for rules in ({}, {"amount": {"drift": 0.1}}):
        before = place.tables.scans
        place.ingest(**source(rules), previous=first)
        counts.append(place.tables.scans - before)
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("rule", "column", "broken", "text"),
    [
        ({"mean": {"min": 1.0, "max": 3.0}}, "amount", {"scale": 5.0}, "the mean of amount is above 3 ("),
        ({"mean": {"min": 1.0}}, "amount", {"scale": 0.2}, "the mean of amount is below 1 ("),
        ({"quantiles": {"50%": {"max": 2}}}, "amount", {"scale": 5.0}, "the 50% quantile of amount is above 2: "),
        ({"quantiles": {"0.9": {"min": 2}}}, "amount", {"scale": 0.1}, "the 0.9 quantile of amount is below 2: "),
        ({"shares": {"card": {"min": "40%"}}}, "kind", {"card": 0.1}, "of kind are card, fewer than the 0.4"),
        ({"shares": {"card": {"max": 0.6}}}, "kind", {"card": 0.85}, "of kind are card, more than the 0.6"),
        ({"drift": 0.1}, "amount", {"scale": 5.0}, "from the rows accepted before, more than the 0.1"),
        ({"drift": 0.1}, "kind", {"card": 0.1}, "from the rows accepted before, more than the 0.1"),
    ],
)
def test_a_batch_that_is_another_distribution_is_refused(history, rule, column, broken, text):
    name = f"{column}:{next(iter(rule))}"
    assert history(days(30, 1), {column: rule}, refused=False).batch_checks == ()
    result = history(days(30, 1, **broken), {column: rule}, refused=True)
    assert [(check.batch, check.rule, check.column) for check in result.batch_checks] == [
        ("in/1.parquet", name, column)
    ]
    assert text in result.breaches[0]
    few = history(days(30, 1, rows=3, **broken), {column: rule}, refused=False)
    assert few.batch_checks == (), "three rows say nothing of a distribution"
    warned = history(days(30, 1, **broken), {column: rule | {"severity": "warn"}}, refused=False)
    assert warnings_of(warned) == result.breaches


def test_sound_days_and_their_file_are_accepted(place):
    """Under limits close to the truth, the mean of skewed values too."""
    rules = {
        "amount": {"mean": {"min": 1.6, "max": 1.7}, "quantiles": {"50%": {"min": 0.98, "max": 1.02}}, "drift": 0.05},
        "kind": {"shares": {"card": {"min": 0.49, "max": 0.51}}, "drift": 0.05},
    }
    place.write("in/000.parquet", days(0, 60))
    first = place.ingest(**source({}))
    place.write("in/001.parquet", days(60, 120, rows=30))
    result = place.ingest(**source(rules, batch={"period": "day", "severity": "warn"}), previous=first)
    assert result.batch_checks == ()


def test_a_day_of_another_distribution_is_found_by_its_period(place):
    place.write("in/0.parquet", days(0, 30))
    first = place.ingest(**source({}))
    place.write("in/1.parquet", pl.concat([days(30, 20), days(50, 1, scale=5.0), days(51, 20)]))
    rules = {"amount": {"mean": {"max": 3.0}, "drift": 0.2}}
    result = place.refused(**source(rules, batch={"period": "day"}), previous=first)
    assert {(check.batch, check.rule) for check in result.batch_checks} == {
        ("day 2024-02-20", "amount:mean"),
        ("day 2024-02-20", "amount:drift"),
    }


def test_only_the_rows_added_to_a_file_are_compared(place):
    place.write("in/0.parquet", days(0, 60))
    first = place.ingest(**source({}))
    place.write("in/0.parquet", pl.concat([days(0, 60), days(60, 1, scale=5.0)]))
    result = place.refused(**source({"amount": {"mean": {"max": 3.0}}}), previous=first)
    assert [check.batch for check in result.batch_checks] == ["the rows added to in/0.parquet"]


def test_the_first_file_is_evaluated_by_its_own_figures(place):
    place.write("in/0.parquet", days(0, 30))
    assert place.refused(**source({"amount": {"mean": {"max": 1.2}}})).batch_checks[0].rule == "amount:mean"
    assert place.ingest(**source({"amount": {"drift": 0.0}})).batch_checks == (), "there is nothing to compare it with"


def test_a_column_that_has_become_null_is_far_from_what_it_was(history):
    gone = days(30, 1).with_columns(amount=pl.lit(None, pl.Float64))
    assert "amount is 0." in history(gone, {"amount": {"drift": 0.3}}, refused=True).breaches[0]


def test_no_figure_of_a_personal_column_is_shown(place):
    place.write("in/0.parquet", days(0, 30))
    result = place.refused(**source({"amount": {"mean": {"max": 1.2}}}, personal=["amount"]))
    assert result.breaches == ("in/0.parquet: the mean of amount is above 1.2",)


@pytest.mark.parametrize("rule", [{"mean": {"max": 1}}, {"quantiles": {"50%": {"max": 1}}}])
def test_rules_on_numbers_need_numbers(place, rule):
    place.write("in/0.parquet", days(0, 1))
    with pytest.raises(DataError, match="needs numbers"):
        place.ingest(**source({"kind": rule}))


def test_distribution_rules_name_no_other_snapshot(place):
    place.write("in/0.parquet", days(0, 2))
    first = place.ingest(**source({"amount": {"min": 0}}))
    more = {
        "kind": {"drift": 0.1},
        "amount": {"min": 0, "mean": {"max": 100}, "drift": 0.0, "quantiles": {"50%": {"max": 50}}},
    }
    assert place.ingest(**source(more)).id == first.id
