"""Graphs that load and cannot run are no servables; what the engine says of them is fit to be read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from foreign_models import built, given
from onnx import TensorProto, helper

from cumulant.cli.app import run
from cumulant.core.errors import DataError, DefinitionError
from cumulant.packaging.engine_words import plain
from cumulant.packaging.foreign.graphs import from_graph


def graph(node, *constants, width="m"):
    found = helper.make_graph(
        [node], "graph", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "k"])], initializer=list(constants),
    )  # fmt: skip
    return helper.make_model(found, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def integers(name, *values):
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


GREEDY = graph(helper.make_node("Expand", ["x", "s"], ["y"], name="ex"), integers("s", 1, 10**14), width=1)


def test_a_graph_that_cannot_run_is_no_servable(tmp_path, capsys):
    with pytest.raises(
        DefinitionError, match=r"cannot run it: Expand \(ex\): it needs [\d,]+ bytes of memory at once$"
    ):
        built(from_graph(GREEDY), tmp_path / "out")
    onnx.save(GREEDY, tmp_path / "greedy.onnx")
    assert run(["package", str(tmp_path / "greedy.onnx"), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr().err
    assert "--sample FILE" in said
    assert "onnxruntime/core" not in said


def test_a_graph_that_takes_one_width_only_is_found_to_run(tmp_path):
    node = helper.make_node("Gather", ["x", "s"], ["y"], axis=1)
    assert built(from_graph(graph(node, integers("s", 0))), tmp_path / "a").inputs
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 2], [1.0, 2.0])
    assert built(from_graph(graph(helper.make_node("MatMul", ["x", "w"], ["y"]), weight)), tmp_path / "b").inputs


def test_a_graph_that_does_not_load_is_named_without_the_place_of_its_draft(tmp_path):
    with pytest.raises(DefinitionError) as caught:
        built(from_graph(graph(helper.make_node("Unheard", ["x"], ["y"]))), tmp_path / "out")
    assert "no graph that onnxruntime can run" in caught.value.message
    assert "Unheard" in caught.value.message
    assert str(tmp_path) not in caught.value.message


FAILED = "[ONNXRuntimeError] : 1 : FAIL : "
RAN = f"{FAILED}Non-zero status code returned while running "
RESHAPE = (
    f"{RAN}Reshape node. Name:'' Status Message: /onnxruntime_src/onnxruntime/core/providers/cpu/reshape_helper.h:91 "
    "onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, bool) a == b was false. "
    "The input tensor cannot be reshaped. Input shape:{2,3}"
)
MATMUL = f"{RAN}MatMul node. Name:'mm' Status Message: matmul_helper.h:59 Compute MatMul dimension mismatch"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (RESHAPE, "Reshape: The input tensor cannot be reshaped. Input shape:{2,3}"),
        (MATMUL, "MatMul (mm): MatMul dimension mismatch"),
        (f"{FAILED}Load model from /tmp/a1/model.onnx failed:Type Error", "Type Error"),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions\n index: 1", "Got invalid dimensions"),
    ],
)
def test_words_of_the_engine_are_plain(said, words):
    assert plain(RuntimeError(said)) == words


def test_rows_that_do_not_fit_are_refused_in_plain_words(tmp_path):
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    with pytest.raises(DataError, match=r"^the sample does not fit the model: .*Reshape: ") as caught:
        built(from_graph(graph(node, integers("s", 7, 7))), tmp_path / "out", given(np.ones((3, 2)), "x"))
    assert ".h:" not in caught.value.message
