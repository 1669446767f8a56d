"""A model is tried before a server starts or loads it: what has no end, wants too much or lies is refused."""

from __future__ import annotations

import hashlib
import json
import sys

import msgspec
import pytest
from onnx import TensorProto, helper
from serving_graphs import echo, scale, tensor, write
from serving_models import servable

from cumulant.core.errors import IntegrityError, OutOfMemoryError, UsageError
from cumulant.core.servable import TensorSpec
from cumulant.servable.folder import load_description, write_description
from cumulant.serving.content_pins import pin
from cumulant.serving.models.model import open_model
from cumulant.serving.models.passed_checks import PassedChecks, passed_checks_folder
from cumulant.serving.settings import Settings
from cumulant.serving.workers.load_check import LoadCheck


def endless(folder):
    """A loop whose condition stays true."""
    flag = lambda name: helper.make_tensor_value_info(name, TensorProto.BOOL, [])  # noqa: E731
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["a"], ["b"])],
        "body",
        [count, flag("go"), tensor("a", "FP32", ["n", 3])],
        [flag("on"), tensor("b", "FP32", ["n", 3])],
    )
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    nodes = [helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)]
    graph = helper.make_graph(
        nodes, "endless", [tensor("x", "FP32", ["n", 3])], [tensor("y", "FP32", ["n", 3])], [true]
    )
    return write(folder, graph)


def bomb(folder):
    """16 TiB of zeros for any row."""
    size = helper.make_tensor("size", TensorProto.INT64, [1], [2**42])
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["most"], keepdims=0),
        helper.make_node("Add", ["x", "most"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "bomb", [tensor("x", "FP32", ["n", 3])], [tensor("y", "FP32", ["n", 3])], [size])
    return write(folder, graph)


def picks(folder):
    """The number at a place, of two."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [2], [1.0, 2.0])
    nodes = [helper.make_node("Gather", ["table", "i"], ["y"])]
    graph = helper.make_graph(nodes, "picks", [tensor("i", "INT64", ["n"])], [tensor("y", "FP32", ["n"])], [table])
    return write(folder, graph)


def fixed(folder):
    """Five rows at once, neither more nor fewer."""
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    return write(folder, helper.make_graph(nodes, "five", [tensor("x", "FP32", [5, 3])], [tensor("y", "FP32", [5, 3])]))


def trial(folder, *, seconds=60, passed=None):
    return LoadCheck(Settings(folders=(str(folder),), passed=None if passed is None else str(passed)), seconds=seconds)


def described(folder, **changes):
    """The folder with another description, true to its files' hashes."""
    write_description(folder, msgspec.structs.replace(load_description(folder), **changes))
    return folder


def test_a_single_model_without_an_end_does_not_start(tmp_path):
    endless(tmp_path / "one")
    for start in (trial(tmp_path, seconds=2).check_all, lambda: trial(tmp_path, seconds=2).versions("graph")):
        with pytest.raises(UsageError, match="was not ready within 2 s"):
            start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a limit of addresses")
def test_a_model_that_wants_too_much_memory_is_left_out(tmp_path):
    bomb(tmp_path / "bomb")
    with pytest.raises(IntegrityError, match=r"too little memory: .*bytes of memory at once"):
        trial(tmp_path).check_all()
    scale(tmp_path / "sound", name="sound")
    two = trial(tmp_path)
    assert [one.name for one in two.check_all()] == ["sound"]
    assert "too little memory" in two.left_out[str(tmp_path / "bomb")]


X, SCALED, TOTAL = (
    TensorSpec("x", "FP32", (-1, 3)),
    TensorSpec("scaled", "FP32", (-1, 3)),
    TensorSpec("total", "FP32", (-1,)),
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outputs": ()}, "no output is described"),
        ({"outputs": (SCALED, SCALED)}, "described twice"),
        ({"outputs": (TensorSpec("p", "FP32", (-1, 3)),)}, 'the output "p" is described, and the graph has none'),
        ({"outputs": (TensorSpec("total", "BYTES", (-1,)),)}, "described as BYTES"),
        ({"inputs": ()}, 'the graph has the input "x"'),
        ({"inputs": (X, TensorSpec("z", "FP32", (-1, 3)))}, 'the input "z" is described'),
        ({"inputs": (TensorSpec("x", "FP32", (-1, 4)),)}, "described as FP32"),
        ({"inputs": (TensorSpec("x", "FP32", (-3, 3)),)}, "described as FP32"),
    ],
)
def test_a_description_that_the_graph_does_not_fit_is_refused(tmp_path, changes, words):
    described(scale(tmp_path / "one"), **changes)
    with pytest.raises(IntegrityError, match=words):
        open_model(tmp_path / "one")


def test_a_description_may_leave_outputs_away_and_fix_sizes(tmp_path):
    described(scale(tmp_path / "one", width="k"), inputs=(X,), outputs=(SCALED,))
    open_model(tmp_path / "one").try_run()
    # An engine of another release may infer other shapes of outputs than the one that packaged the model.
    for shape in ((), (-1,), (-1, 7)):
        described(tmp_path / "one", outputs=(TensorSpec("scaled", "FP32", shape),))
        open_model(tmp_path / "one").try_run()


def test_an_example_that_its_model_refuses_is_no_sound_servable(tmp_path):
    scale(tmp_path / "one")
    for example in ({"x": [1.0, 2.0, 3.0]}, {}):
        open_model(described(tmp_path / "one", example=example)).try_run()
    for example in ({"x": [1.0, 2.0]}, {"x": ["a", "b", "c"]}):
        described(tmp_path / "one", example=example)
        with pytest.raises(IntegrityError, match="another shape or type"):
            open_model(tmp_path / "one").try_run()
    picks(tmp_path / "two")  # a row that the graph refuses is the caller's fault, its own example is not
    open_model(tmp_path / "two").try_run()
    described(tmp_path / "two", example={"i": [9]})
    with pytest.raises(IntegrityError, match="cannot answer its own example"):
        open_model(tmp_path / "two").try_run()


def test_lack_of_memory_is_no_fault_of_a_servable(tmp_path, monkeypatch):
    bomb(tmp_path / "one")
    graph = open_model(described(tmp_path / "one", example={"x": [1.0, 2.0, 3.0]}))
    with pytest.raises(OutOfMemoryError, match="too little memory"):
        graph.try_run()
    rows = open_model(servable(tmp_path / "two"))

    def lacking(*_):
        raise OutOfMemoryError("a run has too little memory")

    monkeypatch.setattr(rows.runner, "try_run", lacking)
    with pytest.raises(OutOfMemoryError, match="too little memory"):
        rows.try_run()


def test_an_example_of_unknown_shape_is_not_tried(tmp_path):
    echo(tmp_path / "echo", ("FP32",))
    described(tmp_path / "echo", example={"in_FP32": [1.0, 2.0]})
    open_model(tmp_path / "echo").try_run()
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "deep",
        [tensor("x", "FP32", ["n", "a", "b"])],
        [tensor("y", "FP32", ["n", "a", "b"])],
    )
    for name, folder in (("wide", write(tmp_path / "wide", graph)), ("five", fixed(tmp_path / "five"))):
        open_model(described(folder, name=name, example={"x": [1.0, 2.0, 3.0]})).try_run()


def test_a_row_model_whose_graph_gives_other_answers_is_refused(tmp_path):
    model = servable(tmp_path / "one") / "model.onnx"
    trial(tmp_path).check_all()
    wide = helper.make_graph(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=1), helper.make_node("Cast", ["y"], ["z"], to=11)],
        "wide",
        [tensor("x", "FP32", ["n", "k"])],
        [tensor("z", "FP64", ["n", "m"])],
    )
    opset = [helper.make_opsetid("", 21)]
    content = helper.make_model(wide, opset_imports=opset, ir_version=10).SerializeToString()
    model.write_bytes(content)
    path = tmp_path / "one" / "servable.json"
    text = json.loads(path.read_text())
    text["files"]["model.onnx"] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(text))
    with pytest.raises(IntegrityError, match="gives 24 answers for 3 rows"):
        trial(tmp_path).check_all()


def test_every_kind_of_tensor_is_tried(tmp_path):
    echo(tmp_path / "echo")
    (pinned,) = trial(tmp_path).check_all()
    assert pinned.name == "graph"


def test_content_that_passed_is_not_tried_again(tmp_path, monkeypatch):
    models, passed = tmp_path / "models", tmp_path / "cache" / "trials"
    scale(models / "one", 2.0)
    (first,) = trial(models, passed=passed).check_all()
    assert passed.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))  # no process can be started from here on
    assert trial(models, passed=passed).check_all() == [first]
    for change in (lambda: scale(models / "one", 3.0), lambda: passed.chmod(0o777)):
        change()
        with pytest.raises(FileNotFoundError):
            trial(models, passed=passed).check_all()
        scale(models / "one", 2.0)


def test_results_that_others_can_write_do_not_count(tmp_path):
    one = pin(scale(tmp_path / "one"))
    passed = PassedChecks(str(tmp_path / "trials"))
    assert one not in passed
    passed.add(one)
    assert one in passed
    (tmp_path / "link").symlink_to(tmp_path / "trials")
    assert one not in PassedChecks(str(tmp_path / "link"))
    assert one not in PassedChecks(None)
    (tmp_path / "trials").chmod(0o770)
    assert one not in passed
    (tmp_path / "file").touch()
    PassedChecks(str(tmp_path / "file" / "trials")).add(one)  # cannot be made: nothing happens


def test_where_results_are_kept(monkeypatch, tmp_path):
    assert passed_checks_folder({"XDG_CACHE_HOME": "/somewhere"}) == "/somewhere/cumulant/trials"
    assert passed_checks_folder({"XDG_CACHE_HOME": "relative"}) is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert passed_checks_folder({}) == str(tmp_path / ".cache" / "cumulant" / "trials")
