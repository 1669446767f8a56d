"""LightGBM and XGBoost files answer as their own libraries do, alone and in batches."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest
import xgboost
from foreign_models import built, given, rows, target
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError, DefinitionError
from cumulant.packaging.convert.boosters import read_booster
from cumulant.packaging.convert.model_files import read_model
from cumulant.packaging.convert.model_objects import from_object
from cumulant.packaging.convert.xgboost_model import read_xgboost
from cumulant.servable.engine import Engine

pytestmark = pytest.mark.slow


def labels_for(objective, values):
    if objective.startswith(("binary", "cross")):
        return (values > np.median(values)).astype(float)
    if objective.startswith("multi"):
        return np.digitize(values, np.quantile(values, [0.3, 0.6])).astype(float)
    if objective in ("poisson", "gamma", "count:poisson", "reg:gamma", "reg:tweedie"):
        return np.exp(np.clip(values, -2, 2))
    if objective in ("lambdarank", "rank:pairwise"):
        return np.digitize(values, [0]).astype(float)
    return values


def lgb(objective, rng, *, rounds=12, categorical=True, **params):
    matrix = rows(rng, 400)
    base = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5, "min_data_per_group": 3, "cat_smooth": 1.0}
    base |= {"objective": objective, **params}
    if objective.startswith("multi"):
        base["num_class"] = 3
    group = [40] * 10 if objective == "lambdarank" else None
    data = lightgbm.Dataset(
        matrix,
        labels_for(objective, target(matrix, rng)),
        group=group,
        feature_name=list("abcd"),
        categorical_feature=[3] if categorical else [],
    )
    return lightgbm.train(base, data, rounds)


def xgb(objective, rng, *, rounds=12, categorical=True, **params):
    matrix = rows(rng, 400)
    base = {"objective": objective, "nthread": 1, **params}
    if objective.startswith("multi"):
        base["num_class"] = 3
    kinds = ["q", "q", "q", "c"] if categorical else None
    data = xgboost.DMatrix(
        matrix,
        labels_for(objective, target(matrix, rng)),
        feature_names=list("abcd"),
        feature_types=kinds,
        enable_categorical=categorical,
    )
    if objective.startswith("rank"):
        data.set_group([40] * 10)
    return xgboost.train(base, data, rounds)


LIGHTGBM = ["binary", "multiclass", "multiclassova", "regression", "poisson", "cross_entropy", "lambdarank"]
XGBOOST = [
    "binary:logistic",
    "binary:logitraw",
    "multi:softprob",
    "multi:softmax",
    "reg:squarederror",
    "count:poisson",
    "reg:gamma",
    "reg:tweedie",
    "rank:pairwise",
    "reg:absoluteerror",
]


@settings(max_examples=8, deadline=None)
@each(seed=st.integers(0, 2**20), objective=st.sampled_from(LIGHTGBM), leaves=st.integers(2, 40))
def test_lightgbm_answers_as_itself(tmp_path_factory, seed, objective, leaves):
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("m")
    booster = lgb(objective, rng, num_leaves=leaves)
    sample = rows(rng, 300)
    servable = built(from_object(booster), path / "out", given(sample), tolerance=1e-12)
    assert servable.parity.flips == 0
    assert servable.batching.exact, servable.batching.reason
    assert servable.columns == tuple("abcd")
    found = Engine(path / "out" / "model.onnx").run({"input": sample})[0]
    assert np.allclose(found, booster.predict(sample), rtol=1e-12, atol=1e-12)


@settings(max_examples=8, deadline=None)
@each(
    seed=st.integers(0, 2**20),
    objective=st.sampled_from(XGBOOST),
    depth=st.integers(1, 7),
    more=st.sampled_from([{}, {"booster": "dart", "rate_drop": 0.4}, {"num_parallel_tree": 2, "subsample": 0.6}]),
)
def test_xgboost_answers_as_itself(tmp_path_factory, seed, objective, depth, more):
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("m")
    servable = built(from_object(xgb(objective, rng, max_depth=depth, **more)), path / "out", given(rows(rng, 300)))
    assert servable.parity.max_difference < 5e-7
    assert servable.parity.flips == 0
    assert servable.batching.exact, servable.batching.reason


@pytest.mark.parametrize("name", ["m.ubj", "m.json"])
def test_both_forms_of_a_file_are_one_model(tmp_path, name):
    rng = np.random.default_rng(0)
    booster = xgb("multi:softprob", rng)
    booster.save_model(tmp_path / name)
    servable = built(read_xgboost(tmp_path / name), tmp_path / "out", given(rows(rng, 50)))
    assert servable.files == built(from_object(booster), tmp_path / "other", given(rows(rng, 50))).files


def test_scores_of_xgboost_agree_to_the_bit(tmp_path):
    """The float32 sums start at the base score and go tree by tree, as XGBoost's."""
    rng = np.random.default_rng(1)
    booster = xgb("reg:squarederror", rng, rounds=200)
    booster.save_model(tmp_path / "m.ubj")
    sample = rows(rng, 500)
    servable = built(read_xgboost(tmp_path / "m.ubj"), tmp_path / "out", given(sample))
    assert servable.parity.max_difference == 0


@pytest.mark.parametrize(
    ("objective", "target"), [("binary:logistic", 0), ("binary:logistic", 1), ("count:poisson", 0)]
)
def test_a_target_that_never_changed_is_answered_as_by_xgboost(tmp_path, objective, target):
    sample = rows(np.random.default_rng(0), 60)
    booster = xgboost.train({"objective": objective}, xgboost.DMatrix(sample, np.full(60, target)), 3)
    booster.save_model(tmp_path / "m.ubj")
    servable = built(read_xgboost(tmp_path / "m.ubj"), tmp_path / "out", given(sample))
    assert servable.parity.max_difference < 5e-7


def test_values_on_the_thresholds_take_the_original_s_side(tmp_path):
    """A value that float32 would move across a float64 threshold stays where LightGBM puts it."""
    rng = np.random.default_rng(2)
    matrix = 1e9 + rng.integers(0, 400, (600, 1)).astype(float)  # float32 knows only every 64th of these
    booster = lightgbm.train(
        {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}, lightgbm.Dataset(matrix, np.sin(matrix[:, 0])), 10
    )
    booster.save_model(tmp_path / "m.txt")
    servable = built(read_booster(tmp_path / "m.txt"), tmp_path / "out", given(matrix))
    assert servable.inputs[0].datatype == "FP64"
    assert servable.parity.max_difference < 1e-12
    rounded = Engine(tmp_path / "out" / "model.onnx").run({"input": matrix.astype(np.float32).astype(float)})[0]
    assert np.abs(rounded - booster.predict(matrix)).max() > 0.01


def test_outputs_have_plain_names(tmp_path):
    rng = np.random.default_rng(3)

    def names(model):
        return [(one.name, one.datatype, one.shape) for one in built(from_object(model), tmp_path / "out").outputs]

    assert names(lgb("binary", rng)) == [("probability", "FP64", (-1,))]
    assert names(lgb("multiclass", rng)) == [("probabilities", "FP64", (-1, 3))]
    assert names(lgb("regression", rng)) == [("prediction", "FP64", (-1,))]
    assert names(xgb("binary:logistic", rng)) == [("probability", "FP32", (-1,))]
    assert names(xgb("rank:pairwise", rng)) == [("prediction", "FP32", (-1,))]


@pytest.mark.parametrize("make", [lightgbm.LGBMClassifier, xgboost.XGBClassifier])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_in_memory_brings_its_labels(tmp_path, make, classes):
    rng = np.random.default_rng(4)
    matrix = rows(rng, 400)
    place = np.digitize(target(matrix, rng), [0, 1][: classes - 1])
    words = np.array(["no", "some", "yes"])[:classes][place]
    quiet = {"verbose": -1} if make is lightgbm.LGBMClassifier else {}
    model = make(n_estimators=8, n_jobs=1, **quiet).fit(matrix, words if quiet else place)
    servable = built(from_object(model), tmp_path / "out", given(matrix))
    label = Engine(tmp_path / "out" / "model.onnx").run({"input": matrix.astype("f8" if quiet else "f4")})[0]
    assert label.tolist() == model.predict(matrix).tolist()
    assert servable.classes == tuple(map(str, model.classes_))
    assert servable.parity.flips == 0


def test_only_the_iterations_that_early_stopping_kept_answer(tmp_path):
    rng = np.random.default_rng(5)
    matrix = rows(rng, 400)
    noise = rng.integers(0, 2, 400)
    model = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=3, n_jobs=1)
    model.fit(matrix[:200], noise[:200], eval_set=[(matrix[200:], noise[200:])], verbose=False)
    model.save_model(tmp_path / "m.json")
    foreign = read_model(tmp_path / "m.json")
    assert "early stopping" in foreign.notes[0]
    built(foreign, tmp_path / "out", given(matrix))
    found = Engine(tmp_path / "out" / "model.onnx").run({"input": matrix.astype(np.float32)})[0]
    assert np.allclose(found, model.predict_proba(matrix)[:, 1], atol=1e-6)


def test_what_has_no_form_is_refused(tmp_path):
    rng = np.random.default_rng(6)
    xgb("reg:squarederror", rng, booster="gblinear", categorical=False).save_model(tmp_path / "linear.json")
    with pytest.raises(DefinitionError, match="gblinear"):
        read_xgboost(tmp_path / "linear.json")
    lgb("regression", rng, linear_tree=True, categorical=False).save_model(tmp_path / "linear.txt")
    with pytest.raises(DefinitionError, match="linear leaves"):
        read_booster(tmp_path / "linear.txt")


def test_a_cut_lightgbm_text_never_reaches_lightgbm(tmp_path):
    text = lgb("binary", np.random.default_rng(7)).model_to_string()
    path = tmp_path / "m.txt"
    for share in (0.1, 0.5, 0.9):
        path.write_text(text[: int(len(text[: text.index("end of trees")]) * share)])
        with pytest.raises(DataError):
            read_booster(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("left_child", "0"),
        ("left_child", "99"),
        ("right_child", "-99"),
        ("split_feature", "7"),
        ("leaf_value", "1"),
        ("split_feature", "-1"),
        ("cat_boundaries", "0 9999"),
        ("num_leaves", "999999999"),
        ("threshold", "x"),
    ],
)
def test_trees_that_point_outside_themselves_are_refused(tmp_path, key, value):
    text = lgb("binary", np.random.default_rng(8), num_leaves=9).model_to_string()
    start = text.index(f"\n{key}=") + len(key) + 2
    old = text[start : text.index("\n", start)]
    new = value if key in ("num_leaves", "cat_boundaries") else " ".join([value, *old.split()[1:]])
    new = value if key == "leaf_value" else new
    (tmp_path / "m.txt").write_text(text[:start] + new + text[start + len(old) :])
    with pytest.raises(DataError):
        read_booster(tmp_path / "m.txt")


@pytest.mark.parametrize("binary", [False, True])
def test_a_cut_xgboost_file_is_refused(tmp_path, binary):
    raw = bytes(xgb("binary:logistic", np.random.default_rng(9)).save_raw("ubj" if binary else "json"))
    for share in (0.02, 0.3, 0.7, 0.999):
        (tmp_path / "m").write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(DataError):
            read_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("left_children", 0),
        ("left_children", 10**6),
        ("right_children", -5),
        ("split_indices", 9),
        ("split_indices", -1),
        ("split_indices", None),
    ],
)
def test_xgboost_trees_that_point_outside_themselves_are_refused(tmp_path, key, value):
    import json

    document = json.loads(bytes(xgb("binary:logistic", np.random.default_rng(10)).save_raw("json")))
    document["learner"]["gradient_booster"]["model"]["trees"][3][key][0] = value
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(DataError):
        read_xgboost(tmp_path / "m.json")


def test_sizes_that_a_file_only_claims_take_no_memory(tmp_path):
    claim = b"{L" + (7).to_bytes(8, "big") + b"learner[$d#L" + (2**60).to_bytes(8, "big")
    (tmp_path / "m.ubj").write_bytes(claim)
    with pytest.raises(DataError, match="cut off"):
        read_model(tmp_path / "m.ubj")
    (tmp_path / "deep.ubj").write_bytes(b"{L" + (7).to_bytes(8, "big") + b"learner" + b"[" * 10_000)
    with pytest.raises(DataError, match="deep"):
        read_model(tmp_path / "deep.ubj")
