"""`quantize`: what is written, and what is refused."""

from __future__ import annotations

import builtins
import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantization_graphs import ids, network, run, save

from cumulant.core.errors import DataError, DefinitionError, MissingPartError
from cumulant.packaging.quantize.choice import ORIGINAL
from cumulant.packaging.quantize.quantize import quantize


def test_the_chosen_graph_is_written_and_answers(tmp_path):
    path, out = network(tmp_path), tmp_path / "out.onnx"
    candidates = quantize(path, ids(240), aim="size", accuracy_loss=0.1, out=out, budget=0.3)
    (chosen,) = [one for one in candidates if one.chosen]
    assert chosen.size == out.stat().st_size < path.stat().st_size / 3
    fresh = ids(400, seed=9)
    assert (run(out, fresh)[0].argmax(axis=1) == run(path, fresh)[0].argmax(axis=1)).mean() > 0.8


def test_nothing_within_the_loss_leaves_the_original(tmp_path):
    path, out = network(tmp_path, classes=False), tmp_path / "out.onnx"
    candidates = quantize(path, ids(1500), aim="size", accuracy_loss=1e-9, out=out, budget=0.3)
    assert [one.kind for one in candidates if one.chosen] == [ORIGINAL]
    assert out.read_bytes() == path.read_bytes()
    assert "no other form serves better" in candidates[0].reason
    # the nearest form fails, and no other is tested
    assert sum("less than the" in one.reason for one in candidates[1:]) == 1
    assert sum(one.reason.startswith("not tested") for one in candidates[1:]) == len(candidates) - 2


def test_a_sample_too_short_for_the_loss_is_refused(tmp_path):
    path, out = network(tmp_path), tmp_path / "out.onnx"
    with pytest.raises(DataError, match=r"has 300 rows; a loss of 0.01 needs at least 399"):
        quantize(path, ids(300), aim="size", accuracy_loss=0.01, out=out)
    assert not out.exists()
    with pytest.raises(DataError, match="must be above 0"):
        quantize(path, ids(300), aim="size", accuracy_loss=0, out=out)


def test_the_original_may_be_replaced_in_place_or_stay(tmp_path):
    path = network(tmp_path, classes=False)
    before = path.read_bytes()
    quantize(path, ids(1500), aim="size", accuracy_loss=1e-9, out=path, budget=0.1)
    assert path.read_bytes() == before
    quantize(path, ids(240), aim="size", accuracy_loss=0.2, out=path, budget=0.1)
    assert len(path.read_bytes()) < len(before) / 2


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"other": np.zeros((90, 8), np.int64)}, "the graph takes ids"),
        ({"ids": np.zeros((90, 8), np.int64), "more": np.zeros(80)}, "one number of rows"),
        ({}, "one number of rows"),
    ],
)
def test_a_sample_of_another_form_is_refused(tmp_path, sample, words):
    with pytest.raises(DataError, match=words):
        quantize(network(tmp_path), sample, aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx")


@pytest.mark.parametrize("loss", [-0.1, 1.0, math.nan])
def test_a_loss_that_is_no_share_is_refused(tmp_path, loss):
    with pytest.raises(DataError, match="accuracy loss"):
        quantize(network(tmp_path), ids(90), aim="size", accuracy_loss=loss, out=tmp_path / "out.onnx")


def test_a_graph_that_gives_no_number_is_refused(tmp_path):
    path = save(
        tmp_path,
        "nan",
        [helper.make_node("Mul", ["x", "lost"], ["answer"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 2])],
        {"lost": np.array(np.nan, np.float32)},
    )
    with pytest.raises(DataError, match="no finite number"):
        quantize(path, {"x": np.ones((90, 2), np.float32)}, aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx")


def test_a_tree_ensemble_stays_and_says_why(tmp_path):
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["answer"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[1.0, 2.0],
    )
    path = save(
        tmp_path,
        "tree",
        [node],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 1])],
        {},
    )
    sample = {"x": np.random.default_rng(0).random((90, 1)).astype(np.float32)}
    (original,) = quantize(path, sample, aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx", budget=0.1)
    assert original.chosen
    assert "no layer with large float32 weights among its operators (TreeEnsembleRegressor)" in original.reason
    assert (tmp_path / "out.onnx").read_bytes() == path.read_bytes()


def old_product(folder, *nodes, opset, constants=(), ir_version=9):
    """A product with 64 x 64 weights, as an old exporter writes it, in front of other nodes."""
    weight = numpy_helper.from_array(np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32) / 8, "w")
    last = helper.make_node("MatMul", ["x", "w"], ["hidden" if nodes else "answer"])
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants]
    before = []
    if ir_version < 4:  # where initializers have to be inputs
        given.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 64]))
        initializers.append(weight)
    else:
        before.append(helper.make_node("Constant", [], ["w"], value=weight))
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 64])
    graph = helper.make_graph([*before, last, *nodes], "old", given, [answer], initializer=initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.save(model, folder / "old.onnx")
    return folder / "old.onnx"


@pytest.mark.parametrize(("opset", "ir_version"), [(8, 3), (12, 7), (17, 9)])
def test_old_operator_sets_and_weights_in_nodes_are_made_smaller_too(tmp_path, opset, ir_version):
    softmax = helper.make_node("Softmax", ["hidden"], ["answer"], axis=1)  # means something else from 13 on
    path = old_product(tmp_path, softmax, opset=opset, ir_version=ir_version)
    sample = {"x": np.random.default_rng(0).random((90, 64)).astype(np.float32)}
    before = path.read_bytes()
    found = quantize(path, sample, aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx", budget=0.1)
    chosen = next(one for one in found if one.chosen)
    assert chosen.kind != ORIGINAL
    assert chosen.agreement >= 0.9
    assert (tmp_path / "out.onnx").stat().st_size < 0.6 * len(before)
    assert path.read_bytes() == before


def test_an_operator_set_that_cannot_be_converted_says_why(tmp_path):
    names = ("scale", "shift", "mean", "var")
    old = helper.make_node("BatchNormalization", ["hidden", *names], ["answer"], spatial=0)
    path = old_product(tmp_path, old, opset=8, constants=[(name, np.ones(64, np.float32)) for name in names])
    sample = {"x": np.random.default_rng(0).random((90, 64)).astype(np.float32)}
    (original,) = quantize(path, sample, aim="speed", accuracy_loss=0.1, out=tmp_path / "out.onnx", budget=0.1)
    assert "onnx cannot convert the graph's 8" in original.reason
    assert "export the model with a newer one" in original.reason


def test_bytes_that_are_no_graph_are_refused(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\xff" * 50)
    with pytest.raises(DefinitionError, match="no ONNX graph"):
        quantize(path, ids(90), aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx")


def test_weights_in_other_files_are_refused(tmp_path):
    model = onnx.load(network(tmp_path))
    path = tmp_path / "apart.onnx"
    onnx.save(model, path, save_as_external_data=True, location="apart.bin", size_threshold=0)
    with pytest.raises(DefinitionError, match="weights in other files"):
        quantize(path, ids(90), aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx")


def test_without_onnx_the_install_line_is_named(tmp_path, monkeypatch):
    path, real = network(tmp_path), builtins.__import__

    def missing(name, *rest, **named):
        if name == "onnx" or name.startswith("onnx."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingPartError) as caught:
        quantize(path, ids(90), aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx")
    assert caught.value.hint == 'pip install "cumulant[train]"'
