"""Weights stored as small codes that onnxruntime decodes once, when the graph is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cumulant.packaging.graphs.graph import import_onnx
from cumulant.packaging.quantize.layers import WeightedLayer
from cumulant.packaging.quantize.rounding import WeightCodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

#: widths of the planes, lowest bits first
PLANES: Mapping[int, tuple[int, ...]] = {8: (8,), 6: (4, 2), 5: (4, 1), 4: (4,), 3: (2, 1), 2: (2,)}
#: other constants of this many values are stored as float16
_HALVED = 64
#: nodes that onnxruntime fuses by the constants it finds at them, before it computes any
_READ_AT_LOAD = frozenset({"DequantizeLinear", "QuantizeLinear", "MatMulNBits"})


def pack_weights(model: ModelProto, encoded: Mapping[str, tuple[WeightedLayer, WeightCodes]]) -> ModelProto:
    """A copy of `model` whose weights, by name, are stored as codes; other large constants as float16."""
    onnx = import_onnx()
    copy = deepcopy(model)
    plain = [constant for constant in copy.graph.initializer if constant.name not in encoded]
    writer = _Writer(onnx)
    for name, (layer, codes) in encoded.items():
        writer.decode(name, layer, codes)
    read = {name for node in copy.graph.node if node.op_type in _READ_AT_LOAD for name in node.input}
    for constant in [constant for constant in plain if constant.name not in read and _is_large(constant, onnx)]:
        writer.half(constant)
        plain.remove(constant)
    nodes = [*writer.nodes, *copy.graph.node]
    del copy.graph.initializer[:], copy.graph.node[:]
    copy.graph.initializer.extend([*plain, *writer.constants])
    copy.graph.node.extend(nodes)
    return compact(copy)


def _is_large(constant: TensorProto, onnx: Any) -> bool:
    if constant.data_type != onnx.TensorProto.FLOAT or np.prod(constant.dims) < _HALVED:
        return False
    # float16 holds nothing above 65,504; what it would lose stays as it is
    return bool(np.abs(onnx.numpy_helper.to_array(constant)).max() < 6e4)


class _Writer:
    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self._numbers: dict[bytes, str] = {}
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def half(self, constant: TensorProto) -> None:
        value = self._onnx.numpy_helper.to_array(constant).astype(np.float16)
        self._float(self._constant(value), constant.name)

    def decode(self, name: str, layer: WeightedLayer, codes: WeightCodes) -> None:
        value = self._codes(codes)
        grouped = self._add("Reshape", value, self._shared(np.array([-1, codes.group], np.int64)))
        scale = self._float(self._constant(codes.scales.reshape(-1, 1)))
        rows = self._add("Mul", grouped, scale)
        shape = codes.values.shape if layer.transposed else layer.value.shape
        if layer.transposed:
            rows = self._add("Reshape", rows, self._shared(np.array(shape, np.int64)))
            self._add("Transpose", rows, output=name)
        else:
            self._add("Reshape", rows, self._shared(np.array(shape, np.int64)), output=name)

    def _codes(self, codes: WeightCodes) -> str:
        """Signed codes as float32, in row-major order."""
        if codes.bits == 8:
            return self._float(self._constant(codes.values.astype(np.int8)))
        offset = 2 ** (codes.bits - 1)
        rest = (codes.values + offset).ravel()
        total, shift = "", 0
        for width in PLANES[codes.bits]:
            plane = self._plane((rest >> shift) & (2**width - 1), width)
            part = plane if shift == 0 else self._add("Mul", plane, self._shared(np.array(2.0**shift, np.float32)))
            total = self._add("Add", total, part) if total else part
            shift += width
        return self._add("Sub", total, self._shared(np.array(float(offset), np.float32)))

    def _plane(self, codes: NDArray[np.int64], width: int) -> str:
        """floor(byte / 2^shift) mod 2^width for each shift of the byte's slots, [bytes, slots]."""
        shifts = np.arange(0, 8, width)
        slots = np.pad(codes, (0, -len(codes) % len(shifts))).reshape(-1, len(shifts))
        bytes_of_slots = (slots << shifts).sum(axis=1, keepdims=True).astype(np.uint8)
        steps = self._shared((2.0**-shifts).astype(np.float32))
        moved = self._add("Floor", self._add("Mul", self._float(self._constant(bytes_of_slots)), steps))
        parts = self._add("Mod", moved, self._shared(np.array(2.0**width, np.float32)), fmod=1)
        return self._add("Reshape", parts, self._shared(np.array([-1], np.int64)))

    def _float(self, name: str, output: str = "") -> str:
        return self._add("Cast", name, output=output, to=self._onnx.TensorProto.FLOAT)

    def _add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"decode/{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"decode/c{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def _shared(self, value: NDArray[Any]) -> str:
        key = f"{value.dtype}{value.shape}".encode() + value.tobytes()
        if key not in self._numbers:
            self._numbers[key] = self._constant(value)
        return self._numbers[key]


def compact(model: ModelProto) -> ModelProto:
    """Drop what no answer needs, and shorten names of inner tensors unless the graph has inner graphs."""
    graph = model.graph
    if any(item.HasField("g") or item.graphs for node in graph.node for item in node.attribute):
        return model
    _drop_unused(graph)
    fixed = {item.name for item in (*graph.input, *graph.output)} | {""}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        if name not in fixed and name not in names:
            names[name] = np.base_repr(len(names), 36).lower()
            while names[name] in fixed:
                names[name] += "_"
        return names.get(name, name)

    for node in graph.node:
        node.name, node.doc_string = "", ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    for item in graph.initializer:
        item.name, item.doc_string = short(item.name), ""
    del graph.value_info[:]
    return model


def _drop_unused(graph: Any) -> None:
    makers = {output: node for node in graph.node for output in node.output}
    wanted, open_names = set[str](), [value.name for value in graph.output]
    while open_names:
        name = open_names.pop()
        if name not in wanted:
            wanted.add(name)
            open_names += makers[name].input if name in makers else ()
    nodes = [node for node in graph.node if wanted.intersection(node.output)]
    constants = [value for value in graph.initializer if value.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
