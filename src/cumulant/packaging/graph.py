"""A small builder of ONNX graphs: one matrix in, one float64 matrix out, or outputs by name.

What is float64 inside answers as the trained model does, and onnxruntime takes no longer for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import missing_part
from cumulant.core.servable import Datatype

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Float = Literal["FP32", "FP64"]
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
    """Nodes and constants of one graph; `x` names its input [n, k] as `inner`, float64 unless told."""

    def __init__(self, width: int, *, source: Float = "FP32", inner: Float = "FP64") -> None:
        self._onnx = onnx_part()
        self._width = width
        self._source = source
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self.x = INPUT if source == inner else self.cast(INPUT, inner)

    def cast(self, tensor: str, to: Float) -> str:
        return self.add("Cast", tensor, to=self._element(to))

    def _element(self, datatype: str) -> int:
        types = self._onnx.TensorProto
        found: int = {"FP32": types.FLOAT, "FP64": types.DOUBLE, "INT64": types.INT64, "BYTES": types.STRING}[datatype]
        return found

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
        return self.finish_named({OUTPUT: (result, "FP64", (outputs,))})

    def finish_named(self, outputs: Mapping[str, tuple[str, Datatype, tuple[int, ...]]]) -> ModelProto:
        """The model with these outputs: name -> tensor inside, datatype, sizes after the free batch dimension."""
        helper = self._onnx.helper
        for name, (tensor, _, _) in outputs.items():
            self.add("Identity", tensor, output=name)
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self._nodes,
            "servable",
            [value(INPUT, self._element(self._source), ["n", self._width])],
            [value(name, self._element(kind), ["n", *sizes]) for name, (_, kind, sizes) in outputs.items()],
            initializer=self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
        model: ModelProto = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="cumulant"
        )
        return model
