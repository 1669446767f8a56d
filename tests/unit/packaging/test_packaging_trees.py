"""LightGBM boosters and their ONNX form give the same answers, to the last bits of a float64."""

from __future__ import annotations

import lightgbm
import numpy as np
import onnxruntime
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging_models import Boosted, columns_of, numbers, plan_for

from cumulant.core.errors import DefinitionError
from cumulant.core.servable import Calibration
from cumulant.packaging.builder import build, to_onnx
from cumulant.servable.scorer import Scorer
from cumulant.training.model import FittedModel, ModelCard
from cumulant.training.payloads.encoding import derive_inputs, encode
from cumulant.training.payloads.payload import Boosters

CATEGORIES = 37


def rows(rng, count, *, missing=0.15):
    """Two continuous columns, one of few whole numbers, one of category codes."""
    matrix = rng.normal(size=(count, 4)).astype(np.float32)
    matrix[:, 2] = rng.integers(-2, 3, count)
    matrix[:, 3] = rng.integers(0, CATEGORIES, count)
    matrix[rng.random(matrix.shape) < missing] = np.nan
    return matrix


def train(matrix, rng, *, rounds=20, **params):
    filled = np.nan_to_num(matrix, nan=0.5)
    target = filled[:, 0] + np.sin(filled[:, 3] * 7) + filled[:, 1] * filled[:, 2] + rng.normal(0, 0.3, len(filled))
    objective = params.get("objective", "binary")
    if objective == "binary":
        target = target > np.median(target)
    elif objective.startswith("multiclass"):
        target = np.digitize(target, np.quantile(target, [0.3, 0.6]))
    elif objective in ("poisson", "gamma", "tweedie"):
        target = np.exp(np.clip(target, -2, 2))
    base = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5, "min_data_per_group": 3, "cat_smooth": 1.0}
    data = lightgbm.Dataset(matrix, np.asarray(target, float), categorical_feature=[3])
    return lightgbm.train(base | params, data, rounds).model_to_string()


def run_graph(model, matrix):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # as the scorer; several threads add trees in another order
    content = to_onnx(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": matrix})[0]


def near_thresholds(text, base):
    """For each numeric split, rows on its threshold and on the float32 neighbours of it."""
    found = []

    def visit(node):
        if "split_feature" in node:
            if node["decision_type"] == "<=" and abs(node["threshold"]) < 1e38:  # 1e300 parts missing from the rest
                at = np.float32(node["threshold"])
                for value in (np.nextafter(at, np.float32(-np.inf)), at, np.nextafter(at, np.float32(np.inf)), 0.0):
                    row = base.copy()
                    row[node["split_feature"]] = value
                    found.append(row)
            visit(node["left_child"])
            visit(node["right_child"])

    for tree in lightgbm.Booster(model_str=text).dump_model()["tree_info"]:
        visit(tree["tree_structure"])
    return np.array(found, np.float32)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    objective=st.sampled_from(["binary", "multiclass", "regression", "quantile", "poisson"]),
    missing=st.sampled_from([0.0, 0.2]),
    leaves=st.sampled_from([2, 8, 31]),
    extra=st.sampled_from([{}, {"max_cat_to_onehot": 1}, {"use_missing": False}, {"max_bin": 7}, {"sigmoid": 2.0}]),
)
def test_any_booster_routes_and_answers_as_lightgbm(seed, objective, missing, leaves, extra):
    rng = np.random.default_rng(seed)
    classes = ("a", "b", "c") if objective == "multiclass" else ("false", "true")
    params = {"objective": objective, "num_leaves": leaves, "seed": seed} | extra
    text = train(rows(rng, 300, missing=missing), rng, **params, **({"num_class": 3} if len(classes) == 3 else {}))
    task = {"binary": "binary", "multiclass": "multiclass"}.get(objective, "regression")
    model = Boosted(texts=(text,), inputs=numbers(4), task=task, classes=classes)
    # Codes that training never saw, missing values where training saw none, and the thresholds themselves.
    test = np.concatenate([rows(rng, 300), near_thresholds(text, rows(rng, 1, missing=0)[0])])
    test[::9, 3] = CATEGORIES + 40
    booster = lightgbm.Booster(model_str=text)
    expected = booster.predict(test, num_threads=1).reshape(len(test), -1)
    found = run_graph(model, test)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-14)


def test_many_trees_are_equal_to_the_last_bit():
    rng = np.random.default_rng(1)
    text = train(rows(rng, 2000), rng, objective="regression", rounds=200)
    test = np.concatenate([rows(rng, 3000), near_thresholds(text, rows(rng, 1, missing=0)[0])])
    found = run_graph(Boosted(texts=(text,), inputs=numbers(4), task="regression"), test)
    assert np.array_equal(found[:, 0], lightgbm.Booster(model_str=text).predict(test))


def test_a_random_forest_and_an_average_of_boosters():
    rng = np.random.default_rng(2)
    forest = train(rows(rng, 500), rng, boosting="rf", bagging_freq=1, bagging_fraction=0.6, objective="binary")
    other = train(rows(rng, 500), rng, objective="binary")
    model = Boosted(texts=(forest, other), inputs=numbers(4))
    test = rows(rng, 500)
    np.testing.assert_allclose(run_graph(model, test)[:, 0], model.predict(test), rtol=1e-14)


def test_trees_that_never_split():
    matrix = np.zeros((50, 4), np.float32)
    data = lightgbm.Dataset(matrix, np.arange(50.0))
    text = lightgbm.train({"verbose": -1, "objective": "regression"}, data, 3).model_to_string()
    found = run_graph(Boosted(texts=(text,), inputs=numbers(4), task="regression"), matrix[:2])
    assert found.tolist() == [[24.5], [24.5]]


@pytest.mark.parametrize("rounds", [20, 120])
def test_a_batch_answers_as_its_rows_alone(tmp_path, rounds):
    rng = np.random.default_rng(3)
    model = Boosted(texts=(train(rows(rng, 1000), rng, rounds=rounds),), inputs=numbers(4))
    sample = columns_of(rows(rng, 600))
    build(model, plan_for(model.inputs), name="m", sample=sample, out=tmp_path / "m", lineage={}, example={})
    scorer = Scorer(tmp_path / "m")
    alone = [scorer.score({name: values[row : row + 1] for name, values in sample.items()})[0] for row in range(600)]
    assert np.array_equal(scorer.score(sample), alone)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"objective": "multiclassova", "num_class": 3}, "objective"),
        ({"objective": "regression", "reg_sqrt": True}, "objective"),
        ({"objective": "regression", "linear_tree": True}, "linear leaves"),
        ({"objective": "regression", "zero_as_missing": True, "num_leaves": 31}, "zero_as_missing"),
    ],
)
def test_what_has_no_exact_form_is_refused(params, words):
    rng = np.random.default_rng(4)
    text = train(rows(rng, 800), rng, **params)
    task = "multiclass" if "num_class" in params else "regression"
    with pytest.raises(DefinitionError, match=words):
        to_onnx(Boosted(texts=(text,), inputs=numbers(4), task=task, classes=("a", "b", "c")))


def test_equal_models_give_equal_bytes():
    rng = np.random.default_rng(5)
    model = Boosted(texts=(train(rows(rng, 300), rng),), inputs=numbers(4))
    first, second = (to_onnx(model).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_a_fitted_model_of_training_from_its_features_on(tmp_path):
    """Texts, flags, epoch seconds and missing values, encoded by training and by the scorer."""
    rng = np.random.default_rng(6)
    count = 3000
    frame = pl.DataFrame(
        {
            "seconds": 1.36e9 + rng.uniform(0, 86400 * 30, count),
            "distance": [
                None if missing else value
                for missing, value in zip(rng.random(count) < 0.1, rng.normal(500, 200, count), strict=True)
            ],
            "carrier": [("AA", "UA", "DL", None)[k] for k in rng.integers(0, 4, count)],
            "charter": rng.random(count) < 0.3,
        }
    )
    target = (np.sin(frame["seconds"].to_numpy() / 20000) + (frame["carrier"].to_numpy() == "UA") > 0.4).astype(float)
    inputs = derive_inputs(frame)
    assert inputs[0].center > 1.3e9
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_per_group": 20}
    texts = []
    for seed in range(2):
        data = lightgbm.Dataset(encode(frame, inputs), target, categorical_feature=[2])
        texts.append(
            lightgbm.train(
                settings | {"seed": seed, "bagging_fraction": 0.7, "bagging_freq": 1}, data, 40
            ).model_to_string()
        )
    card = ModelCard(
        kind="lightgbm",
        trainer="lightgbm",
        task="binary",
        classes=("false", "true"),
        inputs=inputs,
        calibration=Calibration("sigmoid", a=1.3, b=-0.2),
        threshold=0.4,
    )
    model = FittedModel(card, Boosters(tuple(texts)))
    out = tmp_path / "servable"
    parity = build(model, plan_for(inputs), name="m", sample=frame, out=out, lineage={}, example={}).parity
    assert (parity.rows, parity.flips) == (count, 0)
    assert parity.max_difference < 1e-14
    columns = frame.to_dict(as_series=False)
    decided = [answer.prediction for answer in Scorer(out).answers(columns)]
    assert decided == (model.predict_frame(frame) >= 0.4).tolist()
