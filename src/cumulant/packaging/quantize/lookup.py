"""One-hot products (Equal, Cast, MatMul), as converters write embeddings, replaced by lookups."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.packaging.graphs.graph import import_onnx
from cumulant.packaging.quantize.layers import replace_node

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

#: what only spreads the ids over the classes: repeats values, changes no value
_SPREADING = ("Expand", "Reshape", "Unsqueeze", "Identity")
_MAXIMUM = 8


def replace_lookups(model: ModelProto) -> tuple[ModelProto, int]:
    """A copy of `model` with its one-hot products as Gather, and their number; unknown ids give rows of zeros."""
    copy = deepcopy(model)
    makers = {output: node for node in copy.graph.node for output in node.output}
    constants = {constant.name: constant for constant in copy.graph.initializer}
    types = import_onnx().TensorProto
    whole = (types.INT32, types.INT64)
    ranks = {
        value_info.name: len(value_info.type.tensor_type.shape.dim)
        for value_info in copy.graph.input
        if value_info.type.tensor_type.elem_type in whole
    }
    count = 0
    for node in list(copy.graph.node):
        ids = _ids(node, makers, constants, ranks) if node.op_type == "MatMul" else None
        if ids is not None:
            replace_node(copy.graph, node, _as_gather(copy, node, ids, count))
            count += 1
    return copy, count


def _ids(
    node: NodeProto, makers: Mapping[str, Any], constants: Mapping[str, Any], ranks: Mapping[str, int]
) -> str | None:
    """The graph's input of ids [n, k] whose one-hot [n, k, classes] is the left side of `node`."""
    table = constants.get(node.input[1])
    cast = makers.get(node.input[0])
    if table is None or len(table.dims) != 2 or cast is None or cast.op_type != "Cast":
        return None
    equal = makers.get(cast.input[0])
    if equal is None or equal.op_type != "Equal":
        return None
    for ids, classes in (equal.input, reversed(equal.input)):
        if classes in constants and _counts_up(constants[classes], table.dims[0]):
            source = _spread_from(ids, makers)
            # [n, k] and no other: the one-hot axis is then the last, and a lookup gives the same shape
            return source if ranks.get(source) == 2 and len(constants[classes].dims) == 3 else None
    return None


def _counts_up(constant: Any, size: int) -> bool:
    value = import_onnx().numpy_helper.to_array(constant)
    return value.shape[-1:] == (size,) and value.size == size and bool((value.ravel() == np.arange(size)).all())


def _spread_from(name: str, makers: Mapping[str, Any]) -> str:
    for _ in range(_MAXIMUM):
        maker = makers.get(name)
        if maker is None or maker.op_type not in _SPREADING:
            break
        name = maker.input[0]
    return name


def _as_gather(model: ModelProto, node: NodeProto, ids: str, number: int) -> list[Any]:
    onnx = import_onnx()
    at = next(k for k, constant in enumerate(model.graph.initializer) if constant.name == node.input[1])
    table = onnx.numpy_helper.to_array(model.graph.initializer[at])
    zeros = np.zeros((1, table.shape[1]), table.dtype)
    name = f"lookup/{number}"
    values = {
        f"{name}/table": np.concatenate([zeros, table, zeros]),
        f"{name}/low": np.array(-1, np.int64),
        f"{name}/high": np.array(len(table), np.int64),
        f"{name}/one": np.array(1, np.int64),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in values.items())
    make = onnx.helper.make_node
    return [
        make("Cast", [ids], [f"{name}/wide"], to=onnx.TensorProto.INT64),
        make("Max", [f"{name}/wide", f"{name}/low"], [f"{name}/above"]),
        make("Min", [f"{name}/above", f"{name}/high"], [f"{name}/within"]),
        make("Add", [f"{name}/within", f"{name}/one"], [f"{name}/row"]),
        make("Gather", [f"{name}/table", f"{name}/row"], [node.output[0]], axis=0),
    ]
