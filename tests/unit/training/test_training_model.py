"""Encoding, payloads against the libraries that fitted them, and models on disk."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from cumulant.core.errors import DefinitionError, IntegrityError
from cumulant.core.servable import Calibration, Input
from cumulant.servable.encoder import Encoder
from cumulant.training.model import FittedModel, ModelCard, constant
from cumulant.training.payloads.encoding import MOST_CATEGORIES, derive_inputs, encode
from cumulant.training.payloads.payload import Boosters, LinearWeights
from cumulant.training.trainers.baseline import Naive
from cumulant.training.trainers.lightgbm_trainer import LightGBM
from cumulant.training.trainers.linear_trainer import Linear
from cumulant.training.trainers.trainer import Problem, TrainingSample

cells = st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(float("nan")), st.just(1e300))
texts = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "d"]))


@given(
    st.lists(st.tuples(cells, texts, st.one_of(st.none(), st.booleans()), st.integers(0, 9)), min_size=1, max_size=30)
)
@settings(max_examples=100, deadline=None)
def test_training_and_serving_encode_alike(rows):
    frame = pl.DataFrame(
        rows, schema={"n": pl.Float64, "t": pl.String, "f": pl.Boolean, "i": pl.Int64}, orient="row"
    ).with_columns(epoch=pl.lit(1.6e9) + pl.col("i"))
    inputs = derive_inputs(frame)
    ours = encode(frame, inputs)
    theirs = Encoder(inputs).matrix(frame.to_dict(as_series=False))
    np.testing.assert_array_equal(ours, theirs)


def test_inputs_are_learned_from_training_rows():
    frame = pl.DataFrame(
        {
            "n": [0.5, None, 2.0, 3.0, 4.0, 5.0, 6.0],
            "flag": [True, False, None, True, True, True, True],
            "t": ["b", "b", "a", "b", "a", "a", "c"],
            "epoch": [1_600_000_000 + 7 * number for number in range(7)],
        }
    )
    number, flag, text, epoch = derive_inputs(frame)
    assert number == Input("n", "number")
    assert flag == Input("flag", "flag")
    assert text.categories == ("a", "b")  # equally frequent: by name; c is rare
    matrix = encode(frame, (epoch,))
    assert np.diff(matrix[:, 0]).tolist() == [7] * 6  # float32 of the raw seconds would give steps of 128
    later = pl.DataFrame({"n": [1], "flag": [None], "t": ["new"], "epoch": [1]})
    assert np.isnan(encode(later, (flag, text))).all()
    with pytest.raises(DefinitionError, match="do not have"):
        encode(later.drop("n"), (number,))
    with pytest.raises(DefinitionError, match="reads a number"):
        encode(pl.DataFrame({"n": ["x"]}), (number,))


def test_many_categories_are_capped():
    values = [f"v{number:04d}" for number in range(400) for _ in range(4)] + ["v0000"] * 5
    (found,) = derive_inputs(pl.DataFrame({"t": values}))
    assert len(found.categories) == MOST_CATEGORIES
    assert found.categories[0] == "v0000"


def made(task, *, rows=600, classes=("0", "1")):
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(rows, 4)).astype(np.float32)
    matrix[generator.random((rows, 4)) < 0.1] = np.nan
    matrix[:, 2] = generator.integers(0, 3, rows)
    matrix[generator.random(rows) < 0.1, 2] = np.nan
    score = np.nan_to_num(matrix[:, 0]) + np.nan_to_num(matrix[:, 2], nan=3) - 1
    if task == "regression":
        target, classes = score + generator.normal(size=rows), ()
    elif task == "binary":
        target = (score + generator.normal(size=rows) > 0).astype(float)
    else:
        target, classes = np.clip(np.round(score + 1), 0, 2), ("low", "middle", "high")
    inputs = (
        Input("a", "number"),
        Input("b", "number"),
        Input("c", "category", categories=("x", "y", "z")),
        Input("d", "number"),
    )
    problem = Problem(task=task, classes=classes, inputs=inputs, metric="log_loss")
    return problem, TrainingSample(matrix=matrix, target=target.astype(float))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_linear_arrays_answer_as_scikit_learn_does(task):
    problem, sample = made(task)
    weights = Linear().fit(problem, {}, sample).payload
    assert isinstance(weights, LinearWeights)
    values = sample.matrix.astype(float)
    columns = []
    for place in (0, 1, 3):
        unknown = np.isnan(values[:, place])
        filled = np.where(unknown, np.median(values[~unknown, place]), values[:, place])
        columns += [(filled - filled.mean()) / filled.std(), unknown.astype(float)]
    codes = np.nan_to_num(values[:, 2], nan=3)
    table = np.column_stack([*columns, *((codes == code).astype(float) for code in range(4))])
    if task == "regression":
        expected = Ridge(alpha=1.0).fit(table, sample.target).predict(table)
    else:
        oracle = LogisticRegression(C=1.0, max_iter=2000, tol=1e-8).fit(table, sample.target.astype(int))
        expected = oracle.predict_proba(table) if task == "multiclass" else oracle.predict_proba(table)[:, 1]
    np.testing.assert_allclose(weights.predict(sample.matrix), expected, atol=2e-3)
    assert next(iter(Linear().importance(problem, weights))) in ("a", "c")


def test_a_class_that_the_rows_lack_is_all_but_impossible():
    problem, sample = made("multiclass")
    part = sample.take(np.flatnonzero(sample.target != 1))
    answers = Linear().fit(problem, {}, part).payload.predict(sample.matrix)
    assert answers.shape == (len(sample), 3)
    assert answers[:, 1].max() < 1e-3
    assert ((answers[:, 2] > 0.5) == (sample.target == 2))[sample.target != 1].mean() > 0.8


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_boosters_answer_as_lightgbm_and_repeat(task):
    import lightgbm

    problem, sample = made(task)
    params = {"rounds": 20, "bagging_fraction": 0.7}
    first, second = (LightGBM().fit(problem, params, sample).payload for _ in range(2))
    assert isinstance(first, Boosters)
    assert first.texts == second.texts  # type: ignore[attr-defined]
    expected = lightgbm.Booster(model_str=first.texts[0]).predict(sample.matrix)
    np.testing.assert_array_equal(first.predict(sample.matrix), expected)
    pair = Boosters((first.texts[0], LightGBM().fit(problem, {"rounds": 3}, sample).payload.texts[0]))  # type: ignore[attr-defined]
    other = lightgbm.Booster(model_str=pair.texts[1]).predict(sample.matrix)
    np.testing.assert_allclose(pair.predict(sample.matrix), (expected + other) / 2)


def test_naive_answers():
    problem, sample = made("binary")
    assert Naive().fit(problem, {}, sample).payload.values == (sample.target.mean(),)  # type: ignore[attr-defined]
    heavy = TrainingSample(matrix=sample.matrix, target=sample.target, weight=1 + sample.target)
    assert Naive().fit(problem, {}, heavy).payload.values[0] > sample.target.mean()  # type: ignore[attr-defined]
    problem, sample = made("multiclass")
    answers = Naive().fit(problem, {}, sample).payload.predict(sample.matrix)
    assert answers.sum(axis=1) == pytest.approx(np.ones(len(sample)))
    problem, sample = made("regression")
    assert Naive().fit(problem, {}, sample).payload.predict(sample.matrix[:2]).tolist() == [sample.target.mean()] * 2


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("trainer", [LightGBM(), Linear(), Naive()])
def test_models_survive_the_disk(task, trainer, tmp_path):
    problem, sample = made(task)
    payload = trainer.fit(problem, {"rounds": 5} if trainer.name == "lightgbm" else {}, sample).payload
    card = ModelCard(
        kind=payload.kind,
        trainer=trainer.name,
        task=task,
        classes=problem.classes,
        inputs=problem.inputs,
        calibration=Calibration(kind="sigmoid", a=1.1, b=0.2) if task == "binary" else Calibration(),
        threshold=0.25 if task == "binary" else None,
        importance={"a": 0.75, "b": 0.25},
        params={"rounds": 5, "C": 0.5},
    )
    model = FittedModel(card, payload)
    model.to_folder(tmp_path / "m")
    back = FittedModel.from_folder(tmp_path / "m")
    assert back.card == card
    np.testing.assert_array_equal(back.predict(sample.matrix), model.predict(sample.matrix))
    back.to_folder(tmp_path / "again")
    for file in (tmp_path / "m").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
        assert not file.read_bytes().startswith(b"\x80")  # no pickle


def test_a_broken_folder_and_the_wrong_kind_are_told(tmp_path):
    model = constant([0.2], task="binary", classes=("0", "1"), inputs=())
    assert model.prior() == (0.2,)
    for wrong in (model.boosters, model.linear, model.onnx):
        with pytest.raises(DefinitionError, match="kind naive"):
            wrong()
    with pytest.raises(IntegrityError):
        FittedModel.from_folder(tmp_path)
    model.to_folder(tmp_path)
    (tmp_path / "prior.json").write_text("[")
    with pytest.raises(IntegrityError, match="cannot be read"):
        FittedModel.from_folder(tmp_path)
