"""A small builder of ONNX graphs: one float32 matrix in, one float64 matrix out.

Everything inside runs in float64: the answers then equal those of the trained model, and onnxruntime
takes no longer for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import missing_part

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

INPUT, OUTPUT = "input", "output"
ML_DOMAIN = "ai.onnx.ml"
#: the newest that onnxruntime 1.22 knows in full
OPSET, ML_OPSET, IR_VERSION = 21, 5, 10


def onnx_part() -> Any:
    """The `onnx` package, imported on first use."""
    try:
        import onnx
        import onnx.checker
        import onnx.compose
        import onnx.helper
        import onnx.numpy_helper
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "onnx", "train") from None
    return onnx


class Graph:
    """Nodes and constants of one graph; `x` names its input as float64 [n, k]."""

    def __init__(self, width: int) -> None:
        self._onnx = onnx_part()
        self._width = width
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self.x = self.add("Cast", INPUT, to=self._onnx.TensorProto.DOUBLE)

    def add(self, op: str, *inputs: str, domain: str = "", output: str | None = None, **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        name = output or f"{op.lower()}_{len(self._nodes)}"
        node = self._onnx.helper.make_node(op, list(inputs), [name], name=f"n{len(self._nodes)}", domain=domain)
        for key in sorted(attributes):
            node.attribute.append(self._onnx.helper.make_attribute(key, attributes[key]))
        self._nodes.append(node)
        return name

    def constant(self, value: NDArray[np.generic]) -> str:
        """Add a constant; returns its name."""
        name = f"c{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float64))

    def link(self, kind: str, score: str) -> str:
        """`score` [n, m] as an answer: identity, sigmoid, softmax over the outputs, or exp."""
        match kind:
            case "identity":
                return score
            case "softmax":
                return self.add("Softmax", score, axis=1)
            case _:
                return self.add({"sigmoid": "Sigmoid", "exp": "Exp"}[kind], score)

    def finish(self, result: str, outputs: int) -> ModelProto:
        """The model whose output is `result` [n, outputs]; the batch dimension is free."""
        helper, types = self._onnx.helper, self._onnx.TensorProto
        self.add("Identity", result, output=OUTPUT)
        graph = helper.make_graph(
            self._nodes,
            "servable",
            [helper.make_tensor_value_info(INPUT, types.FLOAT, ["n", self._width])],
            [helper.make_tensor_value_info(OUTPUT, types.DOUBLE, ["n", outputs])],
            initializer=self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
        model: ModelProto = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="cumulant"
        )
        return model
