"""Linear, constant and user models as graphs."""

from __future__ import annotations

from dataclasses import dataclass

import lightgbm
import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from packaging_models import NONE, Boosted, Constant, Linear, Own, columns_of, numbers, plan_for
from skl2onnx import to_onnx as convert
from sklearn.linear_model import LogisticRegression

from cumulant.core.errors import DefinitionError, ParityError
from cumulant.core.servable import Calibration, Input
from cumulant.packaging.builder import build
from cumulant.servable.scorer import Scorer
from cumulant.training.payloads.payload import LinearWeights

INPUTS = (*numbers(3), Input("f3", "category", ("a", "b", "c")), Input("f4", "category", ("x",)))


def made(tmp_path, model, sample):
    build(model, plan_for(model.inputs), name="m", sample=sample, out=tmp_path / "m", lineage={}, example={})
    return Scorer(tmp_path / "m")


def sample_of(rng, count):
    numeric = rng.normal(3, 2, size=(count, 3))
    numeric[rng.random(numeric.shape) < 0.2] = np.nan
    return columns_of(numeric) | {
        "f3": [("a", "b", "c", None, "unseen")[k] for k in rng.integers(0, 5, count)],
        "f4": [("x", None)[k] for k in rng.integers(0, 2, count)],
    }


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), link=st.sampled_from(["identity", "sigmoid", "softmax"]), flags=st.booleans())
def test_linear_models_answer_as_plain_python(tmp_path_factory, seed, link, flags):
    rng = np.random.default_rng(seed)
    outputs = 3 if link == "softmax" else 1
    draw = lambda *shape: tuple(map(tuple, rng.normal(size=shape)))  # noqa: E731
    weights = LinearWeights(
        columns=(0, 2),
        fill=(1.5, -2.0),
        mean=(3.0, 2.5),
        scale=(2.0, 0.1),
        weight=draw(2, outputs),
        missing=draw(2, outputs) if flags else ((0.0,) * outputs,) * 2,
        tables={3: draw(4, outputs), 4: draw(2, outputs)},
        bias=draw(1, outputs)[0],
        link=link,
    )
    task = {"identity": "regression", "sigmoid": "binary", "softmax": "multiclass"}[link]
    classes = {"identity": (), "sigmoid": ("no", "yes"), "softmax": ("r", "g", "b")}[link]
    model = Linear(weights=weights, inputs=INPUTS, task=task, classes=classes)
    # `build` itself compares every row with the oracle and refuses a difference.
    scorer = made(tmp_path_factory.mktemp("linear"), model, sample_of(rng, 50))
    assert scorer.servable.parity.max_difference < 1e-12
    assert scorer.score({name: [] for name in scorer.features}).shape[0] == 0


def test_a_linear_model_of_categories_only(tmp_path):
    weights = LinearWeights(
        columns=(),
        fill=(),
        mean=(),
        scale=(),
        weight=(),
        missing=(),
        tables={0: ((1.0,), (2.0,), (9.0,))},
        bias=(0.5,),
        link="identity",
    )
    model = Linear(weights=weights, inputs=(Input("f0", "category", ("a", "b")),))
    scorer = made(tmp_path, model, {"f0": ["a", "b", None]})
    assert scorer.score({"f0": ["a", "b", None, "c"]}).tolist() == [1.5, 2.5, 9.5, 9.5]


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ((0.3,), "binary", ("false", "true")),
        ((0.2, 0.3, 0.5), "multiclass", ("a", "b", "c")),
        ((7.5,), "regression", ()),
    ],
)
def test_a_constant_answers_every_row(tmp_path, values, task, classes):
    model = Constant(values=values, inputs=numbers(2), task=task, classes=classes)
    scorer = made(tmp_path, model, columns_of(np.ones((3, 2))))
    assert scorer.score(columns_of(np.zeros((4, 2)))).reshape(4, -1).tolist() == [list(values)] * 4


@dataclass(frozen=True, kw_only=True)
class Blended:
    """The weighted sum of models, each of which predicts by itself."""

    parts: tuple
    weights: tuple[float, ...]
    inputs: tuple[Input, ...]
    task: str = "regression"
    classes: tuple[str, ...] = ()
    calibration: Calibration = NONE
    threshold: float | None = None
    kind: str = "blend"

    def encode(self, features):
        return self.parts[0].encode(features)

    def members(self):
        return list(zip(self.weights, self.parts, strict=True))

    def predict(self, matrix):
        return sum(weight * part.predict(matrix) for weight, part in self.members())


def line(rng, inputs):
    weight = tuple((value,) for value in rng.normal(size=3))
    return Linear(
        weights=LinearWeights(
            columns=(0, 1, 2),
            fill=(1.5, -2.0, 0.0),
            mean=(3.0, 2.5, 1.0),
            scale=(2.0, 0.1, 1.0),
            weight=weight,
            missing=weight,
            tables={},
            bias=(0.5,),
            link="identity",
        ),
        inputs=inputs,
    )


def test_a_blend_is_one_graph_that_answers_as_its_members_do(tmp_path):
    rng = np.random.default_rng(0)
    matrix = rng.normal(3, 2, size=(400, 3)).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    target = np.nan_to_num(matrix[:, 0]) ** 2
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(matrix, target), 20)
    trees = Boosted(texts=(booster.model_to_string(),), inputs=numbers(3), task="regression", classes=())
    constant = Constant(values=(7.0,), inputs=numbers(3), task="regression", classes=())
    model = Blended(parts=(trees, line(rng, numbers(3)), constant), weights=(0.6, 0.3, 0.1), inputs=numbers(3))
    scorer = made(tmp_path, model, columns_of(matrix))
    graph = onnx.load(tmp_path / "m" / scorer.servable.model).graph
    assert (len(graph.input), len(graph.output)) == (1, 1)
    assert scorer.servable.parity.max_difference < 1e-12
    whole = scorer.score(columns_of(matrix))
    alone = [scorer.score(columns_of(matrix[place : place + 1]))[0] for place in range(20)]
    assert whole[:20].tolist() == alone


def test_a_blend_of_what_one_graph_cannot_hold_is_refused(tmp_path):
    own = Own(content=b"", inputs=numbers(2), function=None)
    constant = Constant(values=(0.3,), inputs=numbers(2))
    with pytest.raises(DefinitionError, match=r"cannot be a part of a blend") as refused:
        made(
            tmp_path, Blended(parts=(own, constant), weights=(0.5, 0.5), inputs=numbers(2)), columns_of(np.ones((3, 2)))
        )
    assert "blend: off" in refused.value.hint
    three = Constant(values=(0.2, 0.3, 0.5), inputs=numbers(2))
    with pytest.raises(DefinitionError, match="different numbers of outputs"):
        made(
            tmp_path,
            Blended(parts=(three, constant), weights=(0.5, 0.5), inputs=numbers(2)),
            columns_of(np.ones((3, 2))),
        )


def fitted(classes):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(300, 3)).astype(np.float32)
    target = np.digitize(matrix[:, 0] + matrix[:, 1], [0.0] if classes == 2 else [-0.5, 0.5])
    return LogisticRegression().fit(matrix, target), matrix


def test_a_users_graph_from_scikit_learn(tmp_path):
    trained, matrix = fitted(2)
    content = convert(trained, matrix[:1], options={"zipmap": False}).SerializeToString()
    model = Own(content=content, inputs=numbers(3), function=lambda m: trained.predict_proba(m)[:, 1])
    assert made(tmp_path, model, columns_of(matrix)).servable.parity.flips == 0


def test_a_users_graph_of_several_classes(tmp_path):
    trained, matrix = fitted(3)
    content = convert(trained, matrix[:1], options={"zipmap": False}).SerializeToString()
    model = Own(
        content=content, inputs=numbers(3), function=trained.predict_proba, task="multiclass", classes=("a", "b", "c")
    )
    assert made(tmp_path, model, columns_of(matrix)).score(columns_of(matrix[:7])).shape == (7, 3)


def graph_of(nodes, shape_in, shape_out, *, elem=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", elem, shape_in)],
        [helper.make_tensor_value_info("output", elem, shape_out)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def test_a_users_graph_whose_answer_is_a_vector(tmp_path):
    content = graph_of(
        [helper.make_node("ReduceSum", ["input"], ["output"], keepdims=0, noop_with_empty_axes=0)], ["n", 1], ["n"]
    )
    axes = onnx.load_model_from_string(content)
    axes.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axes"))
    axes.graph.node[0].input.append("axes")
    model = Own(
        content=axes.SerializeToString(),
        inputs=numbers(1),
        function=lambda m: m[:, 0].astype(float),
        task="regression",
        classes=(),
    )
    assert made(tmp_path, model, {"f0": [1.0, 2.0]}).score({"f0": [3.5]}).tolist() == [3.5]
    assert made(tmp_path, model, {"f0": [1.0, 2.0]}).score({"f0": []}).tolist() == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a graph", "no valid ONNX"),
        (graph_of([helper.make_node("Identity", ["input"], ["output"])], [1, 2], [1, 2]), "batch size"),
        (graph_of([helper.make_node("Identity", ["input"], ["output"])], ["n", 5], ["n", 5]), "one float32 matrix"),
        (
            graph_of(
                [helper.make_node("Identity", ["input"], ["output"])], ["n", 2], ["n", 2], elem=TensorProto.DOUBLE
            ),
            "float32",
        ),
        (
            graph_of([helper.make_node("Cast", ["input"], ["output"], to=TensorProto.FLOAT)], ["n", 2], ["n", 3]),
            "columns",
        ),
    ],
)
def test_a_users_graph_of_another_form_is_refused(tmp_path, content, words):
    model = Own(content=content, inputs=numbers(2), function=lambda m: m[:, 0])
    with pytest.raises(DefinitionError, match=words):
        made(tmp_path, model, columns_of(np.ones((2, 2))))
    assert list(tmp_path.iterdir()) == []


def test_a_users_graph_with_a_zipmap_is_refused(tmp_path):
    trained, matrix = fitted(2)
    content = convert(trained, matrix[:1]).SerializeToString()
    with pytest.raises(DefinitionError) as error:
        made(tmp_path, Own(content=content, inputs=numbers(3), function=None), columns_of(matrix))
    assert "zipmap" in error.value.hint


def test_a_graph_that_answers_otherwise_is_refused_and_leaves_nothing(tmp_path):
    content = graph_of([helper.make_node("Identity", ["input"], ["output"])], ["n", 1], ["n", 1])
    model = Own(content=content, inputs=numbers(1), function=lambda m: m[:, 0].astype(float) + 1e-3)
    with pytest.raises(ParityError, match=r"differ .* by up to 0\.001"):
        made(tmp_path, model, {"f0": [0.1, 0.4995, 0.9]})
    assert list(tmp_path.iterdir()) == []


def test_a_feature_that_the_plan_lacks_is_refused(tmp_path):
    model = Constant(values=(0.5,), inputs=numbers(2))
    plan = msgspec.structs.replace(plan_for(model.inputs), features=())
    with pytest.raises(DefinitionError, match="f0"):
        build(model, plan, name="m", sample={}, out=tmp_path / "m", lineage={}, example={})
