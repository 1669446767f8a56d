"""A builder of ONNX graphs: one matrix in, one float64 matrix out, or outputs by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


def import_onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.compose
        import onnx.helper
        import onnx.numpy_helper
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "onnx", "train") from None
    return onnx


class GraphBuilder:
    """Nodes and constants of one graph; `x` names its input [n, k] as `inner`, by default float64."""

    def __init__(self, width: int, *, source: Float = "FP32", inner: Float = "FP64") -> None:
        self._onnx = import_onnx()
        self._width = width
        self._source = source
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self.x = INPUT if source == inner else self.cast(INPUT, inner)

    def cast(self, tensor: str, to: Float) -> str:
        return self.add("Cast", tensor, to=self._element(to))

    def _element(self, datatype: str) -> int:
        types = self._onnx.TensorProto
        element: int = {"FP32": types.FLOAT, "FP64": types.DOUBLE, "INT64": types.INT64, "BYTES": types.STRING}[
            datatype
        ]
        return element

    def add(self, op: str, *inputs: str, domain: str = "", output: str | None = None, **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        name = output or f"{op.lower()}_{len(self._nodes)}"
        node = self._onnx.helper.make_node(op, list(inputs), [name], name=f"n{len(self._nodes)}", domain=domain)
        for key in sorted(attributes):
            node.attribute.append(self._onnx.helper.make_attribute(key, attributes[key]))
        self._nodes.append(node)
        return name

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float64))

    def link(self, kind: str, score: str, outputs: int = 1) -> str:
        """`score` [n, outputs] as an answer: identity, sigmoid, softmax over the outputs, or exp.

        Made of operators that work value by value, so that no answer depends on the rows beside it: onnxruntime's
        own Exp, Sigmoid and Softmax round the last values of a batch in another way than the rest.
        """
        match kind:
            case "identity":
                return score
            case "exp":
                return self._exp(score)
            case "sigmoid":
                unit = self.number(1)
                return self.add("Div", unit, self.add("Add", unit, self._exp(self.add("Neg", score))))
            case _:
                top = self.add("ReduceMax", score, self.constant(np.array([1], np.int64)), keepdims=1)
                raised = self._exp(self.add("Sub", score, top))
                total = self.add("Sum", *self.columns(raised, outputs))
                return self.add("Div", raised, total)

    def _exp(self, score: str) -> str:
        # 2^(x/ln 2): of a constant base, onnxruntime computes each power alone.
        return self.add("Pow", self.number(2), self.add("Mul", score, self.number(1 / math.log(2))))

    def columns(self, matrix: str, count: int) -> list[str]:
        """The columns of `matrix` [n, count], each [n, 1]."""
        places = [self.constant(np.array([place], np.int64)) for place in range(count)]
        return [self.add("Gather", matrix, place, axis=1) for place in places]

    def lookup(self, matrix: str, column: int, table: NDArray[np.float64]) -> str:
        """The row of `table` for each code of a column; its last row for missing codes."""
        codes = self.add("Gather", matrix, self.constant(np.array(column, np.int64)), axis=1)
        known = self.add("Where", self.add("IsNaN", codes), self.number(len(table) - 1), codes)
        rows = self.add("Cast", known, to=self._element("INT64"))
        return self.add("Gather", self.constant(table), rows, axis=0)

    def mean(self, answers: Sequence[str]) -> str:
        """The mean of answers, added in their order; of one alone it itself."""
        total = answers[0]
        for answer in answers[1:]:
            total = self.add("Add", total, answer)
        return self.add("Div", total, self.number(len(answers))) if len(answers) > 1 else total

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
