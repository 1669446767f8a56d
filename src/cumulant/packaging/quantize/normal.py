"""Normal form of graphs for quantizers: a recent operator set, and weights among the initializers."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

#: the oldest operator set whose DequantizeLinear takes a scale a channel
OLDEST = 13
#: from which on onnx demands that no initializer needs to be an input
_IR_VERSION = 8


def normalize_graph(model: ModelProto) -> ModelProto:
    """A copy with an operator set of 13 or newer and its weights as initializers; it answers as `model`.

    Raises:
        RuntimeError: onnx cannot convert an operator to that set.
    """
    copy = deepcopy(model)
    _collect_constants(copy)
    return copy if opset_of(copy) >= OLDEST else _converted(copy)


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators; 0 where the graph uses none."""
    return next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 0)


def _collect_constants(model: ModelProto) -> None:
    graph = model.graph
    for node in [item for item in graph.node if item.op_type == "Constant"]:
        value = next((item for item in node.attribute if item.name == "value"), None)
        if value is None or any(output.name == node.output[0] for output in graph.output):
            continue
        value.t.name = node.output[0]
        graph.initializer.append(value.t)
        graph.node.remove(node)


def _converted(model: ModelProto) -> ModelProto:
    from onnx import version_converter

    known = {value.name for value in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in known]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    converted: ModelProto = version_converter.convert_version(model, OLDEST)
    return converted
