"""Graphs that answer rows of a file."""

from __future__ import annotations

import lightgbm
import numpy as np
import onnx
from onnx import TensorProto, helper

from cumulant.core.servable import Batching, GraphServable, TensorSpec
from cumulant.packaging.graphs.graph import GraphBuilder
from cumulant.packaging.graphs.lightgbm_trees import add_boosters
from cumulant.servable.engine import Engine
from cumulant.servable.folder import new_folder, write_sealed

COLUMNS = tuple(f"f{number}" for number in range(6))


def trees(folder, count=40, *, required=()):
    """A forest on six columns."""
    random = np.random.default_rng(7)
    rows = random.normal(size=(2000, len(COLUMNS)))
    label = (rows[:, :3].sum(axis=1) + random.normal(size=len(rows)) > 0).astype(int)
    settings = {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1, "seed": 7}
    found = lightgbm.train(settings, lightgbm.Dataset(rows, label), num_boost_round=count)
    graph = GraphBuilder(len(COLUMNS))
    result, outputs = add_boosters(graph, [found.model_to_string()])
    servable = GraphServable(
        name="forest",
        inputs=(TensorSpec("input", "FP32", (-1, len(COLUMNS))),),
        outputs=(TensorSpec("output", "FP64", (-1, outputs)),),
        columns=COLUMNS,
        required=required,
        batching=Batching(exact=True),
    )
    with new_folder(folder) as draft:
        (draft / "model.onnx").write_bytes(graph.finish(result, outputs).SerializeToString())
        write_sealed(draft, servable)
    return folder


def write(folder, nodes, inputs, outputs, *, batching=Batching(exact=True), initializer=()):  # noqa: B008 - a value
    """A graph of (name, element, shape) inputs and outputs."""
    tensors = [[helper.make_tensor_value_info(*one) for one in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "graph", *tensors, initializer=list(initializer))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    with new_folder(folder) as draft:
        (draft / "model.onnx").write_bytes(model.SerializeToString())
        engine = Engine(draft / "model.onnx")
        write_sealed(
            draft, GraphServable(name="graph", inputs=engine.inputs, outputs=engine.outputs, batching=batching)
        )
    return folder


def several(folder):
    """A number, whole numbers [n, 3] and a text; their sum, their double, and the text."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("ReduceSum", ["many", "axes"], ["total"], keepdims=0),
        helper.make_node("Cast", ["total"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["one", "wide"], ["sum"]),
        helper.make_node("Add", ["many", "many"], ["double"]),
        helper.make_node("Identity", ["word"], ["said"]),
    ]
    inputs = [
        ("one", TensorProto.FLOAT, ["n"]),
        ("many", TensorProto.INT64, ["n", 3]),
        ("word", TensorProto.STRING, ["n", 1]),
    ]
    outputs = [
        ("sum", TensorProto.FLOAT, ["n"]),
        ("double", TensorProto.INT64, ["n", 3]),
        ("said", TensorProto.STRING, ["n", 1]),
    ]
    return write(folder, nodes, inputs, outputs, initializer=[axes])


def neighbourly(folder, *, reason="the rows beside a row change it"):
    """Each answer is the row's value less the mean of the rows that are scored with it."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["mean"]), helper.make_node("Sub", ["x", "mean"], ["y"])]
    shape = ["n"]
    ends = [("x", TensorProto.FLOAT, shape)], [("y", TensorProto.FLOAT, shape)]
    return write(folder, nodes, *ends, batching=Batching(exact=False, reason=reason), initializer=[axes])
