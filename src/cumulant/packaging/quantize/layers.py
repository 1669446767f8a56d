"""Layers of a graph with weights, and their inputs on a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cumulant.packaging.graphs.graph import import_onnx
from cumulant.servable.engine import Engine

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Array = NDArray[Any]
Floats = NDArray[np.float64]

#: below this a weight is not worth the nodes that decode it
SMALLEST = 1024
#: positions of a convolution taken from one row; more add nothing about its inputs
_POSITIONS = 64


class WeightedLayer(NamedTuple):
    """A node with one constant float32 matrix: MatMul, Gemm, Conv, or Gather from a table."""

    op: str
    node: int
    weight: str
    #: of the input that is no constant; a table has none that counts
    source: str
    output: str
    value: Array
    #: the weight reaches its rows by transposing
    transposed: bool

    @property
    def rows(self) -> Floats:
        """[outputs, inputs]: each row makes one output, and may have a scale of its own."""
        value = self.value.astype(np.float64)
        return value.T if self.transposed else value.reshape(len(value), -1)


def find_layers(model: ModelProto) -> tuple[WeightedLayer, ...]:
    """Every layer whose weight is used once and large enough to be worth it."""
    onnx = import_onnx()
    known = {item.name: item for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    uses = [name for node in model.graph.node for name in node.input]
    candidates = (_layer(place, node, known, onnx) for place, node in enumerate(model.graph.node))
    return tuple(item for item in candidates if item is not None and uses.count(item.weight) == 1)


def _layer(place: int, node: NodeProto, known: Mapping[str, Any], onnx: Any) -> WeightedLayer | None:
    at = {"MatMul": 1, "Gemm": 1, "Conv": 1, "Gather": 0}.get(node.op_type)
    if at is None or node.domain not in ("", "ai.onnx") or node.input[at] not in known:
        return None
    value = onnx.numpy_helper.to_array(known[node.input[at]])
    flat = value.ndim == 2 or (node.op_type == "Conv" and value.ndim in (3, 4))
    if not flat or value.size < SMALLEST or not np.isfinite(value).all() or node_attribute(node, "axis", 0) != 0:
        return None
    straight = node.op_type in ("Conv", "Gather") or (node.op_type == "Gemm" and node_attribute(node, "transB", 0) == 1)
    return WeightedLayer(node.op_type, place, node.input[at], node.input[1 - at], node.output[0], value, not straight)


def node_attribute(node: NodeProto, name: str, default: Any) -> Any:
    for item in node.attribute:
        if item.name == name:
            return import_onnx().helper.get_attribute_value(item)
    return default


def find_node(graph: GraphProto, layer: WeightedLayer) -> NodeProto:
    """The node of a layer in a graph whose nodes may have moved."""
    return next(node for node in graph.node if layer.weight in node.input)


def replace_node(graph: GraphProto, node: NodeProto, nodes: Sequence[NodeProto]) -> None:
    """Put `nodes` in the place of a node of the graph."""
    place = list(graph.node).index(node)
    del graph.node[place]
    for new in reversed(nodes):
        graph.node.insert(place, new)


def iterate_values(
    model: ModelProto, names: Sequence[str], sample: Mapping[str, Array], batch: int = 1
) -> Iterator[dict[str, Array]]:
    """The values of the inner tensors `names` on each `batch` rows of the sample."""
    onnx = import_onnx()
    open_model = deepcopy(model)
    given = {value_info.name for value_info in (*model.graph.output, *model.graph.input)}
    for name in names:
        if name not in given:
            open_model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "open.onnx"
        onnx.save(open_model, path)
        engine = Engine(path)
        inner = [name for name in names if name not in sample]
        for start in range(0, len(next(iter(sample.values()))), batch):
            feeds = {name: value[start : start + batch] for name, value in sample.items()}
            values = engine.run(feeds, inner) if inner else []
            yield dict(zip(inner, values, strict=True)) | feeds


def count_products(
    model: ModelProto, model_layers: Sequence[WeightedLayer], sample: Mapping[str, Array], batch: int = 1
) -> dict[str, float]:
    """Products of a number with a weight that each layer computes for a row, by the name of its weight."""
    first = {name: value[:batch] for name, value in sample.items()}
    (values,) = iterate_values(model, sorted({layer.output for layer in model_layers}), first, batch)
    return {layer.weight: values[layer.output].size / batch * layer.rows.shape[1] for layer in model_layers}


def second_moments(
    model: ModelProto, model_layers: Sequence[WeightedLayer], sample: Mapping[str, Array], batch: int = 1
) -> dict[str, Floats]:
    """Sum of x xᵀ over the inputs x [inputs] that each layer meets, by the name of its weight."""
    wanted = [layer for layer in model_layers if layer.op != "Gather"]
    totals: dict[str, Floats] = {}
    if not wanted:
        return totals
    for values in iterate_values(model, sorted({layer.source for layer in wanted}), sample, batch):
        for layer in wanted:
            x = _inputs(layer, model.graph.node[layer.node], values[layer.source])
            if x is not None and np.isfinite(x).all():
                totals[layer.weight] = totals.get(layer.weight, 0.0) + x.T @ x
    return totals


def _inputs(layer: WeightedLayer, node: NodeProto, value: Array) -> Floats | None:
    if layer.op != "Conv":
        value = value.T if layer.op == "Gemm" and node_attribute(node, "transA", 0) else value
        return value.reshape(-1, value.shape[-1]).astype(np.float64)
    if node_attribute(node, "group", 1) != 1 or node_attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
        return None
    return _windows(layer, node, value)


def _windows(layer: WeightedLayer, node: NodeProto, value: Array) -> Floats:
    kernel = layer.value.shape[2:]
    dilations = node_attribute(node, "dilations", [1] * len(kernel))
    reach = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    pads = node_attribute(node, "pads", [0] * 2 * len(kernel))
    sides = [(0, 0), (0, 0), *zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)]
    axes = tuple(range(2, value.ndim))
    view = np.lib.stride_tricks.sliding_window_view(np.pad(value, sides), reach, axis=axes)
    dilated: Any = (..., *(slice(None, None, step) for step in dilations))
    view = view[dilated]
    # [n, channels, positions..., kernel...] -> [n, positions, channels, kernel...]
    view = np.moveaxis(view, 1, 1 + len(kernel))
    flat = np.unique(np.linspace(0, np.prod(view.shape[1 : 1 + len(kernel)]) - 1, _POSITIONS).astype(int))
    places: Any = (slice(None), *np.unravel_index(flat, view.shape[1 : 1 + len(kernel)]))
    windows: Floats = view[places].reshape(-1, layer.value[0].size).astype(np.float64)
    return windows
