"""A model made again from the records of its search, whatever the clock decided in it."""

import itertools
import math
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cumulant.core.errors import IntegrityError
from cumulant.core.units import duration
from cumulant.training.policy import EvaluationPolicy, TrainingPolicy
from cumulant.training.records import TrainingSummary, TrialRecord
from cumulant.training.search.budget import SearchBudget, clock_notes, clock_warnings
from cumulant.training.search.cross_validation import prepare_folds
from cumulant.training.search.refit import refit
from cumulant.training.search.search import search
from cumulant.training.search.search_metric import searched_metric
from cumulant.training.spec import SEARCHED
from cumulant.training.splits import split
from cumulant.training.trainers.trainer_lookup import make_trainer

pytestmark = pytest.mark.slow

#: many rounds draw rows and features that allow no split, and the rounds after them others
HARD_TO_SPLIT = {
    "learning_rate": 0.1,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.5,
    "min_data_in_leaf": 120,
    "extra_trees": True,
}


def files(model, folder):
    return {file.name: file.read_bytes() for file in model.to_folder(folder).iterdir()}


def train_rows(rows_of, table, target="late"):
    return split(rows_of(target, table), EvaluationPolicy()).train


def again(found, rows, spec):
    """The model from what JSON keeps of the search."""
    summary = msgspec.json.decode(msgspec.json.encode(found.summary), type=TrainingSummary)
    return refit(rows, spec, summary, found.trials)


@pytest.mark.parametrize("target", ["late", "kind", "amount"])
@pytest.mark.parametrize("time", ["1s", "1ms"])
def test_a_search_that_the_clock_cut_is_repeated_exactly(target, time, table, rows_of, tmp_path):
    rows = train_rows(rows_of, table, target)
    spec = TrainingPolicy(target=target, time=duration(time), trials=500, folds=2, trainers=["lightgbm"])
    found = search(rows, spec)
    assert len(found.trials) < 500
    assert (found.summary.ended_by, found.summary.trials_wanted) == ("time", 500)
    assert any(f"the time of {time} ended this search" in note for note in found.summary.notes)
    assert found.summary.members == len(found.summary.boosters) > 0
    assert files(again(found, rows, spec), tmp_path / "again") == files(found.best, tmp_path / "first")


@pytest.mark.parametrize("target", ["late", "kind", "amount"])
@pytest.mark.parametrize("name", SEARCHED)
def test_answers_of_a_fit_that_the_clock_ended_at_any_look_are_repeated(name, target, table, rows_of):
    rows = train_rows(rows_of, table, target)
    spec = TrainingPolicy(target=target, time=None, folds=2, trainers=[name])
    folds, _, _ = prepare_folds(rows, spec, searched_metric(spec, rows))
    trainer, (train, validate) = make_trainer(name, Path()), folds.sample(0)
    params = (
        HARD_TO_SPLIT if name == "lightgbm" else trainer.first_points(rows=len(rows), rate=None, categories=True)[0]  # type: ignore[attr-defined]
    )
    if name == "mlp":
        params |= {"learning_rate": 0.02}  # ends after fewer passes
    for looks in (*range(8), math.inf):
        times = itertools.chain(itertools.repeat(1.0, looks), itertools.repeat(0.0)) if looks < math.inf else None
        left = (lambda: math.inf) if times is None else partial(next, times)
        judged = trainer.judge(replace(folds.problem, seconds_left=left), params, train, validate)
        assert judged.cut is (times is not None)
        again = trainer.answers_again(folds.problem, params, train, validate, rounds=judged.rounds)  # type: ignore[attr-defined]
        assert np.array_equal(again, judged.answers), f"cut at look {looks}"


def test_what_the_clock_decided_is_said_and_nothing_where_trials_ended_the_search(table, rows_of):
    rows = train_rows(rows_of, table)
    for time in (None, timedelta(hours=1)):
        spec = TrainingPolicy(target="late", time=time, trials=2, folds=2, trainers=["lightgbm"])
        summary = search(rows, spec).summary
        assert (summary.ended_by, summary.trials_wanted) == ("trials", 2)
        assert not any("ended this search" in note for note in summary.notes)
    linear = search(
        rows, TrainingPolicy(target="late", time=timedelta(hours=1), trials=2, folds=2, trainers=["linear"])
    ).summary
    assert (linear.ended_by, linear.trials_wanted) == ("trials", 0)


def test_a_trial_that_had_to_finish_says_that_time_shortened_it(table, rows_of):
    rows = train_rows(rows_of, table)
    spec = TrainingPolicy(target="late", time=timedelta(milliseconds=1), trials=1, folds=2, trainers=["lightgbm"])
    found = search(rows, spec)
    assert any(one.shortened for one in found.trials)
    assert found.summary.ended_by == "time"
    assert "the time of 1ms was too short: lightgbm finished 1 of 1 trials, 1 of them cut short. Give more time" in (
        " ".join(found.summary.warnings)
    )


def trial(trainer, number, **options):
    return TrialRecord(number=number, trainer=trainer, **options)


def test_a_time_that_is_too_short_is_one_warning_with_what_to_do():
    hurried = [
        trial("naive", 0),
        trial("linear", 1, state="cut"),
        trial("lightgbm", 2, shortened=True),
        trial("xgboost", 32),
        trial("xgboost", 33, state="pruned"),
        trial("xgboost", 34, state="cut"),
        *(trial("mlp", 62 + number) for number in range(3)),
    ]
    searched = ["lightgbm", "xgboost", "mlp"]
    (warning,) = clock_warnings(timedelta(seconds=5), hurried, searched=searched, trials=30)
    assert warning == (
        "the time of 5s was too short: lightgbm finished 1 of 30 trials, 1 of them cut short;"
        " xgboost finished 2 of 30 trials; linear was not fitted."
        " Give more time (`train --time 2m`) or fewer trainers (`training.trainers`)"
    )
    (note,) = clock_notes(timedelta(seconds=5), hurried, searched=searched, trials=30)
    assert "--trials" not in note, "2 trials are too few to advise"
    (alone,) = clock_warnings(timedelta(hours=1), hurried[2:3], searched=["lightgbm"], trials=1)
    assert alone.endswith("Give more time (`train --time 3h`)")


def test_a_time_that_was_enough_for_a_search_is_no_warning():
    enough = [trial("naive", 0), *(trial("lightgbm", number) for number in range(1, 4))]
    assert clock_warnings(timedelta(seconds=5), enough, searched=["lightgbm"], trials=30) == ()
    (note,) = clock_notes(timedelta(seconds=5), enough, searched=["lightgbm"], trials=30)
    assert note.endswith("`train --trials 3`")
    assert clock_warnings(timedelta(seconds=5), enough[:2], searched=["lightgbm"], trials=1) == (), "one was asked for"
    assert clock_warnings(None, enough[:1], searched=[], trials=30) == ()


def test_boosters_that_the_clock_left_out_stay_out(table, rows_of, tmp_path, monkeypatch):
    rows = train_rows(rows_of, table)
    spec = TrainingPolicy(target="late", time=timedelta(hours=1), trials=3, folds=2, trainers=["lightgbm"], threads=1)
    looks = iter(range(10_000))
    # The time ends between the boosters of the final fit: the search asks another clock.
    with monkeypatch.context() as patch:
        patch.setattr(SearchBudget, "left", lambda _: 4.0 - next(looks))
        patch.setattr(SearchBudget, "left_for_search", lambda _: 60.0)
        found = search(rows, spec)
    assert 0 < found.summary.members < spec.ensemble
    assert any("boosters; the model averages these" in note for note in found.summary.notes)
    assert files(again(found, rows, spec), tmp_path / "again") == files(found.best, tmp_path / "first")


def test_trials_beside_each_other_and_other_trainers_are_repeated_too(table, rows_of, tmp_path):
    rows = train_rows(rows_of, table)
    for name, options in (("jobs", {"trainers": ["lightgbm"], "jobs": 2}), ("linear", {"trainers": ["linear"]})):
        spec = TrainingPolicy(target="late", time=None, trials=5, folds=2, **options)
        found = search(rows, spec)
        assert files(again(found, rows, spec), tmp_path / name) == files(found.best, tmp_path / f"{name}-first")


def test_a_record_without_its_trials_is_no_ground_to_repeat(table, rows_of):
    rows = train_rows(rows_of, table)
    spec = TrainingPolicy(target="late", time=None, trials=2, folds=2, trainers=["lightgbm"])
    found = search(rows, spec)
    with pytest.raises(IntegrityError, match="lacks trial 1"):
        refit(rows, spec, found.summary, [one for one in found.trials if one.number != 1])


def test_summaries_of_before_still_load(table, rows_of):
    rows = train_rows(rows_of, table)
    found = search(rows, TrainingPolicy(target="late", time=None, trials=1, folds=2, trainers=["lightgbm"]))
    old = msgspec.to_builtins(found.summary)
    del old["chosen"], old["boosters"], old["ended_by"], old["trials_wanted"]
    read = msgspec.convert(old, TrainingSummary)
    assert (read.chosen, read.boosters, read.ended_by) == ((), (), "trials")
