"""The pieces of a replay of a project: windows, what was known, kinds of history, and the words of a comparison."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError, UsageError
from cumulant.core.units import micros, to_micros
from cumulant.flows.monitoring.backtest.histories import (
    TrainingHistory,
    declared_history,
    parse_history,
    select_histories,
)
from cumulant.flows.monitoring.backtest.labelled_windows import cut_windows
from cumulant.flows.monitoring.backtest.policy_comparison import (
    HistoryResult,
    PolicyResult,
    beats,
    best_of,
    difference,
    write_conclusion,
)
from cumulant.flows.monitoring.backtest.replayed_training import Drifts, Fits, Learner
from cumulant.monitoring.policy import DriftPolicy, HistoryPolicy
from cumulant.training.dataset import training_set
from cumulant.training.policy import TrainingPolicy
from cumulant.training.search.fixed_fit import fit_once

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SPEC = TrainingPolicy(target="y")


def rows(hours, *, lag=None, x=None):
    """Rows at these hours of 2026; `lag`: hours until each label is known."""
    hours = np.asarray(hours, dtype=np.float64)
    generator = np.random.default_rng(0)
    number = generator.normal(size=len(hours)) if x is None else x
    at = pl.Series(to_micros(START) + (hours * micros(HOUR)).astype(np.int64)).cast(pl.Datetime("us", "UTC"))
    known = None if lag is None else at + pl.Series((np.asarray(lag) * micros(HOUR)).astype(np.int64)).cast(pl.Duration)
    y = (number > 0) ^ (np.arange(len(hours)) % 7 == 0)
    return training_set(pl.DataFrame({"x": number}), pl.Series("y", y), spec=SPEC, at=at, known=known)


def told(held, **asked):
    return cut_windows(held, **{"every": DAY, "since": None, "until": None, "source": "visits"} | asked)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 1600), min_size=60, max_size=120), st.sampled_from([5, 24, 36]))
def test_every_row_lies_in_the_window_of_its_moment(quarters, width):
    hours = [quarter / 4 for quarter in quarters]
    held = told(rows(hours), every=width * HOUR)
    first = min(hours) // 24 * 24
    by_hand = [[] for _ in held.history.inputs]
    for place, hour in enumerate(hours):
        number = int((hour - first) // width)
        if number < len(by_hand):
            by_hand[number].append(place)
        else:
            assert number == len(by_hand)  # of a window of which less than half is there
    assert [sorted(part.places.tolist()) for part in held.history.inputs] == by_hand
    assert [part.number for part in held.history.inputs] == list(range(len(by_hand)))
    for part, times in zip(held.history.inputs, held.history.times, strict=True):
        assert (np.diff(times.astype(np.int64)) >= 0).all()
        np.testing.assert_array_equal(held.rows.target[part.places], held.history.truths[part.number])


@pytest.mark.parametrize(
    ("lag", "every", "delay"),
    [
        (None, DAY, 0),
        (0, DAY, 0),
        (2, DAY, 0),
        (3, DAY, 1),
        (24, DAY, 1),
        (7 * 24, DAY, 7),
        (7 * 24, 7 * DAY, 1),
        (7 * 24, 2 * DAY, 4),
        (10, 7 * DAY, 0),
    ],
)
def test_labels_are_waited_for(lag, every, delay):
    hours = np.arange(0, 24 * 60, 6)
    assert told(rows(hours, lag=None if lag is None else np.full(len(hours), lag)), every=every).delay == delay


def test_a_few_labels_that_come_ever_so_late_make_nobody_wait():
    lag = np.full(400, 2.0)
    lag[::150] = 24 * 30
    held = told(rows(np.arange(0, 2400, 6), lag=lag))
    assert (held.delay, len(held.rows)) == (0, 400)


def test_windows_are_weeks_or_days_of_a_short_history_and_can_be_bounded():
    assert told(rows(np.arange(0, 24 * 200, 12)), every=None).every == 7 * DAY
    assert told(rows(np.arange(0, 24 * 100, 12)), every=None).every == DAY
    some = told(rows(np.arange(0, 24 * 60, 2)), since=START + 10 * DAY, until=START + 30 * DAY)
    assert (some.start, len(some.history.inputs), len(some.rows)) == (START + 10 * DAY, 20, 20 * 12)
    with pytest.raises(UsageError, match=r"5,\d+ windows of 1m are too many"):
        told(rows(np.arange(0, 90, 1)), every=timedelta(minutes=1))
    with pytest.raises(DataError, match="no row with a label lies there"):
        told(rows(np.arange(0, 240, 2)), since=START + 90 * DAY)
    timeless = training_set(pl.DataFrame({"x": np.arange(50.0)}), pl.Series("y", np.arange(50) % 3 == 0), spec=SPEC)
    with pytest.raises(UsageError, match="visits has no event time"):
        told(timeless)


def fits(held):
    return Fits(cut=held, spec=SPEC, learner=Learner(trainer="linear", params={}), root=Path())


def test_a_fit_learns_from_no_label_that_was_not_known_then():
    """Labels of some rows far out come after a month: a fit that used them early would be another."""
    hours = np.arange(0, 24 * 40, 0.5)
    late = np.arange(len(hours)) % 200 == 0
    x = np.where(late, 5.0, np.random.default_rng(1).normal(size=len(hours)))
    held = told(rows(hours, lag=np.where(late, 24 * 30, 1), x=x))
    assert held.delay == 0
    asked = held.history.inputs

    def answers(first, last):
        return fits(held).plain(asked[first:last], held.history.truths[first:last])(asked[39])

    in_time = held.rows.take(np.concatenate([part.places for part in asked[:20]]))
    model = fit_once(in_time.take(in_time.features["x"].to_numpy() < 5), SPEC, "linear", {})
    np.testing.assert_array_equal(answers(0, 20), model.predict_frame(held.rows.features[asked[39].places]))
    # After 38 days the labels of the first eight are known.
    later = held.rows.take(np.concatenate([part.places for part in asked[:38]]))
    known = (later.features["x"].to_numpy() < 5) | (later.at < to_micros(START + 8.1 * DAY))
    model = fit_once(later.take(known), SPEC, "linear", {})
    np.testing.assert_array_equal(answers(0, 38), model.predict_frame(held.rows.features[asked[39].places]))


def test_equal_windows_are_fitted_once_and_weights_move_the_model():
    held = told(rows(np.arange(0, 24 * 20, 0.5)))
    learn, asked, truths = fits(held), held.history.inputs, held.history.truths
    assert learn.plain(asked[:5], truths[:5]) is learn.plain(asked[:5], truths[:5])
    assert learn.plain(asked[:5], truths[:5]) is not learn.plain(asked[:6], truths[:6])
    alike = learn.weighted(asked[:5], truths[:5], [np.full(len(one), 0.3) for one in truths[:5]])
    np.testing.assert_allclose(alike(asked[7]), learn.plain(asked[:5], truths[:5])(asked[7]), atol=1e-4)
    sides = [np.where(one == 1, 20.0, 1.0) for one in truths[:5]]
    assert learn.weighted(asked[:5], truths[:5], sides)(asked[7]).mean() > alike(asked[7]).mean() + 0.1
    gap = told(rows(np.arange(24 * 5, 24 * 30)), since=START)
    with pytest.raises(DataError, match="windows 1 to 1 have no row to learn from"):
        fits(gap).plain(gap.history.inputs[:1], gap.history.truths[:1])


def test_drift_is_asked_of_the_features():
    hours = np.arange(0, 24 * 30, 0.1)
    x = np.random.default_rng(2).normal(size=len(hours)) + 2.0 * (hours > 24 * 20)
    held = told(rows(hours, x=x))
    asked = held.history.inputs
    drifts = Drifts(rows=held.rows, policy=DriftPolicy(), every=DAY)
    assert [drifts(asked[:10], one) for one in asked[10:]] == [False] * 10 + [True] * 10
    assert not any(
        Drifts(rows=held.rows, policy=DriftPolicy(ignore=("x",)), every=DAY)(asked[:10], one) for one in asked[25:]
    )


def test_kinds_of_history_are_read_and_written():
    for text, kind, setting in [
        ("growing", TrainingHistory(), "{}"),
        ("90d", TrainingHistory(window=90 * DAY), "{window: 90d}"),
        ("half-life:30d", TrainingHistory(half_life=30 * DAY), "{half_life: 30d}"),
        ("90d+half-life:30d", TrainingHistory(90 * DAY, 30 * DAY), "{window: 90d, half_life: 30d}"),
    ]:
        assert parse_history(text) == kind
        assert (kind.name, kind.setting) == (text, setting)
    assert declared_history(HistoryPolicy(window=90 * DAY, half_life=30 * DAY)) == parse_history("90d+half-life:30d")
    assert (
        parse_history("90d").windows(7 * DAY),
        parse_history("1d").windows(7 * DAY),
        parse_history("growing").windows(DAY),
    ) == (13, 1, None)
    for text in ("groing", "", "half-life:", "0d", "half-life:0d"):
        with pytest.raises(UsageError, match=r"is no kind of history|holds no rows"):
            parse_history(text)
    names = [kind.name for kind in select_histories("all", TrainingHistory(), first=30 * DAY, whole=100 * DAY)]
    assert names == ["growing", "30d", "60d", "half-life:30d", "half-life:60d"]
    own = TrainingHistory(window=7 * DAY)
    assert select_histories("growing,7d", own, first=DAY, whole=DAY) == (own, TrainingHistory())
    assert select_histories(None, own, first=DAY, whole=DAY) == ()


def test_a_difference_is_that_of_weighted_rows_with_an_interval_that_holds():
    """Over many draws the interval holds the true difference in 95 of 100, give or take four standard errors."""
    generator = np.random.default_rng(5)
    found = difference([0.2, None, 0.4], [0.1, 0.5, 0.2], [30, 0, 10])
    assert (round(found.value, 12), found.low, found.high) == (0.125, None, None)
    held, runs = 0, 400
    for _ in range(runs):
        count = generator.integers(50, 150, 30)
        one = difference(*generator.normal([[0.3], [0.2]], 0.02, (2, 30)).tolist(), count.tolist())  # type: ignore[call-arg]
        held += one.low <= 0.1 <= one.high
    assert abs(held / runs - 0.95) < 4 * np.sqrt(0.95 * 0.05 / runs)


def replayed(rule, loss, trainings, *, better=False, high=None):
    apart = None if high is None else difference([loss + high] * 3, [loss] * 3, [1, 1, 1])
    return PolicyResult(
        rule=rule,
        loss=loss,
        difference=apart,
        trainings=(START,) * trainings,
        alarms=0,
        waits=0,
        looks=3,
        losses=(),
        better=better,
    )


def test_better_is_no_more_of_both_and_less_of_one():
    one = replayed("a", 0.2, 3)
    assert [
        beats(replayed("b", *other), one) for other in [(0.1, 3), (0.2, 2), (0.1, 2), (0.2, 3), (0.1, 4), (0.3, 1)]
    ] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert best_of([replayed("a", 0.2, 3), replayed("b", 0.1, 3), replayed("c", 0.1, 1)]) == 2


def compared(history, loss, *, best=False, around=None):
    apart = None if around is None else difference(*around, [1] * len(around[0]))  # type: ignore[call-arg]
    setting = parse_history(history).setting
    return HistoryResult(history=history, setting=setting, loss=loss, difference=apart, trainings=(), best=best)


def test_the_conclusion_says_which_rule_and_what_to_write():
    never = replayed("never", 0.25, 0)
    rules = (replayed("default", 0.2, 2), never, replayed("each month", 0.19, 9))
    assert write_conclusion(rules, ()) == (
        "The default rule would have trained twice, for a loss of 0.2000: 20.0% less than never training again.",
        "No listed rule has less loss with as few trainings.",
    )
    beaten = (replayed("the project's", 0.2, 2), never, replayed("each quarter", 0.19, 1, better=True, high=0.01))
    first, second = write_conclusion(beaten, ())
    assert first.startswith("The project's rule would have trained twice")
    assert second == "This rule does better with no more trainings: each quarter (0.1900, once, within chance)."
    idle = (replayed("default", 0.25, 0), never, replayed("each month", 0.24, 0, better=True))
    assert write_conclusion(idle, ()) == (
        "The default rule would not have trained: its loss of 0.2500 is that of the first model.",
        "This rule does better with no more trainings: each month (0.2400, no training).",
    )
    low, flat = [0.1, 0.11, 0.1, 0.11], [0.2, 0.22, 0.21, 0.2]
    sure = (compared("growing", 0.2), compared("90d", 0.1, best=True, around=(low, flat)))
    assert write_conclusion(rules, sure)[-1] == (
        "The history 90d has the least loss, 0.1000 against 0.2000 with growing, which is in force: "
        "write `history: {window: 90d}` under monitoring.retrain."
    )
    chance = (compared("90d", 0.2), compared("growing", 0.199, best=True, around=([0.1, 0.3, 0.2], [0.3, 0.1, 0.21])))
    assert write_conclusion(rules, chance)[-1].endswith("with 90d, which is in force; that may be chance.")
    assert write_conclusion(rules, (compared("growing", 0.2, best=True),))[-1] == (
        "No history listed does better than growing, which is in force."
    )
