"""What is too good to be honest is named: noisy copies, amounts after the event, near copies across a fold."""

import numpy as np
import polars as pl
import pytest

from cumulant.training.dataset import training_set
from cumulant.training.evaluation.leakage import auc, check_leakage, strength
from cumulant.training.policy import EvaluationPolicy, TrainingPolicy
from cumulant.training.search.search import search
from cumulant.training.splits import split

ROWS = 1500


def world(seed, *, share=0.2):
    """Generator, six honest numbers, and an outcome that they tell in part."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, 6))
    score = 1.2 * x[:, 0] + 0.8 * x[:, 1] + generator.logistic(size=ROWS)
    return generator, x, score > np.quantile(score, 1 - share)


def frame(x, **more):
    return pl.DataFrame({f"x{place}": x[:, place] for place in range(x.shape[1])} | more)


def flipped(generator, outcome):
    return np.where(generator.random(ROWS) < 0.01, ~outcome, outcome)


def amount(generator, outcome):
    return np.where(outcome & (generator.random(ROWS) < 0.6), generator.lognormal(size=ROWS), 0.0)


def mostly_amount(generator, outcome):
    return np.where(generator.random(ROWS) < 0.005, 3.0, amount(generator, outcome))


LEAKS = {
    "a flag with 1% flipped": flipped,
    "a text with 1% flipped": lambda generator, outcome: np.where(flipped(generator, outcome), "bad", "good"),
    "a noisy copy": lambda generator, outcome: outcome + generator.normal(scale=0.3, size=ROWS),
    "far from its middle": lambda generator, outcome: (
        outcome * generator.choice([-3, 3], ROWS) + generator.normal(scale=0.7, size=ROWS)
    ),
    "an amount after the event": amount,
    "an amount after most events": mostly_amount,
    "repaid where nothing happened": lambda generator, outcome: np.where(
        ~outcome & (generator.random(ROWS) < 0.7), generator.lognormal(size=ROWS), 0.0
    ),
    "missing where nothing happened": lambda generator, outcome: pl.Series(
        np.where(flipped(generator, outcome), generator.normal(size=ROWS), np.nan)
    ).fill_nan(None),
    "a closing code": lambda generator, outcome: np.where(
        outcome & (generator.random(ROWS) < 0.4), "chargeback", generator.choice(["a", "b", "c"], ROWS)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_leak_that_is_not_exact_is_named(name, share):
    for seed in range(5):
        generator, x, outcome = world(seed, share=share)
        features = frame(x, gift=LEAKS[name](generator, outcome))
        (warning,) = training_set(features, pl.Series(outcome), spec=TrainingPolicy(target="y")).warnings
        assert warning.startswith("gift alone determines the target")
        assert "allow: [gift]" in warning
        allowed = training_set(features, pl.Series(outcome), spec=TrainingPolicy(target="y", allow=["gift"]))
        assert allowed.warnings == ()


def test_several_leaks_are_one_warning_with_one_line_that_allows_them():
    generator, x, outcome = world(0)
    leaks = {"gift": amount(generator, outcome), "code": LEAKS["a closing code"](generator, outcome)}
    features = frame(x, **leaks)
    (warning,) = training_set(features, pl.Series(outcome), spec=TrainingPolicy(target="y")).warnings
    assert "each of 2 features alone determines the target" in warning
    assert "one frequent value comes with one class" in warning
    assert "allow: [gift, code]" in warning
    (rest,) = training_set(features, pl.Series(outcome), spec=TrainingPolicy(target="y", allow=["gift"])).warnings
    assert rest.startswith("code alone determines")
    assert "allow: [code]" in rest
    allowed = TrainingPolicy(target="y", allow=["gift", "code"])
    assert training_set(features, pl.Series(outcome), spec=allowed).warnings == ()


def test_a_value_that_may_be_somebodys_is_not_shown():
    generator, _, outcome = world(0)
    code = pl.Series("code", LEAKS["a closing code"](generator, outcome))
    said = check_leakage(pl.DataFrame(code), outcome.astype(float), "binary", spec=TrainingPolicy(target="y"))
    assert "chargeback" not in said[0]
    assert "one frequent value comes with one class" in said[0]


def test_the_warning_reaches_the_summary():
    generator, x, outcome = world(0)
    spec = TrainingPolicy(target="y", trainers=["linear"], time=None, threshold=0.5)
    rows = training_set(frame(x, gift=amount(generator, outcome)), pl.Series(outcome), spec=spec)
    (warning,) = search(split(rows, EvaluationPolicy()).train, spec).summary.warnings
    assert "gift" in warning


def test_numbers_without_end_are_taken_as_missing():
    generator, x, outcome = world(0)
    endless = np.where(generator.random(ROWS) < 0.1, np.inf, x[:, 0])
    assert (
        check_leakage(frame(x, endless=endless), outcome.astype(float), "binary", spec=TrainingPolicy(target="y")) == ()
    )


def test_the_limit_is_declared():
    _, x, outcome = world(0)
    features = frame(x)
    area = auc(x[:, 0], outcome)
    truth = outcome.astype(float)
    assert check_leakage(features, truth, "binary", spec=TrainingPolicy(target="y", leak_auc=0.95)) == ()
    (warning,) = check_leakage(features, truth, "binary", spec=TrainingPolicy(target="y", leak_auc=area - 0.01))
    assert warning.startswith("x0 alone")


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_honest_features_are_not_named(share):
    for seed in range(20):
        generator, x, outcome = world(seed, share=share)
        honest = frame(
            x,
            seldom=np.where(generator.random(ROWS) < 0.05, generator.lognormal(size=ROWS), 0.0),
            shop=generator.choice([f"s{place}" for place in range(60)], ROWS),
            person=np.array([f"p{place}" for place in range(ROWS)]),
            partly=pl.Series(np.where(generator.random(ROWS) < 0.4, np.nan, x[:, 0])).fill_nan(None),
            often=np.where(outcome, generator.random(ROWS) < 0.5, generator.random(ROWS) < 0.1),
        )
        assert check_leakage(honest, outcome.astype(float), "binary", spec=TrainingPolicy(target="y")) == ()


def test_the_area_is_that_of_every_pair():
    generator = np.random.default_rng(0)
    score, truth = generator.integers(0, 6, 60).astype(float), generator.random(60) < 0.4
    pairs = [(one > other) + 0.5 * (one == other) for one in score[truth] for other in score[~truth]]
    assert auc(score, truth) == pytest.approx(np.mean(pairs))


def test_numbers_and_classes_have_their_figure():
    generator = np.random.default_rng(1)
    number = generator.normal(size=2000)
    copy = pl.Series("copy", number + generator.normal(scale=0.02, size=2000))
    assert strength(copy, number, "regression").auc > 0.99
    assert strength(pl.Series("other", generator.normal(size=2000)), number, "regression").auc < 0.53
    kinds = generator.integers(0, 3, 2000).astype(float)
    named = pl.Series("named", np.where(kinds == 1, "one", "other"))
    assert strength(named, kinds, "multiclass").auc > 0.99
    assert strength(pl.Series("n", generator.normal(size=2000)), kinds, "multiclass").auc < 0.56


def copies(seed, *, labels, timed):
    """Rows of customers who come five times with all but equal features. Their labels are one, or each its own."""
    generator, x, outcome = world(seed, share=0.4)
    customer = generator.integers(0, ROWS // 5, ROWS)
    seen = x[customer] + generator.normal(scale=0.02, size=x.shape)
    own = 1.2 * seen[:, 0] + 0.8 * seen[:, 1] + generator.logistic(size=ROWS) > 0.5
    target = pl.Series(outcome[customer] if labels == "shared" else own)
    at = pl.Series(np.arange(ROWS) * 3_600_000_000).cast(pl.Datetime("us")) if timed else None
    spec = TrainingPolicy(target="y", trainers=["linear"], time=None, threshold=0.5)
    return frame(seen), target, at, pl.Series(customer), spec


def warned(seed, *, labels, timed=False, grouped=False):
    features, target, at, customer, spec = copies(seed, labels=labels, timed=timed)
    rows = training_set(features, target, spec=spec, at=at, known=at, groups=customer if grouped else None)
    return search(split(rows, EvaluationPolicy()).train, spec).summary.warnings


@pytest.mark.parametrize("timed", [False, True])
def test_near_copies_that_share_their_labels_noise_are_told(timed):
    for seed in range(3):
        (warning,) = warned(seed, labels="shared", timed=timed)
        assert "near copies" in warning
        assert ("clusters" in warning) == (not timed)


def test_grouped_rows_have_no_copy_across_a_fold():
    assert all(warned(seed, labels="shared", grouped=True) == () for seed in range(5))


@pytest.mark.parametrize("timed", [False, True])
def test_callers_who_come_back_with_labels_of_their_own_are_no_leak(timed):
    assert all(warned(seed, labels="own", timed=timed) == () for seed in range(10))


def test_independent_rows_have_no_copies():
    for seed in range(10):
        _, x, outcome = world(seed)
        spec = TrainingPolicy(target="y", trainers=["linear"], time=None, threshold=0.5)
        rows = training_set(frame(x), pl.Series(outcome), spec=spec)
        assert search(split(rows, EvaluationPolicy()).train, spec).summary.warnings == ()
