"""Harm is loss above what could be reached: harder rows are none, improvement is none, and alarms hold over time."""

import json

import numpy as np
import pytest
from performance_support import DAY, START, daily, followed, sigmoid

from cumulant.core.errors import DataError
from cumulant.monitoring.performance.baselines import HarmPolicy, learn_baseline
from cumulant.monitoring.performance.blocks import base_loss, block_codes, loss_of
from cumulant.monitoring.performance.loss_monitor import LossMonitor, add_window, begin_monitor
from cumulant.monitoring.performance.refits import recent_refits
from cumulant.monitoring.performance.rows import PredictionRows, PredictionWindow

ROWS = 600


def world(days, *, slope=1.0, shift=0.0, centre=0.0, spread=1.5, seed=0):
    """Scores of a model that knows `sigmoid(x)`, where the truth is `sigmoid(slope x + shift)`."""
    generator = np.random.default_rng(seed)
    x = generator.normal(centre, spread, days * ROWS)
    return sigmoid(x), (generator.random(len(x)) < sigmoid(slope * x + shift)).astype(float), x


def joined(*parts):
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


@pytest.fixture(scope="module")
def reference():
    score, truth, _ = world(30, seed=1)
    return daily(score, truth, rows=ROWS)


def test_a_quiet_month_is_not_worse(reference):
    score, truth, x = world(30, seed=2)
    told, _ = followed(reference, daily(score, truth, rows=ROWS), refits=np.split(sigmoid(x), 30))
    assert {one.word for one in told} <= {"not_worse", "cannot_tell"}
    words = {one.question: one.word for one in told[-1].findings}
    assert words == {
        "refit": "not_worse",
        "calibration": "not_worse",
        "skill": "cannot_tell",
    }  # 5 days are few for that
    assert {one.kind for one in told} == {None}


def test_rows_that_are_harder_for_every_model_do_no_harm_by_a_refit(reference):
    """The loss rises since outcomes are less sure; a refit that knows the truth as the model does loses as much."""
    score, truth, x = joined(world(10, seed=3), world(10, spread=0.7, seed=4))
    told, _ = followed(reference, daily(score, truth, rows=ROWS), refits=np.split(sigmoid(x), 20))
    losses = ((score - truth) ** 2).reshape(20, -1).mean(1)
    assert losses[10:].mean() > losses[:10].mean() * 1.2
    words = {question.question: question.word for question in told[-1].findings}
    assert words == {"refit": "not_worse", "calibration": "not_worse", "skill": "worse"}
    assert told[-1].kind == "covariate"
    assert {one.word for one in told[:10]} <= {"not_worse", "cannot_tell"}


def test_a_moved_base_rate_alone_is_no_harm_of_skill(reference):
    """As lateness that rises from 22% to 31%: the loss follows the base rate, and so does its bar."""
    generator = np.random.default_rng(5)
    score, truth, _ = world(40, seed=6)
    keep = np.where(truth > 0.5, 0.8, 0.35)  # rows of either class as before, in other shares
    kept = generator.random(len(truth)) < keep
    score, truth = score[kept][: 20 * ROWS], truth[kept][: 20 * ROWS]
    told, _ = followed(reference, daily(score, truth, rows=ROWS))
    assert told[-1].kind == "prior"
    assert told[-1].moved.base_moved
    assert told[-1].moved.now > told[-1].moved.before + 0.1
    by_name = {one.question: one for one in told[-1].findings}
    assert by_name["calibration"].word == "worse"  # an offset would help, and it is said that it would


def test_a_changed_truth_is_harm_of_the_kind_concept(reference):
    score, truth, x = joined(world(10, seed=7), world(15, slope=0.3, shift=-0.8, seed=8))
    refits = np.split(np.r_[sigmoid(x[: 12 * ROWS]), sigmoid(0.3 * x[12 * ROWS :] - 0.8)], 25)
    told, _ = followed(reference, daily(score, truth, rows=ROWS), refits=refits)
    first = next(number for number, one in enumerate(told) if one.word == "worse")
    assert 10 <= first <= 13
    assert told[-1].kind == "concept"
    since = next(one.since for one in told[-1].findings if one.question == "refit")
    assert START + 9 * DAY <= since <= START + 13 * DAY
    refit = next(one for one in told[-1].findings if one.question == "refit")
    assert refit.low < refit.excess < refit.high
    assert refit.sentence == f"Since {since:%Y-%m-%d %H:%M} UTC {refit.change}."
    assert refit.change.endswith("more than what the model retrained on recent rows would lose")
    assert not refit.at_least


def overconfident(days, seed, **more):
    """Scores that are too high by one logit, and what a refit would say of the same rows."""
    score, truth, x = world(days, seed=seed, **more)
    return sigmoid(x + 1.0), truth, score


def test_a_miscalibration_of_old_is_no_new_harm():
    score, truth, _ = overconfident(30, 40)
    before = daily(score, truth, rows=ROWS)
    for seed in range(41, 45):
        score, truth, refit = overconfident(20, seed)
        told, watch = followed(before, daily(score, truth, rows=ROWS), refits=np.split(refit, 20))
        assert "worse" not in {one.word for one in told}, told[-1].sentence
        assert {one.kind for one in told} == {None}
    assert watch.baseline.miscalibration > 0.05 * watch.baseline.loss
    assert "on the reference already" in " ".join(one.sentence for one in told[-1].findings)


def test_a_changed_truth_is_found_of_scores_that_were_miscalibrated_before():
    score, truth, _ = overconfident(30, 46)
    before = daily(score, truth, rows=ROWS)
    changed, known, refit = overconfident(15, 47, shift=-0.8)
    told, _ = followed(
        before, daily(changed, known, rows=ROWS), refits=np.split(sigmoid(np.log(refit / (1 - refit)) - 0.8), 15)
    )
    first = next(number for number, one in enumerate(told) if one.word == "worse")
    assert first <= 6
    assert told[-1].kind in ("concept", "prior")


def test_numbers_that_were_biased_before_are_no_new_harm():
    generator = np.random.default_rng(48)
    x = generator.normal(0, 2, 50 * ROWS)
    truth = x + generator.normal(0, 1, len(x))
    rows = daily(x + 0.7, truth, rows=ROWS)
    before, now = rows.where(np.arange(len(x)) < 30 * ROWS), rows.where(np.arange(len(x)) >= 30 * ROWS)
    told, _ = followed(
        before, now, refits=np.split(x[30 * ROWS :], 20), terms=HarmPolicy(loss="squared_error"), task="regression"
    )
    assert "worse" not in {one.word for one in told}, told[-1].sentence


def test_improvement_is_told_and_is_no_harm(reference):
    score, truth, x = world(15, slope=1.8, seed=9)  # rows have become easier than the model says
    told, _ = followed(reference, daily(score, truth, rows=ROWS), refits=np.split(sigmoid(x) * 0.5 + 0.25, 15))
    words = {one.question: one.word for one in told[-1].findings}
    assert words["refit"] == "better"
    assert words["skill"] == "better"


def test_a_calibration_that_holds_is_not_called_an_improvement(reference):
    score, truth, _ = world(15, seed=10)
    told, _ = followed(reference, daily(score, truth, rows=ROWS))
    assert told[-1].word != "better"


def test_a_watch_keeps_sums_only_and_goes_on_from_what_was_stored(reference):
    score, truth, _ = world(12, slope=0.4, seed=11)
    current = daily(score, truth, rows=ROWS)
    half = daily(score[: 6 * ROWS], truth[: 6 * ROWS], rows=ROWS)
    rest = daily(score[6 * ROWS :], truth[6 * ROWS :], rows=ROWS, first=6)
    whole, _ = followed(reference, current)
    _, watch = followed(reference, half)
    stored = json.dumps(watch.to_json())
    assert len(stored) < 40_000
    watch = LossMonitor.from_json(json.loads(stored))
    from cumulant.monitoring.performance.rows import windows

    for window, part in windows(rest, DAY):
        watch, told = add_window(watch, window, part)
    assert told == whole[-1]


def test_a_window_is_judged_once_and_with_labels_only(reference):
    score, truth, _ = world(2, seed=12)
    _, watch = followed(reference, daily(score, truth, rows=ROWS))
    again = PredictionWindow(START + DAY, START + 2 * DAY)
    part = daily(score[:ROWS], truth[:ROWS], rows=ROWS)
    with pytest.raises(DataError, match="does not come after the last"):
        add_window(watch, again, part)
    later = PredictionWindow(START + 2 * DAY, START + 3 * DAY)
    with pytest.raises(DataError, match="none of 600 predictions has a label"):
        add_window(watch, later, daily(score[:ROWS], np.full(ROWS, np.nan), rows=ROWS))
    with pytest.raises(DataError, match="finite score for each of 600 rows"):
        add_window(watch, later, part, np.full(5, 0.5))


def test_rows_without_a_label_do_not_count(reference):
    score, truth, _ = world(3, seed=13)
    some = np.where(np.arange(len(truth)) % 3 == 0, np.nan, truth)
    told, _ = followed(reference, daily(score, some, rows=ROWS))
    kept = np.isfinite(some)
    times = daily(score, truth, rows=ROWS).where(kept)
    only, _ = followed(reference, times)
    assert told == only


def test_a_regression_is_watched_by_squared_error():
    generator = np.random.default_rng(14)
    x = generator.normal(10, 3, 40 * ROWS)
    terms = HarmPolicy(loss="squared_error", refit=False)
    noise = generator.normal(0, 1, len(x))
    late = np.arange(len(x)) >= 30 * ROWS
    truth = x + noise + np.where(late, 0.8, 0.0)
    reference = daily(x[: 20 * ROWS], truth[: 20 * ROWS], rows=ROWS)
    current = daily(x[20 * ROWS :], truth[20 * ROWS :], rows=ROWS)
    told, _ = followed(reference, current, terms=terms, task="regression")
    assert {one.word for one in told[:10]} <= {"not_worse", "cannot_tell"}
    assert told[-1].word == "worse"
    assert {one.question for one in told[-1].findings if one.word == "worse"} == {"calibration", "skill"}


def test_terms_and_references_that_mean_nothing_are_refused():
    with pytest.raises(DataError, match="margin of 0 or more"):
        HarmPolicy(margin=-0.1)
    rows = daily(np.full(400, 0.3), np.arange(400.0) % 2, rows=200)
    learned = learn_baseline(rows, task="binary", policy=HarmPolicy(), every=DAY)
    with pytest.raises(DataError, match="alpha between 0 and 1"):
        begin_monitor(learned, HarmPolicy(), alpha=0.0)
    with pytest.raises(DataError, match="of the 31 most recent windows, but only 30 are kept"):
        HarmPolicy(recent=31)
    assert HarmPolicy(recent=30).recent == 30
    for truth in (np.zeros(400), np.full(400, np.nan)):
        with pytest.raises(DataError, match="no skill to be held to"):
            learn_baseline(daily(np.full(400, 0.3), truth, rows=200), task="binary", policy=HarmPolicy(), every=DAY)


def test_log_loss_needs_probabilities():
    truth, score = np.array([0.0, 1.0]), np.array([0.2, 0.9])
    assert loss_of("log_loss", truth, score) == pytest.approx(-np.log([0.8, 0.9]))
    assert loss_of("zero_one", truth, np.array([0.5, 0.5])).tolist() == [1.0, 0.0]
    with pytest.raises(DataError, match="needs probabilities"):
        loss_of("log_loss", truth, score * 2)


@pytest.mark.parametrize("kind", ["brier", "log_loss", "zero_one"])
def test_a_constant_that_saw_the_truth_is_not_favoured(kind):
    """Over many small windows the mean loss of a window's own base rate is that of the true rate, for Brier."""
    generator = np.random.default_rng(15)
    found = [base_loss(kind, (generator.random(12) < 0.3).astype(float), np.ones(12)).mean() for _ in range(4000)]
    true = {"brier": 0.21, "log_loss": -(0.3 * np.log(0.3) + 0.7 * np.log(0.7)), "zero_one": 0.3}[kind]
    assert np.mean(found) == pytest.approx(true, abs=0.004 if kind == "brier" else 0.06)


def test_blocks_are_whole_clusters():
    generator = np.random.default_rng(16)
    cluster = generator.integers(0, 40, 500)
    times = np.datetime64("2020-01-01", "us") + np.arange(500).astype("timedelta64[s]")
    rows = PredictionRows(time=times, score=np.zeros(500), truth=np.zeros(500), cluster=cluster)
    block = block_codes(rows, 50)
    for number in range(40):
        assert len(set(block[cluster == number])) == 1
    assert np.bincount(block).min() >= 50
    assert set(block) == set(range(block.max() + 1))
    alone = block_codes(PredictionRows(time=times, score=np.zeros(500), truth=np.zeros(500)), 60)
    assert np.bincount(alone).min() >= 60
    assert len(block_codes(rows.where(np.arange(3)), 50)) == 3


def test_refits_never_see_the_window_they_are_judged_on():
    inputs = [np.full(3, number) for number in range(6)]
    truths = [np.full(3, float(number)) for number in range(6)]
    seen = []

    def fit(before, labels):
        seen.append([int(one[0]) for one in before])
        return lambda window: np.full(len(window), labels[-1][0])

    found = recent_refits(inputs, truths, fit, memory=2, delay=1)
    assert seen == [[0, 1], [1, 2], [2, 3]]
    assert found[:3] == [None, None, None]
    assert [float(one[0]) for one in found[3:]] == [1.0, 2.0, 3.0]
    seen.clear()
    recent_refits(inputs, truths, fit, memory=2, every=3)
    assert seen == [[0, 1], [3, 4]]
    with pytest.raises(DataError, match="same windows"):
        recent_refits(inputs, truths[:2], fit, memory=2)


def test_a_new_watch_says_nothing(reference):
    terms = HarmPolicy()
    watch = begin_monitor(learn_baseline(reference, task="binary", policy=terms, every=DAY), terms)
    assert watch.looks == 0
    assert watch.baseline.skill == pytest.approx(1 - watch.baseline.loss / watch.baseline.base)


def test_harm_that_is_proven_goes_on_until_the_recent_windows_are_well(reference):
    """Bad from the 6th to the 15th day: told without a gap, and taken back some days later."""
    bad = world(10, slope=0.2, seed=18)
    score, truth, _ = joined(world(5, seed=17), bad, world(15, seed=19))
    told, watch = followed(reference, daily(score, truth, rows=ROWS))
    harmed = [number for number, one in enumerate(told) if one.word == "worse"]
    assert harmed == list(range(harmed[0], harmed[-1] + 1))
    assert 5 <= harmed[0] <= 7
    assert 14 <= harmed[-1] <= 20
    assert watch.proven == ()


def test_one_good_day_among_bad_ones_does_not_end_a_proven_harm(reference):
    """Four days of scores turned round, and one of rows easier than the scores say: surely better, and that day only."""
    score, truth, _ = joined(world(5, seed=20), world(4, slope=-0.5, seed=21), world(6, slope=4.0, seed=22))
    told, _ = followed(reference, daily(score, truth, rows=ROWS))
    lost = ((score - truth) ** 2).reshape(15, ROWS).mean(axis=1)
    assert lost[9] < 0.7 * lost[:5].mean()
    words = [one.word for day in told for one in day.findings if one.question == "skill"]
    assert words[7:10] == ["worse"] * 3
    assert words[-1] == "better"  # the recent windows are good now


def test_days_that_follow_each_other_need_more_evidence_unless_they_are_declared_independent():
    generator = np.random.default_rng(60)
    level = np.zeros(60)
    for day in range(1, 60):
        level[day] = 0.8 * level[day - 1] + 0.6 * generator.normal()
    truth = np.tile([1.0, -1.0], 30 * 60)
    noise = np.tile([1.0, 1.0, -1.0, -1.0], 15 * 60) * np.sqrt(0.4 + 0.04 * np.repeat(level, 60))
    rows = daily(truth + noise, truth, rows=60, cluster=np.repeat(np.arange(60), 60))
    terms = HarmPolicy(loss="squared_error", refit=False)
    learned = learn_baseline(rows, task="regression", policy=terms, every=DAY)
    assert learned.shapes["skill"].correlation > 0.5
    assert begin_monitor(learned, terms).answers["skill"].worse.allowed > 3
    terms = HarmPolicy(loss="squared_error", refit=False, independent=True)
    plain = learn_baseline(rows, task="regression", policy=terms, every=DAY)
    assert plain.shapes == {}
    watch = begin_monitor(plain, terms)
    assert watch.answers["skill"].worse.allowed == 0
    stored = json.loads(json.dumps(begin_monitor(learned, HarmPolicy(loss="squared_error", refit=False)).to_json()))
    assert LossMonitor.from_json(stored).baseline == learned
    assert LossMonitor.from_json(stored).answers["skill"].worse.allowed > 3
    bar = stored.pop("bar")
    earlier = stored | {"terms": stored["terms"] | {"alpha": 0.05}}
    assert LossMonitor.from_json(earlier).bar == bar
