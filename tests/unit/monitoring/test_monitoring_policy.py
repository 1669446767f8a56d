"""Retraining by rule: loss confirms what drift proposes, and nothing is trained that would gain nothing or learn faults."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cumulant.core.errors import DataError, UsageError
from cumulant.core.units import moment
from cumulant.monitoring.backtest import BacktestHistory, ReplayPolicy, backtest
from cumulant.monitoring.performance.baselines import HarmPolicy
from cumulant.monitoring.policy import HistoryPolicy, RetrainBudget, RetrainPolicy
from cumulant.monitoring.retrain_rule import RetrainEvidence, RetrainState, apply_history, decide
from cumulant.monitoring.spec import HistorySpec, RetrainSpec
from cumulant.project.monitoring_section import history_policy, retrain_terms, training_budget
from cumulant.training.spec import TrainingSpec

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
STATE = RetrainState(trained=NOW - 60 * DAY)


def seen(**known):
    return RetrainEvidence(**{"now": NOW, "new_labels": 5000} | known)


@pytest.mark.parametrize(
    ("known", "terms", "do", "words"),
    [
        ({}, {}, "nothing", "No training is due"),
        ({"drift": True}, {}, "nothing", "no loss confirms"),
        ({"measured": "worse"}, {}, "train", "Measured loss shows harm."),
        ({"measured": "worse", "kind": "concept", "refit": "worse"}, {}, "train", "(concept)"),
        ({"measured": "worse", "refit": "not_worse", "kind": "prior"}, {}, "nothing", "a refit gains nothing"),
        ({"drift": True, "estimated": "worse"}, {}, "train", "Estimated loss"),
        ({"estimated": "worse"}, {}, "nothing", "No training is due"),
        ({"drift": True, "estimated": "worse", "measured": "not_worse"}, {}, "nothing", "no loss confirms"),
        ({"measured": "better"}, {}, "nothing", "No training is due"),
        ({"measured": "worse", "fault": "4% of prices are negative"}, {}, "wait", "4% of prices are negative"),
        ({"measured": "worse", "kind": "data_fault"}, {}, "wait", "nothing is learned from it"),
        ({"measured": "worse", "new_labels": 20}, {}, "wait", "20 new labels"),
        ({"measured": "worse"}, {"hold": 2}, "nothing", "1 of 2 consecutive evaluations"),
        ({"measured": "worse", "kind": "concept"}, {"on_harm": False}, "nothing", "shows harm (concept)"),
        ({"drift": True}, {"on_drift": True}, "train", "Drift alarms"),
        ({}, {"every": 30 * DAY}, "train", "60 days old"),
        ({}, {"every": 90 * DAY}, "nothing", "No training is due"),
        ({}, {"labels": 4000}, "train", "5000 labels are new"),
        ({"fault": "a column is missing"}, {"every": 30 * DAY}, "wait", "a column is missing"),
    ],
)
def test_what_is_known_decides(known, terms, do, words):
    _, action = decide(STATE, seen(**known), RetrainPolicy(**terms))
    assert action.do == do
    assert words in action.sentence


def test_harm_must_hold_and_then_cools_down_within_a_budget():
    terms = RetrainPolicy(hold=2, cool_down=5 * DAY, at_most=training_budget("2/month"))
    state, done = STATE, []
    for day in range(60):
        state, action = decide(state, seen(now=NOW + day * DAY, measured="worse"), terms)
        done.append((action.do, action.sentence))
    trained = [day for day, (do, _) in enumerate(done) if do == "train"]
    assert trained == [1, 6, 31, 36]
    assert "cool-down" in done[4][1]
    assert "budget of 2 within 30 days" in done[20][1]
    assert state.trained == NOW + 36 * DAY
    for first in trained:
        assert sum(first <= day < first + 30 for day in trained) <= 2


def test_one_good_look_breaks_what_had_to_hold():
    terms = RetrainPolicy(hold=3)
    state = STATE
    for word in ("worse", "worse", "not_worse", "worse", "worse"):
        state, action = decide(state, seen(measured=word), terms)
        assert action.do == "nothing"
    assert decide(state, seen(measured="worse"), terms)[1].do == "train"


def test_a_budget_is_read():
    assert training_budget("2/month") == RetrainBudget(2, timedelta(days=30))
    assert training_budget(" 1 / week ") == RetrainBudget(1, timedelta(days=7))
    assert training_budget("2.5/month") == RetrainBudget(2, timedelta(days=24))
    assert training_budget("0.5/day") == RetrainBudget(1, timedelta(days=2))
    for text in ("two a month", "2/fortnight", "-1/day", "", "0/month"):
        with pytest.raises(UsageError, match=r"is no budget|is not a rate"):
            training_budget(text)


def test_the_project_file_says_the_rule():
    assert retrain_terms(RetrainSpec()) == RetrainPolicy(on_harm=False)
    assert retrain_terms(RetrainSpec(when="loss_confirmed")) == RetrainPolicy()
    spec = RetrainSpec(
        when="loss_confirmed", every="90d", labels=10_000, hold=2, cool_down="36h", least_labels=0, at_most="1/week"
    )
    assert retrain_terms(spec) == RetrainPolicy(
        every=90 * DAY, labels=10_000, hold=2, cool_down=1.5 * DAY, least_labels=0, at_most=RetrainBudget(1, 7 * DAY)
    )
    _, action = decide(STATE, seen(), retrain_terms(RetrainSpec(every="30d")))
    assert (action.do, action.trigger) == ("train", "schedule")
    with pytest.raises(UsageError, match="every may not be 0"):
        retrain_terms(RetrainSpec(every="0d"))
    with pytest.raises(UsageError, match="is not a duration"):
        retrain_terms(RetrainSpec(cool_down="a week"))


def line(inputs, truths):
    """A fit with one number: the base rate at each side of 0."""
    x, y = np.concatenate(inputs), np.concatenate(truths)
    rates = [float(y[side].mean()) if side.any() else 0.5 for side in (x <= 0, x > 0)]
    return lambda window: np.where(window > 0, rates[1], rates[0])


@pytest.fixture(scope="module")
def history():
    """30 days of 400 rows; from the 15th on what was likely is unlikely."""
    generator = np.random.default_rng(1)
    inputs = [generator.normal(size=400) for _ in range(30)]
    chances = [np.where((x > 0) == (day < 15), 0.8, 0.2) for day, x in enumerate(inputs)]
    truths = [(generator.random(400) < chance).astype(float) for chance in chances]
    hours = (np.arange(400) * 216_000_000).astype("timedelta64[us]")
    times = [np.datetime64("2026-06-01", "us") + np.timedelta64(day, "D") + hours for day in range(30)]
    return BacktestHistory(inputs=inputs, truths=truths, times=times)


TERMS = ReplayPolicy(start=NOW, every=DAY, first=4, memory=3, learn=3, refit_memory=3, harm=HarmPolicy())


def test_a_backtest_tells_what_each_rule_would_have_cost(history):
    free = {"cool_down": timedelta(0), "least_labels": 0, "at_most": None}
    told = backtest(
        history,
        line,
        {
            "default": RetrainPolicy(cool_down=2 * DAY),
            "never": RetrainPolicy(on_harm=False),
            "each week": RetrainPolicy(on_harm=False, every=7 * DAY, **free),
            "at every alarm": RetrainPolicy(on_drift=True, **free),
        },
        TERMS,
        drifts=lambda known, window: bool(len(known)) and abs(float(window.mean())) > 0.05,
    )
    by_name = {one.policy: one for one in told}
    assert list(by_name) == ["default", "never", "each week", "at every alarm"]
    default, never = by_name["default"], by_name["never"]
    assert 1 <= len(default.trainings) <= 2
    assert NOW + 16 * DAY <= default.trainings[0] <= NOW + 18 * DAY
    assert default.loss < never.loss - 0.05
    assert never.trainings == ()
    assert never.alarms >= 14
    assert len(by_name["each week"].trainings) == 3
    assert len(by_name["at every alarm"].trainings) > len(default.trainings)
    assert never.looks == len(never.losses) == 26
    np.testing.assert_allclose(never.losses[:10], default.losses[:10])


def test_labels_that_come_late_delay_what_is_known(history):
    late = ReplayPolicy(start=NOW, every=DAY, first=4, memory=3, learn=3, refit_memory=3, delay=3, harm=HarmPolicy())
    prompt, delayed = (
        backtest(history, line, {"default": RetrainPolicy(cool_down=2 * DAY)}, terms)[0] for terms in (TERMS, late)
    )
    assert delayed.trainings[0] >= prompt.trainings[0] + 3 * DAY
    assert delayed.looks == prompt.looks - 3


def test_a_fit_never_sees_what_comes_later(history):
    """Each training is given windows that are over, and labels that have come."""
    place = {id(one): number for number, one in enumerate(history.inputs)}
    asked = []

    def watched(inputs, truths):
        asked.append([place[id(one)] for one in inputs])
        return line(inputs, truths)

    terms = ReplayPolicy(start=NOW, every=DAY, first=4, memory=None, learn=3, refit_memory=3, delay=2)
    policy = RetrainPolicy(on_harm=False, every=5 * DAY, cool_down=timedelta(0), least_labels=0, at_most=None)
    (told,) = backtest(history, watched, {"schedule": policy}, terms)
    grown = [one for one in asked if one[0] == 0 and len(one) > 4]
    assert [one[-1] for one in grown] == [(when - NOW) // DAY - 1 - 2 for when in told.trainings]


def test_too_short_a_history_is_refused(history):
    short = BacktestHistory(inputs=history.inputs[:4], truths=history.truths[:4], times=history.times[:4])
    with pytest.raises(DataError, match="4 windows are too few"):
        backtest(short, line, {"never": RetrainPolicy(on_harm=False)}, TERMS)


def test_a_window_without_rows_is_passed_over(history):
    gone = {12, 20, 29}
    empty = [np.zeros(0)] * 30
    holed = BacktestHistory(
        inputs=[empty[day] if day in gone else one for day, one in enumerate(history.inputs)],
        truths=[empty[day] if day in gone else one for day, one in enumerate(history.truths)],
        times=[one[:0] if day in gone else one for day, one in enumerate(history.times)],
    )
    (told,) = backtest(holed, line, {"default": RetrainPolicy(cool_down=2 * DAY)}, TERMS)
    assert [place + 4 for place, loss in enumerate(told.losses) if loss is None] == sorted(gone)
    assert NOW + 16 * DAY <= told.trainings[0] <= NOW + 19 * DAY
    rows = [loss for loss in told.losses if loss is not None]
    assert told.loss == pytest.approx(np.mean(rows))
    with pytest.raises(DataError, match="no window after the first training has a row"):
        backtest(
            BacktestHistory(inputs=empty, truths=empty, times=[one[:0] for one in history.times]),
            line,
            {"never": RetrainPolicy(on_harm=False)},
            TERMS,
        )


def test_newer_rows_weigh_more_where_history_is_weighted(history):
    given = []

    def weighted(inputs, truths, weights):
        given.append((len(inputs), weights))
        return line(inputs, truths)

    terms = ReplayPolicy(start=NOW, every=DAY, first=4, memory=None, half_life=2 * DAY, learn=3, refit_memory=3)
    policy = RetrainPolicy(on_harm=False, every=10 * DAY, cool_down=timedelta(0), least_labels=0, at_most=None)
    (told,) = backtest(history, line, {"schedule": policy}, terms, weighted=weighted)
    assert [windows for windows, _ in given] == [4, *((when - NOW) // DAY for when in told.trainings)]
    for windows, weights in given:
        assert [len(one) for one in weights] == [400] * windows
        for day, one in enumerate(weights):
            hours = (np.arange(400) * 0.06 + 24 * day) / 24  # rows are 3.6 minutes apart
            np.testing.assert_allclose(one, 0.5 ** ((windows - hours) / 2), rtol=1e-9)
    with pytest.raises(DataError, match="needs a fit that takes weights"):
        backtest(history, line, {"schedule": policy}, terms)


def steady(inputs, truths):
    """A model that knows how sure each side is."""
    del inputs, truths
    return lambda window: np.where(window > 0, 0.6, 0.05)


def test_an_estimate_confirms_drift_before_labels_come():
    """From the 18th day on most rows are of the side that nobody is sure of: scores tell, labels are five days late."""
    generator = np.random.default_rng(4)
    inputs = [np.where(generator.random(600) < (0.15 if day < 18 else 0.9), 1.0, -1.0) for day in range(28)]
    truths = [(generator.random(600) < np.where(one > 0, 0.6, 0.05)).astype(float) for one in inputs]
    times = [np.datetime64("2026-06-01", "us") + np.timedelta64(day, "D") + np.arange(600) for day in range(28)]
    history = BacktestHistory(inputs=inputs, truths=truths, times=times)

    def moved(known, window):
        return abs(np.concatenate(known).mean() - window.mean()) > 0.2

    def trained(estimate):
        terms = ReplayPolicy(
            start=NOW, every=DAY, first=4, memory=4, learn=3, refit_memory=3, delay=5, estimate=estimate
        )
        return backtest(history, steady, {"default": RetrainPolicy()}, terms, drifts=moved)[0].trainings

    assert trained(True)[0] == NOW + 19 * DAY
    assert all(when >= NOW + (19 + 5) * DAY for when in trained(False))


def test_a_training_learns_from_what_the_project_says():
    training = TrainingSpec(target="y")
    assert apply_history(HistoryPolicy(), training, NOW) is training
    half = apply_history(HistoryPolicy(half_life=30 * DAY), training, NOW)
    assert (half.half_life, half.since) == ("30d", None)
    window = apply_history(HistoryPolicy(window=90 * DAY), training, NOW)
    assert moment(window.since) == NOW - 90 * DAY
    later = TrainingSpec(target="y", since="2026-05-01")
    assert apply_history(HistoryPolicy(window=90 * DAY), later, NOW) is later
    assert moment(apply_history(HistoryPolicy(window=7 * DAY), later, NOW).since) == NOW - 7 * DAY
    with pytest.raises(UsageError, match=r"history\.window may not be 0"):
        history_policy(HistorySpec(window="0d"))
