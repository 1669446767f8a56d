"""Graphs that read tensors, made by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cumulant.core.servable import Batching, GraphServable
from cumulant.servable.engine import Engine
from cumulant.servable.folder import new_folder, write_sealed

KINDS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def write(folder, graph, *, name="graph", version="", exact=True, columns=(), required=()):
    """A servable's folder of an ONNX graph."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    with new_folder(folder) as draft:
        (draft / "model.onnx").write_bytes(model.SerializeToString())
        engine = Engine(draft / "model.onnx")
        servable = GraphServable(
            name=name,
            version=version,
            inputs=engine.inputs,
            outputs=engine.outputs,
            batching=Batching(exact=exact),
            columns=columns,
            required=required,
        )
        write_sealed(draft, servable)
    return folder


def tensor(name, datatype, shape):
    return helper.make_tensor_value_info(name, KINDS[datatype], shape)


def echo(folder, datatypes=tuple(KINDS), **settings):
    """One input and one equal output of each datatype, of any length and width."""
    nodes = [helper.make_node("Identity", [f"in_{one}"], [f"out_{one}"]) for one in datatypes]
    inputs = [tensor(f"in_{one}", one, ["n", "m"]) for one in datatypes]
    outputs = [tensor(f"out_{one}", one, ["n", "m"]) for one in datatypes]
    return write(folder, helper.make_graph(nodes, "echo", inputs, outputs), **settings)


def scale(folder, factor=2.0, width=3, **settings):
    """A matrix [n, width] times a factor, and the sum of each row."""
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", "axes"], ["total"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "scale",
        [tensor("x", "FP32", ["n", width])],
        [tensor("scaled", "FP32", ["n", width]), tensor("total", "FP32", ["n"])],
        initializer=[constant, axes],
    )
    return write(folder, graph, **settings)


def slow(folder, size=700, depth=4, **settings):
    """Matrix products that take some milliseconds a row."""
    random = np.random.default_rng(3)
    weights = [
        numpy_helper.from_array((random.normal(size=(size, size)) / size).astype(np.float32), f"w{k}")
        for k in range(depth)
    ]
    nodes = [
        helper.make_node("MatMul", ["x" if k == 0 else f"h{k - 1}", f"w{k}"], ["y" if k == depth - 1 else f"h{k}"])
        for k in range(depth)
    ]
    graph = helper.make_graph(
        nodes, "slow", [tensor("x", "FP32", ["n", size])], [tensor("y", "FP32", ["n", size])], initializer=weights
    )
    return write(folder, graph, **settings)
