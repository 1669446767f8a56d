"""Searches from end to end on small tables: tasks, budgets, trainers, and a process that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from conftest import make_rows, make_table
from cumulant.core.errors import DefinitionError, StorageError, UsageError, UserCodeError
from cumulant.statistics import METRICS, Rows
from cumulant.training.model import FittedModel
from cumulant.training.policy import EvaluationPolicy, TrainingPolicy
from cumulant.training.records import TrainingSummary, TrialRecord
from cumulant.training.search.cross_validation import CrossValidation
from cumulant.training.search.proposals import hopeless, propose
from cumulant.training.search.search import search
from cumulant.training.splits import split

HERE = Path(__file__).parent


def small(target, **options):
    """Few, short trials without a clock, so that results repeat."""
    defaults = {"trials": 4, "time": None, "folds": 2, "parameters": {"lightgbm": {"learning_rate": 0.2}}}
    return TrainingPolicy(target=target, **defaults | options)


def parts_of(rows_of, table, target, *, timed=True):
    return split(rows_of(target, table, timed=timed), EvaluationPolicy())


@pytest.mark.slow
@pytest.mark.parametrize(("target", "metric"), [("late", "log_loss"), ("kind", "log_loss"), ("amount", "rmse")])
@pytest.mark.parametrize("timed", [True, False])
def test_every_task_goes_the_same_way_and_beats_naive(target, metric, timed, table, rows_of):
    parts = parts_of(rows_of, table, target, timed=timed)
    told, said, folds = [], [], []
    found = search(
        parts.train,
        small(target),
        on_trial=told.append,
        on_fold=folds.append,
        progress=lambda text, share=None: said.append(text),
    )
    assert found.summary.metric == metric
    assert [record.trainer for record in found.trials] == ["naive", "linear", *["lightgbm"] * 4]
    assert told == list(found.trials)
    # each fold of each trial, in order, but for the one with which the trial ends
    assert [(fold.number, fold.scores, fold.folds) for fold in folds] == [
        (record.number, record.scores[:count], len(found.summary.folds))
        for record in found.trials
        for count in range(1, len(record.scores))
    ]
    assert said[:3] == ["trying naive", "trying linear", "trying lightgbm"]
    assert said[3].startswith(f"lightgbm: trial 1 of 4, best {metric.replace('_', ' ')} ")
    assert said[-1].startswith("final fit")
    truth = parts.test.target
    ours = METRICS[metric].value(Rows(truth=truth, prediction=found.best.predict_frame(parts.test.features)))
    base = METRICS[metric].value(Rows(truth=truth, prediction=found.naive.predict_frame(parts.test.features)))
    assert ours < 0.9 * base
    assert found.summary.scores["naive"] > found.summary.score
    assert (found.best.threshold == 0.5) is (target == "late")
    assert {"x", "shop"} <= set(found.best.importance)
    assert sum(found.best.importance.values()) == pytest.approx(1)
    assert any("no time" in note for note in found.summary.notes) is not timed
    text = msgspec.json.encode(found.summary)
    assert msgspec.json.decode(text, type=TrainingSummary) == found.summary


def test_equal_searches_give_equal_models_whatever_the_threads(table, rows_of, tmp_path):
    train = parts_of(rows_of, table, "late").train
    for name, threads in (("one", 1), ("two", 2), ("three", 3)):
        search(train, small("late", trainers=["lightgbm"], threads=threads)).best.to_folder(tmp_path / name)
    contents = [
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two", "three")
    ]
    assert contents[0] == contents[1] == contents[2]
    other = search(train, small("late", trainers=["lightgbm"], seed=1)).best.to_folder(tmp_path / "other")
    assert {file.name: file.read_bytes() for file in other.iterdir()} != contents[0]


PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
from test_training_search import killed_search
scratch, last, wait, jobs = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
def told(record):
    print(record.number, flush=True)
    if record.number == last:
        threading.Timer(wait, os.kill, (os.getpid(), signal.SIGKILL)).start()
killed_search(scratch, told, jobs)
"""


def killed_search(scratch, on_trial, jobs):
    """Of a process that is killed, and of one that is not."""
    spec = small("late", trials=6, trainers=["lightgbm"], jobs=jobs, threads=jobs)
    return search(make_rows("late", make_table()), spec, scratch=scratch, on_trial=on_trial)


def run_killed(scratch, *, last, wait=0.0, jobs=1):
    """Numbers of the trials told; the process is killed, with no chance to tidy up, `wait` seconds after `last`."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(scratch), str(last), str(wait), str(jobs)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    return [int(line) for line in ended.stdout.split()]


def run_search(scratch, out, *, jobs=1):
    """Numbers of the trials told of a search that ends by itself."""
    numbers = []
    killed_search(scratch, lambda record: numbers.append(record.number), jobs).best.to_folder(out)
    return numbers


def told(folder):
    """The journal without times."""
    lines = (folder / "trials.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": 0} for line in lines[1:]]


@pytest.mark.slow
def test_a_killed_search_ends_as_an_undisturbed_one(tmp_path):
    calm = run_search(tmp_path / "calm", tmp_path / "model")
    assert calm == list(range(7))
    told_before = []
    for last, wait in ((1, 0.0), (3, 0.02)):
        told_before += run_killed(tmp_path / "torn", last=last, wait=wait)
    with (tmp_path / "torn" / "trials.jsonl").open("ab") as stream:
        stream.write(b'{"number":99,"trai')  # a line that was being written
    told_before += run_search(tmp_path / "torn", tmp_path / "again")
    assert len(set(told_before)) == len(told_before)  # no finished trial is done twice
    assert told(tmp_path / "torn") == told(tmp_path / "calm")
    for file in (tmp_path / "model").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_two_trials_beside_each_other_are_each_done_once(table, rows_of, tmp_path):
    train = parts_of(rows_of, table, "late").train
    spec = small("late", trials=9, trainers=["lightgbm"], jobs=2, threads=2)
    told, together, running = [], [], set()
    judge = CrossValidation.run

    def watched(folds, trainer, params, *, number, **options):
        running.add(number)
        together.append(len(running))
        try:
            return judge(folds, trainer, params, number=number, **options)
        finally:
            running.discard(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CrossValidation, "run", watched)
        found = search(train, spec, scratch=tmp_path, on_trial=told.append)
    assert max(together) == 2
    assert sorted(record.number for record in found.trials) == list(range(10))
    assert told == list(found.trials)
    assert found.summary.trials == 9, "naive is fitted as it is, and no trial"
    complete = [record for record in found.trials if record.state == "complete"]
    assert {record.state for record in found.trials} <= {"complete", "pruned"}
    assert all(len(record.scores) == 2 and record.score is not None for record in complete)
    assert found.summary.best_trial in {record.number for record in complete}
    assert found.summary.scores["naive"] > found.summary.score
    again = []
    search(train, spec, scratch=tmp_path, on_trial=again.append)
    assert again == []  # everything was found


@pytest.mark.slow
def test_a_killed_search_of_two_jobs_goes_on(tmp_path):
    before = run_killed(tmp_path / "torn", last=3, jobs=2)
    after = run_search(tmp_path / "torn", tmp_path / "model", jobs=2)
    assert before
    assert len(set(before + after)) == len(before + after)  # no finished trial is done twice
    assert sorted(one["number"] for one in told(tmp_path / "torn")) == list(range(7))


def test_an_interrupted_search_of_two_jobs_ends_soon_and_goes_on(table, rows_of, tmp_path):
    train = parts_of(rows_of, table, "late").train
    spec = small("late", trials=6, trainers=["lightgbm"], jobs=2, threads=2)

    def interrupt(record):
        if record.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(train, spec, scratch=tmp_path, on_trial=interrupt)
    done = [one["number"] for one in told(tmp_path)]
    assert 2 in done
    again = []
    found = search(train, spec, scratch=tmp_path, on_trial=again.append)
    assert sorted([*done, *(record.number for record in again)]) == list(range(7))
    assert "cut" not in {record.state for record in found.trials}  # what the interrupt stopped was not kept


def test_scratch_of_another_search_is_not_used(table, rows_of, tmp_path):
    train = parts_of(rows_of, table, "late").train
    spec = small("late", trials=1, trainers=["lightgbm"])
    again = []
    for seed in (0, 0, 1):
        search(train, msgspec.structs.replace(spec, seed=seed), scratch=tmp_path, on_trial=again.append)
    assert [record.number for record in again] == [0, 1, 0, 1]  # the second call found everything done


def test_scratch_that_cannot_be_written_is_told(table, rows_of, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match="taken"):
        search(parts_of(rows_of, table, "late").train, small("late"), scratch=tmp_path / "taken")


def test_the_time_budget_ends_a_search(table, rows_of):
    train = parts_of(rows_of, table, "late").train
    start = time.monotonic()
    found = search(train, TrainingPolicy(target="late", time=timedelta(seconds=2), trials=500))
    assert len(found.trials) < 500
    assert time.monotonic() - start < 60  # ample: other work may hold the machine
    assert isinstance(found.best, FittedModel)
    hurried = search(train, TrainingPolicy(target="late", time=timedelta(milliseconds=1)))
    assert hurried.best.kind == "lightgbm"
    assert any("time was over" in note for note in hurried.summary.notes)


def test_the_champions_parameters_are_tried_first(table, rows_of):
    train = parts_of(rows_of, table, "late").train
    champion = {"num_leaves": 5, "learning_rate": 0.9, "rounds": 7, "gone": 1}
    found = search(train, small("late", trials=1, parameters={}), champion=champion)
    tried = found.trials[2].params
    assert tried["num_leaves"] == 5
    assert tried["learning_rate"] == 0.2  # moved to the end of what is searched
    assert "gone" not in tried


def test_rare_positives_are_searched_by_average_precision_on_weighted_samples(table, rows_of, monkeypatch):
    from cumulant.training.search import cross_validation

    generator = np.random.default_rng(0)
    rare = table.with_columns(late=(pl.col("x").fill_nan(0) > 1) & pl.Series(generator.random(len(table)) < 0.3))
    train = parts_of(rows_of, rare, "late").train
    monkeypatch.setattr(cross_validation, "SEARCH_ROWS", 300)
    found = search(train, small("late", trials=2))
    assert found.summary.metric == "average_precision"
    assert [fold.train for fold in found.summary.folds] == [300, 300]
    assert found.summary.score > 2 * found.summary.scores["naive"]
    # weights keep the level: the mean prediction is the rate
    assert found.best.predict_frame(train.features).mean() == pytest.approx(train.rate, rel=0.25)


@pytest.mark.parametrize("metric", ["roc_auc", "brier", "average_precision"])
def test_another_metric_can_be_followed(metric, table, rows_of):
    found = search(parts_of(rows_of, table, "late").train, small("late", trials=1, metric=metric))
    assert found.summary.metric == metric


@pytest.mark.parametrize("metric", ["mae", "pinball_90"])
def test_regressions_fit_the_loss_that_is_asked_for(metric, table, rows_of):
    train = parts_of(rows_of, table, "amount").train
    found = search(train, small("amount", trials=1, metric=metric, trainers=["lightgbm"]))
    if metric == "pinball_90":
        above = (train.target <= found.best.predict_frame(train.features)).mean()
        assert 0.8 < above < 0.97


@pytest.mark.parametrize(
    ("options", "words", "hint"),
    [
        ({"metric": "accuracie"}, "cannot follow", "average_precision"),
        ({"metric": "rmse"}, "cannot follow", "average_precision"),
        ({"metric": "f1"}, "cannot follow", "average_precision"),
        ({"trainers": ["ligthgbm"]}, 'no trainer "ligthgbm"', 'did you mean "lightgbm"'),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, words, hint, table, rows_of):
    with pytest.raises(UsageError, match=words) as caught:
        search(parts_of(rows_of, table, "late").train, small("late", **options))
    assert hint in caught.value.hint


TRAINERS = '''
"""Trainers of a user."""
import polars as pl


def forest(X, y, *, task, seed, categorical):
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    assert categorical == ["shop"]
    kind = RandomForestRegressor if task == "regression" else RandomForestClassifier
    model = kind(n_estimators=20, max_depth=5, random_state=seed)
    return make_pipeline(SimpleImputer(strategy="constant", fill_value=-9.0), model).fit(X.to_numpy(), y)


def filled(X, y):
    from sklearn.ensemble import RandomForestClassifier
    return RandomForestClassifier(n_estimators=20, random_state=0).fit(X.fillna(-9).to_numpy(), y)


def boosted(X: pl.DataFrame, y, **context):
    import lightgbm
    assert X.columns == ["x", "z", "busy", "shop", "same"]
    model = lightgbm.LGBMClassifier(n_estimators=context["parameters"].get("trees", 10), verbose=-1, n_jobs=1)
    return model.fit(X.to_numpy(), y)


def broken(X, y):
    half = len(X) / 2
    return X.loc[:, "nothing"]


def text(X, y):
    return "a model"


def odd(X, y):
    return b"no graph"
'''


@pytest.fixture
def root(tmp_path):
    (tmp_path / "trainers.py").write_text(TRAINERS)
    (tmp_path / "syntax.py").write_text("def fit(X, y)\n    pass\n")
    return tmp_path


@pytest.mark.parametrize("target", ["late", "kind", "amount"])
def test_a_users_estimator_becomes_a_graph(target, table, rows_of, root, tmp_path):
    parts = parts_of(rows_of, table, target)
    found = search(parts.train, small(target, trainers=["trainers.py:forest"]), root=root)
    assert found.best.kind == "onnx"
    assert found.best.onnx()
    assert len(found.trials) == 2
    answers = found.best.predict_frame(parts.test.features)
    back = FittedModel.from_folder(found.best.to_folder(tmp_path / "m"))
    np.testing.assert_array_equal(back.predict_frame(parts.test.features), answers)
    sign = -1 if target == "amount" else 1
    assert sign * found.summary.score < sign * found.summary.scores["naive"] or target == "amount"


def test_a_users_booster_is_kept_as_one(table, rows_of, root):
    path = "trainers.py:boosted"
    train = parts_of(rows_of, table, "late").train
    found = search(train, small("late", trainers=[path], parameters={path: {"trees": 3}}), root=root)
    assert found.best.kind == "lightgbm"
    assert found.best.boosters()[0].count("Tree=") == 3


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("trainers.py:broken", UserCodeError, r"raised KeyError at trainers.py, line 30"),
        ("syntax.py:fit", UserCodeError, r"raised SyntaxError at syntax.py, line 1"),
        ("trainers.py:filled", DefinitionError, "answers differently"),
        ("trainers.py:text", DefinitionError, "returned str"),
        ("trainers.py:odd", DefinitionError, "does not run"),
        ("trainers.py:nothing", DefinitionError, "has no function nothing"),
        ("nowhere.py:fit", DefinitionError, "no file nowhere.py"),
        ("no.such.module:fit", DefinitionError, "no module no.such.module"),
    ],
)
def test_a_trainer_that_cannot_be_used_is_told_with_its_place(path, kind, words, table, rows_of, root):
    with pytest.raises(kind, match=words):
        search(parts_of(rows_of, table, "late").train, small("late", trainers=[path]), root=root)


def space(trial):
    return {"a": trial.suggest_float("a", 0.1, 10, log=True), "b": trial.suggest_categorical("b", [255, 1023])}


def test_proposals_depend_on_finished_trials_and_number_only():
    records = []
    for number in range(40):
        params = propose(
            number, finished=records, first=[{"a": 99.0, "b": 800}], space=space, larger_is_better=False, seed=5
        )
        again = propose(
            number, finished=list(records), first=[{"a": 99.0, "b": 800}], space=space, larger_is_better=False, seed=5
        )
        assert params == again
        score = (np.log(params["a"]) - 1) ** 2
        records.append(TrialRecord(number=number, trainer="t", params=params, score=score, scores=(score,)))
    assert records[0].params == {"a": 10.0, "b": 1023}  # moved into the space
    assert len({record.params["a"] for record in records}) == 40
    assert np.median([record.score for record in records[20:]]) < np.median([record.score for record in records[1:9]])


def test_a_trial_is_given_up_below_the_middle():
    finished = [TrialRecord(number=n, trainer="t", scores=(0.5 + n / 10, 0.6)) for n in range(3)]
    assert hopeless([0.55], finished, larger_is_better=True)
    assert not hopeless([0.65], finished, larger_is_better=True)
    assert hopeless([0.65], finished, larger_is_better=False)
    assert not hopeless([0.0], finished[:2], larger_is_better=True)
