"""`cumulant package --state`: which tensors of a graph a server keeps between requests."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import quantize_dynamic

from cumulant.servable.folder import load_description


def value(name, shape, element=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element, shape)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """`rnn.onnx`: an accumulator whose state is [1, batch, 2], as recurrent networks have it, and `grow.onnx`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["wide"]),
        helper.make_node("Add", ["wide", "h_in"], ["h_out"]),
        helper.make_node("Squeeze", ["h_out", "axes"], ["y"]),
        helper.make_node("Cast", ["x"], ["other"], to=TensorProto.DOUBLE),
    ]
    graph = helper.make_graph(
        nodes,
        "rnn",
        [value("x", ["batch", 2]), value("h_in", [1, "batch", 2])],
        [value("y", ["batch", 2]), value("h_out", [1, "batch", 2]), value("other", ["batch", 2], TensorProto.DOUBLE)],
        [axes],
    )
    save(graph, "rnn.onnx")
    grow = helper.make_graph(
        [helper.make_node("Concat", ["past", "x"], ["present"], axis=1), helper.make_node("Shape", ["present"], ["n"])],
        "grow",
        [value("x", ["b", 1]), value("past", ["b", "seen"])],
        [value("present", ["b", "more"]), value("n", [2], TensorProto.INT64)],
    )
    save(grow, "grow.onnx")
    np.save("rows.npy", np.ones((5, 2), np.float32))
    return tmp_path


def save(graph, path):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def test_a_pair_is_written_with_the_rows_where_the_graph_has_them(place, cumulant):
    done = cumulant(
        "package",
        "rnn.onnx",
        "--out",
        "out",
        "--state",
        "h_in=h_out",
        "--state-idle",
        "30s",
        "--sample",
        "rows.npy",
        "--json",
    )
    assert done.code == 0, done.err
    assert done.document["state"] == [
        {"input": "h_in", "output": "h_out", "datatype": "FP32", "shape": [1, -1, 2], "initial": "zeros"}
    ]
    described = load_description(place / "out")
    assert (described.state_idle, described.batching.exact, described.parity.rows) == (30.0, False, 5)
    assert list(described.example) == ["x"]


def test_a_person_is_told(place, cumulant):
    done = cumulant("package", "rnn.onnx", "--out", "out", "--state", "h_in=h_out")
    assert "h_out -> h_in" in done.out


def test_another_free_size_begins_at_none(place, cumulant):
    done = cumulant("package", "grow.onnx", "--out", "out", "--state", "past=present", "--json")
    assert done.document["state"][0]["shape"] == [-1, 0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--state", "h_in"), "INPUT=OUTPUT"),
        (("--state", "h_in=h_out", "--state", "h_in=y"), "names no pair"),
        (("--state", "h_on=h_out"), "h_in"),
        (("--state", "h_in=h_oot"), "h_out"),
        (("--state", "h_in=other"), "FP64"),
        (("--state", "h_in=y"), "sizes"),
        (("--state", "x=h_out"), "sizes"),
        (("--state", "h_in=h_out", "--quantize", "size", "--sample", "rows.npy"), "--quantize"),
        (("--state", "h_in=h_out", "--state-idle", "soon"), "soon"),
    ],
    ids=str,
)
def test_what_cannot_be_state_is_refused_and_leaves_nothing(place, cumulant, options, words):
    done = cumulant("package", "rnn.onnx", "--out", "out", *options)
    assert (done.code, words in done.err) == (2, True), done.err
    assert not (place / "out").exists()


def test_a_graph_that_was_quantized_before_keeps_state(place, cumulant):
    """What the refusal of --quantize with --state says to do."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "h_in"], ["h_out"])],
        "net",
        [value("x", ["batch", 16]), value("h_in", ["batch", 16])],
        [value("h_out", ["batch", 16])],
        [helper.make_tensor("w", TensorProto.FLOAT, [16, 16], np.eye(16, dtype=np.float32).ravel())],
    )
    save(graph, "net.onnx")
    np.save("rows.npy", np.ones((5, 16), np.float32))
    words = ("--out", "out", "--state", "h_in=h_out", "--sample", "rows.npy")
    refused = cumulant("package", "net.onnx", *words, "--quantize", "size")
    assert (refused.code, 'quantize_dynamic("net.onnx", "small.onnx")' in " ".join(refused.err.split())) == (2, True)
    quantize_dynamic("net.onnx", "small.onnx")
    done = cumulant("package", "small.onnx", *words, "--json")
    assert (done.code, done.document["state"][0]["input"]) == (0, "h_in"), done.err


def test_a_servable_keeps_the_state_that_it_has(place, cumulant):
    cumulant("package", "rnn.onnx", "--out", "out", "--state", "h_in=h_out")
    cumulant("package", "out", "--out", "copy", "--name", "copy")
    assert load_description(place / "copy").state == load_description(place / "out").state
    assert cumulant("package", "out", "--out", "third", "--state", "h_in=h_out").code == 2


def test_a_file_is_no_sequence(place, cumulant):
    cumulant("package", "rnn.onnx", "--out", "out", "--state", "h_in=h_out")
    done = cumulant("predict", "out", "--input", "rows.npy", "--output", "answers.parquet")
    assert (done.code, "keeps state" in done.err) == (2, True), done.err
