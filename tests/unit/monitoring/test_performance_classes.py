"""Several classes: what labels say of them, harm, and what is refused in words."""

import math
from datetime import timedelta

import numpy as np
import pytest
from performance_support import DAY, LATER, daily, followed
from sklearn.metrics import accuracy_score, f1_score, log_loss

from cumulant.core.errors import DataError
from cumulant.monitoring.performance.baselines import HarmPolicy, learn_baseline
from cumulant.monitoring.performance.blocks import base_loss, loss_of
from cumulant.monitoring.performance.labelled import measured
from cumulant.monitoring.performance.loss_monitor import LossMonitor, add_window, begin_monitor
from cumulant.monitoring.performance.multiclass import estimate_class_windows, learn_estimators
from cumulant.monitoring.performance.rows import windows
from cumulant.monitoring.performance.unlabelled import estimate_windows, learn_estimator
from cumulant.statistics.performance.calibration import Calibrator
from cumulant.statistics.performance.classes import expected_log_loss

pytestmark = pytest.mark.slow

TERMS = HarmPolicy(refit=False, calibration=False)
NAMES = ("a", "b", "c")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def drawn(rng, n, *, sure=1.5, shares=(0.5, 0.3, 0.2)):
    """Probabilities of three classes that are right, and classes drawn by them."""
    logits = rng.normal(0, sure, (n, 3)) + np.log(shares)
    score = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return score, (rng.random(n)[:, None] > score.cumsum(axis=1)[:, :2]).sum(axis=1).astype(float)


def made(rng, n, *, rows=500, first=0, **how):
    score, truth = drawn(rng, n, **how)
    return daily(score, truth, rows=rows, first=first)


def test_metrics_are_those_of_training(rng):
    part = made(rng, 1000, rows=1000)
    [found] = measured(part, task="multiclass", every=DAY, now=LATER, resamples=50)
    said = part.score.argmax(axis=1)
    wanted = {
        "accuracy": accuracy_score(part.truth, said),
        "macro_f1": f1_score(part.truth, said, average="macro"),
        "log_loss": log_loss(part.truth, part.score),
        "brier": ((part.score - np.eye(3)[part.truth.astype(int)]) ** 2).sum(axis=1).mean(),
    }
    assert {name: found.figures[name].value for name in wanted} == pytest.approx(wanted)
    assert found.base == pytest.approx(np.bincount(part.truth.astype(int)).max() / 1000)
    assert set(found.figures) == {*wanted, "calibration_error"}
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert found.figures[name].low < wanted[name] < found.figures[name].high


def test_labels_that_are_missing_or_a_selection(rng):
    score, truth = drawn(rng, 2000)
    truth[score.max(axis=1) < 0.6] = np.nan  # only of what the model was sure of, there are labels
    [found] = measured(
        daily(score, truth, rows=2000), task="multiclass", every=DAY, now=LATER, least_share=0.1, resamples=20
    )
    assert "they are a selection" in found.notes[0]
    score, truth = drawn(rng, 20_000)
    chance = np.where(truth == 2, 0.9, 0.2)
    seen = np.where(rng.random(20_000) < chance, truth, np.nan)
    [found] = measured(
        daily(score, seen, rows=20_000, label_chance=chance),
        task="multiclass",
        every=DAY,
        now=LATER,
        metrics=["accuracy"],
        resamples=200,
    )
    figure = found.figures["accuracy"]
    assert figure.low < (score.argmax(axis=1) == truth).mean() < figure.high, "as if all were labelled"


def loss_by_hand(kind, score, place):
    """The loss of one answer."""
    if kind == "brier":
        return sum((p - (number == place)) ** 2 for number, p in enumerate(score))
    return -math.log(score[place]) if kind == "log_loss" else float(score.index(max(score)) != place)


@pytest.mark.parametrize("kind", ["brier", "log_loss", "zero_one"])
def test_losses_are_those_of_the_definition(rng, kind):
    score, truth = drawn(rng, 50)
    wanted = [loss_by_hand(kind, one, int(place)) for one, place in zip(score.tolist(), truth, strict=True)]
    assert loss_of(kind, truth, score) == pytest.approx(np.array(wanted))


def test_the_constant_of_a_window_has_no_gain_from_having_seen_it(rng):
    """Over many small windows the mean loss of the shares that a window shows is that of the true shares."""
    shares = np.array([0.5, 0.3, 0.2])
    lost = []
    for _ in range(4000):
        truth = rng.choice(3, 12, p=shares).astype(float)
        lost.append(base_loss("brier", truth, np.ones(12), 3).mean())
    error = np.std(lost) / np.sqrt(len(lost))
    assert abs(np.mean(lost) - (1 - (shares**2).sum())) < 4 * error


def test_nothing_that_changed_is_no_harm_and_classes_mixed_up_are(rng):
    reference = made(rng, 10_000)
    told, watch = followed(reference, made(rng, 10_000, first=20), terms=TERMS, task="multiclass")
    assert {one.word for one in told} <= {"cannot_tell", "not_worse", "better"}
    assert [one.question for one in told[-1].findings] == ["skill"]
    score, truth = drawn(rng, 5_000)
    mixed = daily(np.roll(score, 1, axis=1), truth, rows=500, first=40)
    for window, part in windows(mixed, DAY):
        watch, said = add_window(LossMonitor.from_json(watch.to_json()), window, part)
    assert (said.word, said.kind) == ("worse", None)
    assert said.findings[0].since.isoformat().startswith("2020-02-10")
    assert "more than a model with its skill on the reference would lose" in said.sentence


def test_what_a_refit_gains_is_harm(rng):
    reference = made(rng, 10_000)
    score, truth = drawn(rng, 10_000)
    blurred = 0.5 * score + 0.5 / 3
    current = daily(blurred, truth, rows=500, first=20)
    terms = HarmPolicy(calibration=False)
    told, _ = followed(reference, current, terms=terms, task="multiclass", refits=np.split(score, 20))
    words = {one.question: one.word for one in told[-1].findings}
    assert words["refit"] == "worse"


def test_alarms_where_nothing_changed_are_as_rare_as_they_say(rng):
    """150 watches of 30 windows, alpha 5%: more than 15 alarms would come with a chance of under 1%."""
    reference = made(rng, 20_000, rows=2000)
    begun = begin_monitor(learn_baseline(reference, task="multiclass", policy=TERMS, every=DAY), TERMS)
    alarms = 0
    for _ in range(150):
        watch, words = begun, set()
        for window, part in windows(made(rng, 30 * 200, rows=200, first=20), DAY):
            watch, found = add_window(watch, window, part)
            words.add(found.word)
        alarms += "worse" in words
    assert alarms <= 15


@pytest.mark.parametrize(
    ("score", "truth", "said"),
    [
        ([[0.5, 0.3], [0.5, 0.5]], [0, 1], "not the probabilities of all classes"),
        ([[1.2, -0.2], [0.5, 0.5]], [0, 1], "not the probabilities of all classes"),
        ([[1.0], [1.0]], [0, 0], "not the probabilities of all classes"),
        ([[0.5, 0.5], [0.5, 0.5]], [0, 2], "no place of 2 classes"),
        ([[0.5, 0.5], [0.5, 0.5]], [0, 0.5], "no place of 2 classes"),
        ([[0.5, 0.5], [0.5, float("nan")]], [0, 1], "no finite score"),
    ],
)
def test_what_are_no_classes(score, truth, said):
    with pytest.raises(DataError, match=said):
        daily(np.array(score), np.array(truth), rows=2)


def test_their_figures_are_estimated_without_labels(rng):
    """20 windows alike and 20 of harder rows, of which the truth lies outside of at most a few (95% each)."""
    estimators = learn_estimators(made(rng, 10_000), names=NAMES, every=DAY)
    assert estimators.refused is None
    alike = made(rng, 10_000, first=20)
    score, truth = drawn(rng, 10_000, sure=0.8)
    harder = daily(score, truth, rows=500, first=40)
    inside = []
    for part, words in ((alike, {"not_worse", "cannot_tell"}), (harder, {"worse"})):
        told = estimate_class_windows(estimators, part, every=DAY)
        for loss, least in (("brier", 17), ("log_loss", 16)):
            true = [loss_of(loss, one.truth, one.score).mean() for _, one in windows(part, DAY)]
            said = [one.figures[loss] for one in told]
            assert sum(one.low <= lost <= one.high for one, lost in zip(said, true, strict=True)) >= least
            assert loss != "brier" or np.mean([one.value for one in said]) == pytest.approx(np.mean(true), rel=0.02)
        right = (part.score.argmax(axis=1) == part.truth).astype(float)
        for one, known in zip(told, np.split(right, 20), strict=True):
            inside.append(one.figures["accuracy"].low <= known.mean() <= one.figures["accuracy"].high)
        [whole] = estimate_class_windows(estimators, part, every=40_000 * DAY)
        assert whole.figures["brier"].word in words
    assert len(inside) == 40
    assert sum(inside) >= 34  # at 95% fewer have a chance of 0.3%
    # Labels are not looked at.
    blank = daily(score[:1500], np.full(1500, np.nan), rows=500, first=40)
    assert estimate_class_windows(estimators, blank, every=DAY) == told[:3]


def test_the_expected_log_loss_is_that_of_drawn_classes(rng):
    """Scores that are probabilities: against classes drawn 2,000 times, in value and in both ends."""
    score, _ = drawn(rng, 400)
    exact = Calibrator(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([1e6, 1e6]))
    maps = [[exact] * 2000] * 3
    low, value, high = expected_log_loss([exact] * 3, maps, score, spread=1.0, seed=1)
    truth = (rng.random((2000, 400, 1)) > score.cumsum(axis=1)[:, :2]).sum(axis=2)
    lost = -np.log(score[np.arange(400), truth]).mean(axis=1)
    assert value == pytest.approx(lost.mean(), abs=0.005)
    assert (low, high) == pytest.approx(tuple(np.quantile(lost, [0.025, 0.975])), abs=0.012)


def test_their_log_loss_is_refused_where_calibration_does_not_carry(rng):
    def softer(n, **how):
        score, truth = drawn(rng, n, **how)
        return daily(np.sqrt(score) / np.sqrt(score).sum(axis=1, keepdims=True), truth, rows=500)

    estimators = learn_estimators(softer(6000), names=NAMES, every=DAY)
    assert {one.refused for one in estimate_class_windows(estimators, softer(1500), every=DAY)} == {None}
    for one in estimate_class_windows(estimators, softer(1500, sure=0.5), every=DAY):
        assert "the calibration may not carry to them, so wait for labels" in one.refused
        assert one.figures == {}


def test_where_an_estimate_of_several_classes_may_not_be_trusted(rng):
    reference = made(rng, 2000)
    estimators = learn_estimators(reference, names=NAMES, every=DAY)
    [few] = estimate_class_windows(estimators, made(rng, 60), every=DAY)
    assert "60 rows are too few" in few.refused
    [blind] = estimate_class_windows(estimators, made(rng, 500), every=DAY, kind="concept")
    assert "cannot see" in blind.refused
    rare = made(rng, 2000, shares=(0.6, 0.395, 0.005), sure=0.3)
    assert 'of "c" against the rest' in learn_estimators(rare, names=NAMES, every=DAY).refused
    with pytest.raises(DataError, match="2 names for 3 classes"):
        learn_estimators(reference, names=NAMES[:2], every=DAY)
    score = np.full((200, 2), 0.5)
    with pytest.raises(DataError, match="scores of 2 classes, and the reference has 3"):
        estimate_class_windows(estimators, daily(score, np.zeros(200), rows=200), every=DAY)
    with pytest.raises(DataError, match="the task is multiclass"):
        learn_estimators(daily(score[:, 0], np.zeros(200), rows=200), names=NAMES, every=DAY)


def test_what_is_not_asked_of_several_classes_says_so(rng):
    several = made(rng, 2000)
    binary = daily(several.score[:, 0], (several.truth == 0).astype(float), rows=500)
    refusals = {
        "without labels is for two classes or numbers": lambda: learn_estimator(several, every=DAY),
        "these predictions are of 3 classes": lambda: estimate_windows(
            learn_estimator(binary, every=DAY), several, every=DAY
        ),
        "the task is binary, and a score for each class is there": lambda: measured(
            several, task="binary", every=DAY, now=LATER
        ),
        "the task is multiclass, and a score for each class is not there": lambda: measured(
            binary, task="multiclass", every=DAY, now=LATER
        ),
        "calibration of several classes is not tested": lambda: learn_baseline(
            several, task="multiclass", policy=HarmPolicy(), every=DAY
        ),
        "a squared error is of numbers": lambda: learn_baseline(
            several, task="multiclass", policy=HarmPolicy(loss="squared_error", calibration=False), every=DAY
        ),
    }
    for said, asked in refusals.items():
        with pytest.raises(DataError, match=said):
            asked()
    watch = begin_monitor(learn_baseline(several, task="multiclass", policy=TERMS, every=DAY), TERMS)
    [(window, part), *_] = windows(several, timedelta(days=1))
    with pytest.raises(DataError, match="the task is multiclass"):
        add_window(watch, window, binary)
    with pytest.raises(DataError, match="a refit gives a finite score"):
        add_window(watch, window, part, part.score[:, 0])
