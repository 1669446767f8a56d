"""Servables that read tensors, built with onnx in the test."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from cumulant.core.servable import Batching, GraphServable, TensorSpec
from cumulant.packaging import new_folder, seal

ELEMENTS = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}  # fmt: skip


def write(out, name, inputs, outputs, nodes, *, version="1", exact=False):
    """A servable's folder; `inputs` and `outputs` are (name, datatype, shape)."""

    def values(specs):
        return [
            helper.make_tensor_value_info(n, ELEMENTS[t], [f"{n}_{k}" if s == -1 else s for k, s in enumerate(shape)])
            for n, t, shape in specs
        ]

    graph = helper.make_graph(nodes, name, values(inputs), values(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    servable = GraphServable(
        name=name,
        version=version,
        inputs=tuple(TensorSpec(n, t, tuple(shape)) for n, t, shape in inputs),
        outputs=tuple(TensorSpec(n, t, tuple(shape)) for n, t, shape in outputs),
        batching=Batching(exact=exact),
    )
    with new_folder(out) as folder:
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        seal(folder, servable)
    return out


def write_echo(out, name="echo", version="1"):
    """Gives back every datatype: `FP16` in, `FP16_out` out; any number of rows and columns, each on its own."""
    nodes = [helper.make_node("Identity", [t], [f"{t}_out"]) for t in ELEMENTS]
    inputs = [(t, t, (-1, -1)) for t in ELEMENTS]
    outputs = [(f"{t}_out", t, (-1, -1)) for t in ELEMENTS]
    return write(out, name, inputs, outputs, nodes, version=version)


def write_mixed(out, name="mixed", version="1"):
    """`total` [n] is the sum of each row of `x` FP32 [n, any]; `words` BYTES [any] and `half` FP16 [n, 2] come back."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["total"], keepdims=0),
        helper.make_node("Identity", ["words"], ["words_out"]),
        helper.make_node("Identity", ["half"], ["half_out"]),
        helper.make_node("Constant", [], ["axis"], value=helper.make_tensor("a", TensorProto.INT64, [1], [1])),
    ]
    nodes = [nodes[-1], *nodes[:-1]]
    inputs = [("x", "FP32", (-1, -1)), ("words", "BYTES", (-1,)), ("half", "FP16", (-1, 2))]
    outputs = [("total", "FP32", (-1,)), ("words_out", "BYTES", (-1,)), ("half_out", "FP16", (-1, 2))]
    return write(out, name, inputs, outputs, nodes, version=version)


def write_double(out, name="double", version="1"):
    """`y` = 2 `x`, FP32 [n, 3]."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return write(out, name, [("x", "FP32", (-1, 3))], [("y", "FP32", (-1, 3))], nodes, version=version, exact=True)
