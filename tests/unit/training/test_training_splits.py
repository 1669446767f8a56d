"""Nothing is learned that could not be known, and every row is judged once."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError, UsageError
from cumulant.project.training_section import evaluation_policy
from cumulant.training.dataset import TrainingSet
from cumulant.training.policy import EvaluationPolicy
from cumulant.training.spec import EvaluationSpec
from cumulant.training.splits import folds, split

DAY = 86_400_000_000


def rows_with(at, target, known=None, groups=None, task="binary", classes=("0", "1")):
    return TrainingSet(
        features=pl.DataFrame({"x": np.zeros(len(target))}),
        target=np.asarray(target, dtype=float),
        task=task,
        classes=classes,
        at=None if at is None else np.asarray(at, dtype=np.int64),
        known=None if known is None else np.asarray(known, dtype=np.int64),
        groups=None if groups is None else np.asarray(groups, dtype=np.int64),
        rows=np.arange(len(target)),
    )


timed = st.tuples(st.integers(60, 200), st.integers(0, 20), st.integers(0, 10**6))


@given(timed, st.sampled_from(["20%", 0.3, "15d", "2d"]))
@settings(max_examples=150, deadline=None)
def test_what_trains_was_known_before_the_first_judged_row(made, test):
    count, delay, seed = made
    generator = np.random.default_rng(seed)
    at = generator.integers(0, 100, count) * DAY
    known = at + generator.integers(0, delay + 1, count) * DAY
    rows = rows_with(at, generator.random(count) < 0.5, known)
    try:
        parts = split(rows, evaluation_policy(EvaluationSpec(test=test)))
    except DataError:
        return
    begin = parts.test.at.min()
    assert parts.train.at.max() < begin
    assert parts.train.known.max() <= begin
    assert parts.cutoff <= begin
    assert set(parts.train.rows) | set(parts.test.rows) <= set(range(count))
    assert len(parts.train) + len(parts.test) + parts.left_out == count
    made = folds(parts.train, 4)[0] if len(parts.train) > 60 else ()
    for fold in made:
        start = parts.train.at[fold.validate].min()
        assert parts.train.at[fold.train].max() < start
        assert parts.train.known[fold.train].max() <= start
    judged = np.concatenate([fold.validate for fold in made]) if made else np.zeros(0)
    assert len(np.unique(judged)) == len(judged)


def test_the_gap_does_not_depend_on_the_outcome():
    """Late flights are known later: all rows of the gap are left out, not only the late ones."""
    generator = np.random.default_rng(0)
    at = np.sort(generator.integers(0, 100 * DAY, 4000))
    late = generator.random(4000) < 0.3
    rows = rows_with(at, late, at + np.where(late, 2 * DAY, DAY // 4))
    parts = split(rows, EvaluationPolicy(test=timedelta(days=20)))
    assert parts.gap == 2 * DAY
    last_days = parts.train.at > parts.cutoff - 5 * DAY
    assert parts.train.target[last_days].mean() == pytest.approx(0.3, abs=0.06)
    assert "gap of 2d" in parts.how


def test_a_test_of_days_ends_with_the_last_row():
    at = np.arange(1000) * DAY // 10
    parts = split(rows_with(at, np.arange(1000) % 2), EvaluationPolicy(test=timedelta(days=14)))
    assert len(parts.test) == 140
    assert len(parts.train) == 860


def test_random_splits_keep_classes_and_groups():
    generator = np.random.default_rng(1)
    target = generator.random(1000) < 0.1
    parts = split(rows_with(None, target), EvaluationPolicy(), seed=3)
    assert len(parts.test) == pytest.approx(200, abs=2)
    assert parts.test.rate == pytest.approx(parts.train.rate, abs=0.01)
    assert "random" in parts.how
    again = split(rows_with(None, target), EvaluationPolicy(), seed=3)
    assert again.test.rows.tolist() == parts.test.rows.tolist()
    groups = generator.integers(0, 150, 1000)
    whole = split(rows_with(None, target, groups=groups), EvaluationPolicy())
    assert not set(whole.test.groups) & set(whole.train.groups)
    assert len(whole.test) == pytest.approx(200, abs=15)


@given(st.integers(2, 6), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_random_folds_judge_every_row_once(count, grouped, seed):
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, 60, 300) if grouped else None
    rows = rows_with(None, np.arange(300) % 3 == 0, groups=groups)
    made, notes = folds(rows, count, seed=seed)
    assert len(made) == count
    assert sorted(np.concatenate([fold.validate for fold in made])) == list(range(300))
    for fold in made:
        assert not set(fold.train) & set(fold.validate)
        if grouped:
            assert not set(groups[fold.train]) & set(groups[fold.validate])
        else:
            assert rows.target[fold.validate].mean() == pytest.approx(1 / 3, abs=0.04)
    assert "no time" in notes[0]


def test_folds_without_positives_are_left_out_and_said():
    at = np.arange(400) * DAY
    target = np.zeros(400)
    target[100:300] = np.arange(200) % 2
    made, notes = folds(rows_with(at, target), 4)
    assert len(made) == 2
    assert notes == ("2 folds in time order", "not 4, since folds would have had too few rows or positives")
    with pytest.raises(DataError, match="too few for folds"):
        folds(rows_with(at[:40], np.r_[np.ones(5), np.zeros(35)]), 4)


@pytest.mark.parametrize(
    ("test", "timed", "kind", "words"),
    [
        ("60d", False, UsageError, "rows have no time"),
        ("100%", True, UsageError, "leaves nothing"),
        ("soon", True, UsageError, "not a duration"),
        ("120d", True, DataError, "train rows would be 0"),
        ("1h", True, DataError, "test rows would be 1"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(test, timed, kind, words):
    at = np.arange(100) * DAY if timed else None
    with pytest.raises(kind, match=words):
        split(rows_with(at, np.arange(100) % 2), evaluation_policy(EvaluationSpec(test=test)))


def test_a_split_that_the_delay_of_labels_leaves_no_row_says_so():
    at = np.arange(40) * DAY
    rows = rows_with(at, np.arange(40) % 2, known=at + 20 * DAY)
    with pytest.raises(DataError, match="train rows would be 6") as refused:
        split(rows, evaluation_policy(EvaluationSpec(test="14d")))
    assert "training ends 20d before the test" in refused.value.hint


def test_a_test_of_one_class_is_refused():
    target = np.r_[np.arange(80) % 2, np.zeros(20)]
    with pytest.raises(DataError, match='all 20 test rows are of class "0"'):
        split(rows_with(np.arange(100) * DAY, target), EvaluationPolicy())
