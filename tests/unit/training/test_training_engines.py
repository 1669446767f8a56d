"""XGBoost, CatBoost and the multilayer perceptron as trainers: searched, repeatable, and served as they answer."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import DefinitionError, MissingPartError
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field
from cumulant.core.servable import Input
from cumulant.packaging.builder import build
from cumulant.servable.scorer import Scorer
from cumulant.training.model import FittedModel
from cumulant.training.policy import EvaluationPolicy, TrainingPolicy
from cumulant.training.records import TrialRecord
from cumulant.training.search.budget import SearchBudget
from cumulant.training.search.final_model import final_rounds
from cumulant.training.search.refit import refit
from cumulant.training.search.search import search
from cumulant.training.spec import Parameter
from cumulant.training.splits import split
from cumulant.training.trainers.trainer import Problem, TrainingSample
from cumulant.training.trainers.trainer_checks import check_trainers
from cumulant.training.trainers.trainer_lookup import make_trainer

SMALL: dict[str, dict[str, Parameter]] = {
    "xgboost": {"max_depth": 2},
    "catboost": {"depth": 2},
    "mlp": {"width": 16, "learning_rate": 0.01},
}
#: of how many rows one is enough where no accuracy is asked for
FEWER = {"xgboost": 2, "catboost": 2, "mlp": 3}
ENGINES = ["xgboost", "catboost", "mlp"]


def skip_absent(name):
    """The perceptron is scikit-learn's, which is always there."""
    if name != "mlp":
        pytest.importorskip(name)


def spec(target, name, **options):
    skip_absent(name)
    return TrainingPolicy(target=target, **{"trainers": [name], "time": None, "folds": 2, "trials": 2} | options)


def trained(target, name, table, rows_of, **options):
    parts = split(rows_of(target, table), EvaluationPolicy())
    return search(parts.train, spec(target, name, **options)), parts.test


def packaged(model, features, folder):
    fields = [FeatureSpec(field, "str" if field == "shop" else "float") for field in features.columns]
    plan = FeaturePlan("rows", None, {}, tuple(fields), tuple(Field(one.name, one.dtype) for one in fields))
    return build(model, plan, name="m", sample=features, out=folder, lineage={}, example={})


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("late", {}),
        ("kind", {}),
        ("amount", {}),
        ("amount", {"metric": "mae"}),
        ("amount", {"metric": "pinball_90"}),
    ],
)
def test_the_servable_answers_as_the_trained_model(name, target, options, table, rows_of, tmp_path):
    few = {"trials": 1, "parameters": {name: SMALL[name]}}
    found, test = trained(target, name, table[:: FEWER[name]], rows_of, **few | options)
    assert found.summary.trainer == name
    assert found.summary.members == 3
    made = packaged(found.best, test.features, tmp_path / "m")
    assert made.parity.max_difference <= 1e-6
    shop = pl.Series(["nowhere", None, "south", "north", "east"])
    unseen = test.features.head(5).with_columns(shop=shop, x=pl.Series([None, 1.0, None, 1e30, -1e30]))
    answers = Scorer(tmp_path / "m").score({column: unseen[column].to_list() for column in unseen.columns})
    np.testing.assert_allclose(answers, found.best.predict_frame(unseen), rtol=1e-6, atol=1e-6)
    again = FittedModel.from_folder(found.best.to_folder(tmp_path / "kept"))
    np.testing.assert_array_equal(again.predict_frame(unseen), found.best.predict_frame(unseen))


@pytest.mark.parametrize("name", ENGINES)
def test_equal_seed_and_rows_make_an_equal_model(name, table, rows_of):
    few = table[:: FEWER[name]]
    first, second = (trained("late", name, few, rows_of, parameters={name: SMALL[name]})[0] for _ in range(2))
    assert first.best.boosters() == second.best.boosters()
    assert [one.score for one in first.trials] == [one.score for one in second.trials]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_it_learns_what_lightgbm_learns(name, table, rows_of):
    found, _ = trained("late", name, table, rows_of, trainers=["lightgbm", name], trials=3)
    assert found.summary.scores[name] < found.summary.scores["naive"]
    assert found.summary.scores[name] < 1.03 * found.summary.scores["lightgbm"]
    assert set(found.summary.importance) == {"x", "z", "busy", "shop"}


def sample(rows=400, *, seed=5):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 3)).astype(np.float32)
    matrix[:, 2] = rng.integers(0, 6, rows)
    matrix[rng.random((rows, 3)) < 0.1] = np.nan
    inputs = (Input("x", "number"), Input("z", "number"), Input("shop", "category", categories=tuple("abcdef")))
    score = np.nan_to_num(matrix[:, 0]) + 2 * (matrix[:, 2] == 3) + 1.5 * np.isnan(matrix[:, 1])
    return matrix, inputs, score + rng.normal(size=rows) / 2


def test_symmetric_trees_answer_as_catboost_does():
    catboost = pytest.importorskip("catboost")
    from cumulant.training.trainers import catboost_trainer

    matrix, inputs, score = sample()
    for task, target in (("regression", 1e6 + 100 * score), ("multiclass", np.digitize(score, [0.0, 1.0]) + 0.0)):
        classes = ("a", "b", "c") if task == "multiclass" else ()
        problem = Problem(task=task, classes=classes, inputs=inputs, metric="rmse")
        places = catboost_trainer._classes(problem, TrainingSample(matrix=matrix, target=target))
        pool = catboost_trainer._pool(problem, TrainingSample(matrix=matrix, target=target), places)
        model = catboost.CatBoost(catboost_trainer._settings(problem, {}, 30))
        model.fit(pool)
        kind = "Probability" if classes else "RawFormulaVal"
        answers = catboost_trainer._trees(model, pool, problem, places).predict(matrix)
        expected = np.asarray(model.predict(pool, prediction_type=kind)).reshape(answers.shape)
        np.testing.assert_allclose(answers, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ENGINES)
def test_a_class_may_be_absent_and_a_column_constant(name):
    skip_absent(name)
    matrix, inputs, score = sample(400 if name != "mlp" else 160)
    matrix[:, 1] = np.nan
    trainer, train, rest = make_trainer(name, Path()), np.arange(len(matrix) * 3 // 4), len(matrix) // 4
    for task, classes, target in (
        ("binary", ("false", "true"), np.ones(len(matrix))),
        ("multiclass", ("a", "b", "c", "d"), np.where(score > 0, 3.0, 1.0)),
        ("multiclass", ("a", "b", "c"), np.full(len(matrix), 2.0)),
    ):
        problem = Problem(task=task, classes=classes, inputs=inputs, metric="log_loss")
        rows = TrainingSample(matrix=matrix, target=target)
        answers = trainer.fit(problem, {"rounds": 60, **SMALL[name]}, rows).payload.predict(matrix)
        judged = trainer.judge(
            problem, SMALL[name], rows.take(train), rows.take(train[-1] + 1 + np.arange(rest))
        ).answers
        for found, truth in ((answers, target), (judged, target[-rest:])):
            chance = found if task == "binary" else found[np.arange(len(found)), truth.astype(int)]
            assert chance.mean() > 0.65


@pytest.mark.parametrize("name", ENGINES)
def test_weights_move_the_answers(name):
    skip_absent(name)
    matrix, inputs, score = sample()
    target = (score > 1).astype(float)
    problem = Problem(task="binary", classes=("false", "true"), inputs=inputs, metric="log_loss")
    trainer, params = make_trainer(name, Path()), {"rounds": 20, **SMALL[name]}
    means = [
        trainer.fit(problem, params, TrainingSample(matrix=matrix, target=target, weight=weight))
        .payload.predict(matrix)
        .mean()
        for weight in (None, np.where(target == 1, 20.0, 1.0))
    ]
    assert means[1] > means[0] + 0.05


@pytest.mark.parametrize("name", ENGINES)
def test_a_fit_ends_with_the_rounds_it_has_when_the_time_is_over(name):
    skip_absent(name)
    matrix, inputs, score = sample()
    looks = iter([1.0] * 3 + [0.0] * 1000)
    problem = Problem(task="regression", classes=(), inputs=inputs, metric="rmse", seconds_left=lambda: next(looks))
    fit = make_trainer(name, Path()).fit(problem, {"rounds": 500}, TrainingSample(matrix=matrix, target=score))
    assert fit.cut
    assert 0 < fit.rounds < 40


def test_an_absent_extra_is_refused_with_its_install_line(monkeypatch):
    for name in set(ENGINES) - {"mlp"}:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingPartError) as caught:
            make_trainer(name, Path())
        assert f"cumulant[{name}]" in str(caught.value.hint)


def test_the_time_of_the_search_is_shared_by_the_trainers():
    now = [0.0]
    budget = SearchBudget(100, clock=lambda: now[0])
    whole = budget.left_for_search()
    budget.share_with(2)
    assert budget.left_for_search() == pytest.approx(whole / 3)
    now[0] += whole / 3
    budget.share_with(1)
    assert budget.left_for_search() == pytest.approx(whole / 3)
    budget.share_with(0)
    assert budget.left_for_search() == pytest.approx(2 * whole / 3)


def test_what_the_final_fit_does_not_need_is_shared_by_all_searches():
    now = [0.0]
    budget = SearchBudget(100, clock=lambda: now[0])
    budget.share_with(3)
    now[0] += 2
    budget.reserve(1, at_most=1)
    assert budget.left_for_search() == pytest.approx((97 - 1) / 4 - 2)
    now[0] += budget.left_for_search()
    budget.share_with(2)
    assert budget.left_for_search() == pytest.approx((97 - 1) / 4)


@pytest.mark.parametrize("name", ENGINES)
def test_a_search_that_the_clock_cut_is_repeated_exactly(name, table, rows_of, tmp_path):
    rows = split(rows_of("late", table), EvaluationPolicy()).train
    wanted = spec("late", name, time=timedelta(milliseconds=1), trials=5)
    found = search(rows, wanted)
    again = refit(rows, wanted, found.summary, found.trials)
    assert again.to_folder(tmp_path / "b").joinpath("model.json").read_bytes() == (
        found.best.to_folder(tmp_path / "a").joinpath("model.json").read_bytes()
    )
    assert again.boosters() == found.best.boosters()


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"xgboost": {"max_dept": 3}}, "max_dept"),
        ({"xgboost": {"max_depth": "deep"}}, "max_depth"),
        ({"catboost": {"depht": 3}}, "depht"),
        ({"catboost": {"depth": 99}}, "16"),
        ({"mlp": {"widht": 3}}, "widht"),
        ({"mlp": {"layers": 3}}, "layers"),
        ({"mlp": {"alpha": -1}}, "alpha"),
    ],
)
def test_parameters_that_an_engine_does_not_take_are_refused_before_data_are_read(params, said):
    settings = spec("y", *params, parameters=params)
    with pytest.raises(DefinitionError, match=said):
        check_trainers(settings, "binary", ("no", "yes"), root=Path())


@pytest.mark.parametrize(
    "params", [{"objective": "cross_entropy"}, {"monotone_constraints": "1,0,-1"}, {"feature_contri": "1,0.5,1"}]
)
def test_parameters_that_fit_the_rows_only_are_left_to_the_training(params):
    settings = spec("y", "lightgbm", parameters={"lightgbm": params})
    check_trainers(settings, "regression", (), root=Path())


@pytest.mark.parametrize(("name", "rounds"), [("lightgbm", 133), ("mlp", 100)])
def test_trees_grow_with_the_rows_and_passes_over_them_do_not(name, rounds, tmp_path):
    assert (
        final_rounds(make_trainer(name, tmp_path), TrialRecord(number=1, trainer=name, rounds=(90, 110)), 4 / 3)
        == rounds
    )


@pytest.mark.parametrize(
    ("timed", "folds", "growth"), [(False, 8, 8 / 7), (False, 2, 4 / 3), (True, 4, 1)], ids=["8", "2", "by time"]
)
def test_trees_of_all_rows_have_more_rounds_than_those_of_random_folds(timed, folds, growth, table, rows_of):
    """By the rows, and by no more than four folds leave out."""
    rows = rows_of("late", table, timed=timed)
    found = search(rows, spec("late", "lightgbm", folds=folds))
    taken = {record.number: np.mean(record.rounds) for record in found.trials}
    assert len(found.summary.boosters) == 3
    for booster in found.summary.boosters:
        assert booster.rounds == pytest.approx(growth * taken[booster.trial], abs=0.51 + 0.01 * booster.rounds)
