"""Graphs that load and cannot run are no servables; what the engine says of them is fit to be read."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from foreign_models import built, given
from onnx import TensorProto, helper

from cumulant.cli.app import run
from cumulant.core.errors import DataError, DefinitionError, RequestError
from cumulant.packaging.convert import trial_run
from cumulant.packaging.convert.onnx_files import from_graph, read_graph
from cumulant.servable import bounded_run
from cumulant.servable.engine import Engine
from cumulant.servable.engine_errors import plain_message


def graph(node, *constants, width="m"):
    found = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "k"])],
        initializer=list(constants),
    )
    return helper.make_model(found, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def integers(name, *values):
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


GREEDY = graph(helper.make_node("Expand", ["x", "s"], ["y"], name="ex"), integers("s", 1, 10**14), width=1)


def test_a_graph_that_cannot_run_is_no_servable(tmp_path, capsys):
    with pytest.raises(
        DefinitionError, match=r"too little memory: Expand \(ex\): it needs [\d,]+ bytes of memory at once$"
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
    assert plain_message(RuntimeError(said)) == words


def test_rows_that_do_not_fit_are_refused_in_plain_words(tmp_path):
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    with pytest.raises(DataError, match=r"^the sample does not fit the model: .*Reshape: ") as caught:
        built(from_graph(graph(node, integers("s", 7, 7))), tmp_path / "out", given(np.ones((3, 2)), "x"))
    assert ".h:" not in caught.value.message


def endless():
    """A graph that runs its loop 2**62 times."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n", 2]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, ["n", 2]),
        ],
    )
    turns = helper.make_tensor("turns", TensorProto.INT64, [], [2**62])
    return graph(
        helper.make_node("Loop", ["turns", "go", "x"], ["y"], body=body),
        turns,
        helper.make_tensor("go", TensorProto.BOOL, [], [True]),
        width=2,
    )


def test_a_graph_that_does_not_come_to_an_end_is_no_servable(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_run, "BASE_SECONDS", 0.2)
    monkeypatch.setattr(bounded_run, "ROW_SECONDS", 0.0)
    with pytest.raises(DefinitionError, match=r"a run of the graph took more than 0\.2 s"):
        built(from_graph(endless()), tmp_path / "made-up")
    with pytest.raises(DefinitionError, match="a run of the graph took more than"):
        built(from_graph(endless()), tmp_path / "given", given(np.ones((3, 2), np.float32), "x"))
    assert not list(tmp_path.iterdir())


def test_each_of_several_runs_has_its_own_time(tmp_path, monkeypatch):
    model = endless()
    model.graph.initializer.remove(next(one for one in model.graph.initializer if one.name == "turns"))
    model.graph.input.append(helper.make_tensor_value_info("turns", TensorProto.INT64, []))
    onnx.save(model, tmp_path / "loop.onnx")
    engine = Engine(tmp_path / "loop.onnx", untried=True)
    feeds = [{"x": np.full((1, 2), value, np.float32), "turns": np.array(turns)} for value, turns in ((1, 1), (2, 2))]
    assert [answers[0].tolist() for answers in engine.run_each(feeds)] == [[[-1, -1]], [[2, 2]]]
    with monkeypatch.context() as short:
        short.setattr(bounded_run, "BASE_SECONDS", 0.2)
        short.setattr(bounded_run, "ROW_SECONDS", 0.0)
        taken = time.monotonic()
        with pytest.raises(DefinitionError, match=r"a run of the graph took more than 0\.2 s"):
            engine.run_each([*feeds, feeds[0] | {"turns": np.array(2**62)}, feeds[0]])
        assert time.monotonic() - taken >= 0.2
    with pytest.raises(RequestError, match="the model cannot take these inputs"):
        engine.run_each([feeds[0], feeds[0] | {"x": np.ones((1, 3), np.float32)}])


def doubling(levels):
    """A graph of 2**(levels - 1) operators, written with functions in a few hundred bytes."""
    own, standard = helper.make_opsetid("own", 1), helper.make_opsetid("", 21)
    functions = [helper.make_function("own", "f0", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], [standard])]
    for level in range(1, levels):
        calls = [
            helper.make_node(f"f{level - 1}", [one], [other], domain="own") for one, other in (("x", "t"), ("t", "y"))
        ]
        functions.append(helper.make_function("own", f"f{level}", ["x"], ["y"], calls, [standard, own]))
    found = graph(helper.make_node(f"f{levels - 1}", ["x"], ["y"], domain="own"), width=2)
    found.functions.extend(functions)
    found.opset_import.append(own)
    return found


def test_a_graph_that_does_not_get_loaded_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(trial_run, "SECONDS", 3)
    onnx.save(doubling(3), tmp_path / "small.onnx")
    assert read_graph(tmp_path / "small.onnx").kind == "ONNX"
    onnx.save(doubling(40), tmp_path / "bomb.onnx")
    with pytest.raises(DataError, match=r"was not ready with .*bomb\.onnx within 3 s"):
        read_graph(tmp_path / "bomb.onnx")
