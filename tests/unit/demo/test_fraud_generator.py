"""Invented card payments: the same for a seed, with the stated rates, and a spike of five times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.demo.fraud.calendar import AFTER, FIRST, RETRAINING, SPIKE, StorySize
from cumulant.demo.fraud.draws import Draws
from cumulant.demo.fraud.generator import (
    LARGE,
    LARGE_AMOUNT,
    LATE_SHARE,
    MISSING_SHARE,
    STOLEN,
    TERMINAL,
    payments,
    spike_factor,
)
from cumulant.demo.fraud.messages import as_known, between, messages, requests
from cumulant.demo.fraud.project import PROJECT

SIZE = StorySize()


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return payments(SIZE.scenario)


def test_the_first_payments_are_the_same_everywhere(frame: pl.DataFrame) -> None:
    assert frame.height == 38_009
    assert frame.head(2).select("CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT").rows() == [
        (234, 220, 25.89),
        (232, 44, 10.69),
    ]


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32), customers=st.integers(20, 60))
def test_a_seed_gives_the_same_rows_and_another_one_others(seed: int, customers: int) -> None:
    size = StorySize(customers=customers, terminals=90, history_days=14, seed=seed)
    first, again = payments(size.scenario), payments(size.scenario)
    assert first.equals(again)
    assert not first.equals(payments(msgspec.structs.replace(size, seed=seed + 1).scenario))
    assert first["TX_DATETIME"].is_sorted()
    assert first["TRANSACTION_ID"].to_list() == list(range(first.height))
    assert not first.select("CUSTOMER_ID", "TX_DATETIME").is_duplicated().any()
    assert first["TX_AMOUNT"].min() >= 0.5  # type: ignore[operator]
    assert 0 <= first["TERMINAL_ID"].min() <= first["TERMINAL_ID"].max() < 90  # type: ignore[operator]


@pytest.mark.parametrize("seed", [1, 7, 8])
def test_black_friday_has_five_times_the_payments(seed: int) -> None:
    rows = payments(StorySize(seed=seed).scenario)
    assert 4.5 < spike_factor(rows, SPIKE, AFTER) < 5.5
    earlier = FIRST - timedelta(days=14)
    assert 0.8 < spike_factor(rows, earlier, earlier + timedelta(days=1)) < 1.2


def test_the_frauds_are_as_frequent_and_look_as_it_says(frame: pl.DataFrame) -> None:
    share = dict(frame.group_by("TX_FRAUD_SCENARIO").agg(pl.len() / frame.height).iter_rows())
    assert 0.002 < share[LARGE] < 0.004
    assert 0.005 < share[TERMINAL] < 0.02
    assert 0.01 < share[STOLEN] < 0.05
    assert ((frame["TX_FRAUD_SCENARIO"] > 0) == (frame["TX_FRAUD"] == 1)).all()
    assert frame.filter(pl.col("TX_FRAUD_SCENARIO") == LARGE)["TX_AMOUNT"].min() >= LARGE_AMOUNT  # type: ignore[operator]
    genuine = frame.filter(pl.col("TX_FRAUD") == 0)["TX_AMOUNT"]
    assert genuine.max() <= 220  # type: ignore[operator]
    stolen = frame.filter(pl.col("TX_FRAUD_SCENARIO") == STOLEN)
    before, since = between(stolen, FIRST - timedelta(days=70), SPIKE), between(stolen, AFTER, RETRAINING)
    assert before["TX_AMOUNT"].median() > 2 * since["TX_AMOUNT"].median()  # type: ignore[operator]
    assert since.height / 13 > 2 * before.height / 77


def test_outcomes_come_on_fridays_a_week_later_some_late_and_some_never(frame: pl.DataFrame) -> None:
    known = frame.filter(pl.col("CHARGEBACK_AT").is_not_null())
    assert abs(1 - known.height / frame.height - MISSING_SHARE) < 0.005
    assert known["CHARGEBACK_AT"].dt.weekday().unique().to_list() == [5]
    days = (known["CHARGEBACK_AT"] - known["TX_DATETIME"]).dt.total_seconds() / 86_400
    assert days.min() >= 7  # type: ignore[operator]
    assert days.max() <= 21  # type: ignore[operator]
    assert abs((days > 14).mean() - LATE_SHARE) < 0.005  # type: ignore[operator]


def test_messages_hold_no_outcome_before_it_is_delivered(frame: pl.DataFrame) -> None:
    rows = frame.head(200)
    (delivered,) = rows.filter(pl.col("TRANSACTION_ID") == 0)["CHARGEBACK_AT"]
    before, after = (messages(as_known(rows, moment))[0] for moment in (delivered - timedelta(seconds=1), delivered))
    assert msgspec.json.decode(before)["TX_FRAUD"] is None
    assert msgspec.json.decode(after)["TX_FRAUD"] == 0
    sent = requests(rows, SIZE.scenario.begin, SIZE.speed)
    assert all(msgspec.json.decode(payment.message)["CHARGEBACK_AT"] is None for payment in sent)
    assert "TX_FRAUD" not in msgspec.json.decode(sent[0].request)
    assert sent[0].due == pytest.approx((rows["TX_DATETIME"][0] - SIZE.scenario.begin).total_seconds() / SIZE.speed)


def test_draws_have_the_means_and_the_spread_of_their_distributions() -> None:
    draws = Draws(3, 0)
    assert draws.shares(3).tolist() == Draws(3, 0).shares(3).tolist() != Draws(3, 1).shares(3).tolist()
    normal, counts = draws.normal(50_000), draws.poisson(np.full(50_000, 4.0))
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert abs(counts.mean() - 4) < 0.05
    assert abs(counts.var() - 4) < 0.15
    assert set(Draws(3, 2).below(np.full(500, 3)).tolist()) == {0, 1, 2}


def test_a_scenario_without_a_spike_or_frauds_that_change() -> None:
    scenario = msgspec.structs.replace(StorySize(customers=50).scenario, spikes={}, small_thefts_from=None)
    rows = payments(scenario)
    assert 0.7 < spike_factor(rows, SPIKE, AFTER) < 1.4
    assert rows["TX_DATETIME"].min() >= datetime(2025, 7, 18, tzinfo=UTC)  # type: ignore[operator]


def test_the_example_is_the_project_of_the_story() -> None:
    example = Path(__file__).parents[3] / "examples" / "fraud" / "black-friday" / "cumulant.yaml"
    assert example.read_text(encoding="utf-8") == PROJECT
