"""A small network, its sample, and how a graph is saved and run."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from cumulant.packaging.quantize.choice import ORIGINAL


def save(folder, name, nodes, inputs, outputs, constants, opset=17):
    values = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializer=values)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


def network(folder, *, classes=True, name="net", opset=17):
    """Ids [n, 8] -> table -> convolution -> pool -> MatMul -> Gemm -> 16 classes."""
    rng = np.random.default_rng(3)
    draw = lambda *shape: (rng.normal(size=shape) / math.sqrt(np.prod(shape[1:]))).astype(np.float32)  # type: ignore[attr-defined]  # noqa: E731
    constants = {
        "table": draw(64, 32) * 6,
        "kernel": draw(48, 32, 3),
        "bias": draw(48, 1)[:, 0],
        "first": draw(48, 64),
        "second": draw(16, 64) * 8,
        "last": draw(16, 1)[:, 0],
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "ids"], ["found"], axis=0),
        node("Transpose", ["found"], ["turned"], perm=[0, 2, 1]),
        node("Conv", ["turned", "kernel", "bias"], ["seen"], pads=[1, 1]),
        node("Relu", ["seen"], ["kept"]),
        node("GlobalMaxPool", ["kept"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("MatMul", ["flat", "first"], ["hidden"]),
        node("Tanh", ["hidden"], ["bent"]),
        node("Gemm", ["bent", "second", "last"], ["scores"], transB=1),
        node("Softmax", ["scores"], ["answer"], axis=1)
        if classes
        else node("ReduceSum", ["scores", "axes"], ["answer"], keepdims=0),
    ]
    if not classes:
        constants["axes"] = np.array([1], np.int64)
    shape = ["n", 16] if classes else ["n"]
    return save(
        folder,
        name,
        nodes,
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 8])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, shape)],
        constants,
        opset,
    )


def ids(rows, seed=0):
    return {"ids": np.random.default_rng(seed).integers(0, 64, size=(rows, 8))}


def run(path, feeds):
    content = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feeds)


KINDS = {
    ORIGINAL,
    "float16 weights",
    "float16",
    "int8 weights",
    "4-bit weights",
    "int8 dynamic",
    "4-bit products",
    "int8 static",
    "int8 static, mixed",
    "int8 static, careful",
    "mixed weights, 70% of the loss spent",
    "mixed weights, 35% of the loss spent",
    "mixed weights, 10% of the loss spent",
}
