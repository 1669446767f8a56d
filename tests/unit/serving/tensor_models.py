"""Servables that read tensors, built with onnx in the test."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from cumulant.core.servable import Batching, GraphServable, StateTensor, TensorSpec
from cumulant.servable.folder import new_folder, write_sealed

ELEMENTS = {
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


def write(out, name, inputs, outputs, nodes, *, version="1", exact=False, **described):
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
        **described,
    )
    with new_folder(out) as folder:
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        write_sealed(folder, servable)
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


def write_sums(out, name="sums", version="1", idle=600.0, factor=1.0):
    """`total` [n, 2] is the sum of all `x` FP32 [n, 2] of a sequence; each `x` counts `factor` times."""
    constant = helper.make_node("Constant", [], ["f"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [factor]))
    nodes = [
        constant,
        helper.make_node("Mul", ["x", "f"], ["scaled"]),
        helper.make_node("Add", ["scaled", "kept"], ["left"]),
        helper.make_node("Identity", ["left"], ["total"]),
    ]
    inputs = [("x", "FP32", (-1, 2)), ("kept", "FP32", (-1, 2))]
    outputs = [("total", "FP32", (-1, 2)), ("left", "FP32", (-1, 2))]
    state = (StateTensor("kept", "left", "FP32", (-1, 2)),)
    return write(out, name, inputs, outputs, nodes, version=version, state=state, state_idle=idle)


def write_history(out, name="history", version="1"):
    """`count` INT64 [1] says how many `x` FP32 [n] of a sequence there were; all are kept, from none on."""
    nodes = [
        helper.make_node("Concat", ["kept", "x"], ["left"], axis=0),
        helper.make_node("Shape", ["left"], ["count"]),
    ]
    inputs, outputs = (
        [("x", "FP32", (-1,)), ("kept", "FP32", (-1,))],
        [("count", "INT64", (1,)), ("left", "FP32", (-1,))],
    )
    state = (StateTensor("kept", "left", "FP32", (0,)),)
    return write(out, name, inputs, outputs, nodes, version=version, state=state)


def write_scores(out, name="scores", version="1", labels=("cat", "dog", "eel")):
    """Gives back `x` FP32 [n, 3] as `scores`, `whole` INT8 [4] as `ranks`, and `words` BYTES [any]."""
    nodes = [
        helper.make_node("Identity", [one], [two])
        for one, two in (("x", "scores"), ("whole", "ranks"), ("words", "words_out"))
    ]
    inputs = [("x", "FP32", (-1, 3)), ("whole", "INT8", (4,)), ("words", "BYTES", (-1,))]
    outputs = [("scores", "FP32", (-1, 3)), ("ranks", "INT8", (4,)), ("words_out", "BYTES", (-1,))]
    return write(out, name, inputs, outputs, nodes, version=version, classes=labels)


def write_double(out, name="double", version="1"):
    """`y` = 2 `x`, FP32 [n, 3]."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return write(out, name, [("x", "FP32", (-1, 3))], [("y", "FP32", (-1, 3))], nodes, version=version, exact=True)
