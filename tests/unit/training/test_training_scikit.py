"""scikit-learn estimators by name: fitted on numbers and texts with missing values, and served as they answer."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import DefinitionError, UserCodeError
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field
from cumulant.core.servable import Input
from cumulant.packaging.builder import build
from cumulant.servable.scorer import Scorer
from cumulant.training.dataset import TrainingSet
from cumulant.training.policy import EvaluationPolicy, TrainingPolicy
from cumulant.training.search.search import search
from cumulant.training.splits import split
from cumulant.training.trainers.scikit_trainer import ScikitTrainer, estimator_class
from cumulant.training.trainers.trainer import Problem, TrainingSample

FOREST = {"n_estimators": 20, "max_depth": 5}


def spec(target, name, **options):
    return TrainingPolicy(target=target, trainers=[name], time=None, folds=2, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name", "params"),
    [
        ("late", "sklearn:RandomForestClassifier", FOREST),
        ("kind", "sklearn:ExtraTreesClassifier", FOREST),
        ("amount", "sklearn:RandomForestRegressor", FOREST),
        ("amount", "sklearn:GradientBoostingRegressor", {"n_estimators": 20}),
        ("late", "sklearn:LogisticRegression", {"C": 0.5}),
        ("kind", "sklearn:MLPClassifier", {"max_iter": 20}),
        ("amount", "sklearn:KNeighborsRegressor", {}),
        ("late", "sklearn:HistGradientBoostingClassifier", {"max_iter": 30}),
        ("kind", "sklearn:HistGradientBoostingClassifier", {"max_iter": 10}),
        ("amount", "sklearn:HistGradientBoostingRegressor", {"max_iter": 30}),
        ("amount", "sklearn:HistGradientBoostingRegressor", {"max_iter": 30, "loss": "absolute_error"}),
    ],
)
def test_the_package_answers_as_the_trained_model(target, name, params, table, rows_of, tmp_path):
    parts = split(rows_of(target, table), EvaluationPolicy())
    found = search(parts.train, spec(target, name, parameters={name: params}))
    assert found.summary.trainer == name
    features = [FeatureSpec(field, "float" if field != "shop" else "str") for field in parts.test.features.columns]
    plan = FeaturePlan("rows", None, {}, tuple(features), tuple(Field(one.name, one.dtype) for one in features))
    made = build(found.best, plan, name="m", sample=parts.test.features, out=tmp_path / "m", lineage={}, example={})
    assert made.parity.rows == len(parts.test)
    unseen = parts.test.features.head(5).with_columns(shop=pl.lit("nowhere"), x=pl.lit(None, pl.Float64))
    answers = Scorer(tmp_path / "m").score({name: unseen[name].to_list() for name in unseen.columns})
    np.testing.assert_allclose(answers, found.best.predict_frame(unseen), rtol=0, atol=1e-9)
    assert np.isfinite(answers).all()


def test_seed_and_rows_make_the_model(table, rows_of):
    train = split(rows_of("late", table), EvaluationPolicy()).train
    name = "sklearn:RandomForestClassifier"
    first, second = (search(train, spec("late", name, parameters={name: FOREST})).best for _ in range(2))
    assert first.onnx() == second.onnx()


@pytest.mark.parametrize(
    ("target", "name", "options", "said", "hint"),
    [
        ("late", "sklearn:RandomForrestClassifier", {}, "no estimator", "RandomForestClassifier"),
        ("late", "sklearn:StandardScaler", {}, "no estimator", ""),
        ("late", "sklearn:RandomForestRegressor", {}, "does not predict classes", "sklearn:RandomForestClassifier"),
        ("amount", "sklearn:GaussianNB", {}, "does not predict numbers", "estimator of numbers"),
        ("late", "sklearn:RandomForestClassifier", {"tress": 3}, 'no parameter "tress"', "parameters: "),
        ("late", "sklearn:LinearSVC", {}, "without probabilities", "LogisticRegression"),
        ("late", "sklearn:VotingClassifier", {}, "no estimator", ""),
        ("late", "sklearn:RandomForestClassifier", {"n_estimators": -3}, "n_estimators", "correct the value"),
        ("late", "sklearn:NearestCentroid", {}, "cannot convert it to ONNX", ""),
        ("late", "sklearn:HistGradientBoostingClassifier", {"max_iter": -1}, "max_iter", "correct the value"),
        ("amount", "sklearn:MultiTaskLasso", {}, "several targets", ""),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_what_to_write(target, name, options, said, hint, table, rows_of):
    train = split(rows_of(target, table), EvaluationPolicy()).train
    with pytest.raises((DefinitionError, UserCodeError), match=said) as caught:
        search(train, spec(target, name, parameters={name: options} if options else {}))
    assert hint in str(caught.value.hint)


def test_a_wrong_value_is_named_under_its_key(table, rows_of):
    train = split(rows_of("late", table), EvaluationPolicy()).train
    name = "sklearn:RandomForestClassifier"
    with pytest.raises(DefinitionError) as caught:
        search(train, spec("late", name, parameters={name: {"n_estimators": -3}}))
    assert caught.value.subject == f"training.parameters.{name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sklearn:RandomForestClassifier", "sklearn:LogisticRegression", "sklearn:HistGradientBoostingClassifier"]
)
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_class_may_be_absent_in_an_early_fold(task, name):
    rng = np.random.default_rng(3)
    target = np.r_[
        rng.integers(0, 2, 500) * (task == "multiclass"), rng.integers(0, 3 if task == "multiclass" else 2, 400)
    ]
    rows = TrainingSet(
        features=pl.DataFrame({"x": target + rng.normal(size=900), "z": rng.normal(size=900)}),
        target=target.astype(float),
        task=task,
        classes=("a", "b", "c")[: int(target.max()) + 1],
        at=(np.arange(900) * 86_400_000_000 // 10).astype(np.int64),
        rows=np.arange(900),
    )
    wanted = TrainingPolicy(
        target="y",
        trainers=[name],
        time=None,
        folds=3,
        parameters={name: FOREST if "Random" in name else {"max_iter": 20 if "Hist" in name else 200}},  # type: ignore[dict-item]
    )
    found = search(rows, wanted)
    assert [one.state for one in found.trials if one.trainer == name] == ["complete"]
    answers = found.best.predict_frame(rows.features.head(7))
    assert answers.shape == ((7, 3) if task == "multiclass" else (7,))


def test_absent_classes_get_no_probability():
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(300, 2)).astype(np.float32)
    inputs = tuple(Input(feature=name, kind="number") for name in ("x", "z"))
    problem = Problem(task="multiclass", classes=("a", "b", "c", "d"), inputs=inputs, metric="log_loss")
    target = np.where(matrix[:, 0] > 0, 3.0, 1.0)
    trainer = ScikitTrainer("sklearn:RandomForestClassifier")
    answers = trainer.fit(problem, FOREST, TrainingSample(matrix=matrix, target=target)).payload.predict(matrix)
    assert answers.shape == (300, 4)
    assert not answers[:, [0, 2]].any()
    np.testing.assert_array_equal(answers.argmax(axis=1), target)
    alone = trainer.fit(problem, FOREST, TrainingSample(matrix=matrix, target=np.full(300, 2.0))).payload.predict(
        matrix
    )
    np.testing.assert_array_equal(alone, np.tile([0, 0, 1, 0], (300, 1)))


def test_weights_are_used_or_refused(table, rows_of):
    train = split(rows_of("late", table), EvaluationPolicy()).train
    heavy = np.where(train.target == 1, 50.0, 1.0)
    from dataclasses import replace

    weighted = replace(train, weight=heavy)
    name = "sklearn:LogisticRegression"
    plain = search(train, spec("late", name, calibration="none")).best.predict_frame(train.features).mean()
    assert search(weighted, spec("late", name, calibration="none")).best.predict_frame(train.features).mean() > plain
    with pytest.raises(DefinitionError, match="takes no weights"):
        search(weighted, spec("late", "sklearn:KNeighborsClassifier"))


def test_plan_refuses_a_wrong_name_before_any_data():
    assert estimator_class("sklearn:RandomForestClassifier").__name__ == "RandomForestClassifier"
    with pytest.raises(DefinitionError, match="no estimator"):
        estimator_class("sklearn:RandomForrestClassifier")
    with pytest.raises(DefinitionError, match="without probabilities"):
        ScikitTrainer("sklearn:SGDClassifier").check_probabilities({})
    ScikitTrainer("sklearn:SGDClassifier").check_probabilities({"loss": "log_loss"})
