"""int8 arithmetic with activation ranges fixed on calibration rows, as QuantizeLinear pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cumulant.packaging.graphs.graph import import_onnx
from cumulant.packaging.quantize.forms import plain_gemm
from cumulant.packaging.quantize.layers import Array, WeightedLayer, find_node, iterate_values, replace_node
from cumulant.packaging.quantize.packed import compact
from cumulant.packaging.quantize.rounding import round_weights

if TYPE_CHECKING:
    from onnx import ModelProto

#: shares of the values cut from one end
TAILS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
#: values sampled of one tensor, in all, besides its two ends
_KEPT = 2_000_000


class TailCuts(NamedTuple):
    """The tails cut from the inputs of layers and from what convolutions give, low and high."""

    input_low: float = 0.0
    input_high: float = 0.0
    output_low: float = 0.0
    output_high: float = 0.0


Ranges = Mapping[str, Mapping[float, tuple[float, float]]]


def can_be_static(model: ModelProto, layer: WeightedLayer) -> bool:
    return layer.op in ("MatMul", "Conv") or (layer.op == "Gemm" and plain_gemm(model, layer))


def measure_ranges(
    model: ModelProto, model_layers: Sequence[WeightedLayer], sample: Mapping[str, Array], batch: int
) -> Ranges:
    """For each tensor at a layer, its low and high end after cutting each of `TAILS`."""
    names = sorted(
        {layer.source for layer in model_layers} | {layer.output for layer in model_layers if layer.op == "Conv"}
    )
    parts: dict[str, list[Array]] = {name: [] for name in names}
    rows = len(next(iter(sample.values())))
    for values in iterate_values(model, names, sample, batch):
        for name in names:
            flat = values[name].ravel()
            step = max(1, len(flat) * rows // (batch * _KEPT))
            # an odd stride meets every channel
            sampled = flat[:: step | 1]
            parts[name].append(np.concatenate([sampled, [flat.min(), flat.max()]]))
    return {name: _ends(np.concatenate(values)) for name, values in parts.items()}


def _ends(values: Array) -> dict[float, tuple[float, float]]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return dict.fromkeys(TAILS, (0.0, 0.0))
    lows, highs = np.quantile(finite, TAILS), np.quantile(finite, [1 - tail for tail in TAILS])
    return {tail: (float(low), float(high)) for tail, low, high in zip(TAILS, lows, highs, strict=True)}


def to_static_int8(model: ModelProto, chosen: Iterable[WeightedLayer], known: Ranges, cuts: TailCuts) -> ModelProto:
    """A copy of `model` that computes the layers `chosen` in int8."""
    copy = deepcopy(model)
    writer = _Writer(copy.graph, import_onnx())
    for layer in chosen:
        low, high = known[layer.source][cuts.input_low][0], known[layer.source][cuts.input_high][1]
        if layer.op == "Conv":
            ends = known[layer.output]
            writer.convolution(layer, (low, high), (ends[cuts.output_low][0], ends[cuts.output_high][1]))
        else:
            writer.product(layer, (low, high))
    return compact(copy)


def find_best_cuts(error: Callable[[TailCuts], float]) -> TailCuts:
    """The cuts of least error, one end after the other."""
    best, least = TailCuts(), error(TailCuts())
    for end in TailCuts._fields:
        for tail in TAILS[1:]:
            tried = best._replace(**{end: tail})
            value = error(tried)
            if value < least:
                best, least = tried, value
    return best


class _Writer:
    def __init__(self, graph: Any, onnx: Any) -> None:
        self._graph = graph
        self._onnx = onnx

    def product(self, layer: WeightedLayer, ends: tuple[float, float]) -> None:
        node = find_node(self._graph, layer)
        bias = list(node.input[2:3])
        given, before = self._rounded(layer.source, f"{layer.output}/in", ends)
        weight, nodes, _ = self._weight(layer, transposed=True)
        result = f"{layer.output}/product" if bias else layer.output
        new = [*before, *nodes, self._node("MatMul", [given, weight], result)]
        if bias:
            new.append(self._node("Add", [result, bias[0]], layer.output))
        replace_node(self._graph, node, new)

    def convolution(self, layer: WeightedLayer, ends: tuple[float, float], out: tuple[float, float]) -> None:
        node = find_node(self._graph, layer)
        given, before = self._rounded(layer.source, f"{layer.output}/in", ends)
        weight, nodes, scales = self._weight(layer, transposed=False)
        if len(node.input) > 2 and node.input[2]:
            nodes.append(self._bias(node, scales * _step(ends)))
        node.input[0], node.input[1], node.output[0] = given, weight, f"{layer.output}/exact"
        _, after = self._rounded(node.output[0], f"{layer.output}/out", out)
        after[-1].output[0] = layer.output
        replace_node(self._graph, node, [*before, *nodes, deepcopy(node), *after])

    def _rounded(self, name: str, new: str, ends: tuple[float, float]) -> tuple[str, list[Any]]:
        low, step = min(ends[0], 0.0), _step(ends)
        zero = np.uint8(np.clip(round(-low / step), 0, 255))
        scale = self._constant(f"{new}/scale", np.array(step, np.float32))
        point = self._constant(f"{new}/zero", np.array(zero, np.uint8))
        return new, [
            self._node("QuantizeLinear", [name, scale, point], f"{new}/codes"),
            self._node("DequantizeLinear", [f"{new}/codes", scale, point], new),
        ]

    def _weight(self, layer: WeightedLayer, *, transposed: bool) -> tuple[str, list[Any], Array]:
        """int8 with one scale an output; a product's is laid out [inputs, outputs]."""
        codes = round_weights(layer.rows, 8, layer.rows.shape[1])
        scales = codes.scales.astype(np.float32).ravel()
        values = codes.values.astype(np.int8)
        values = values.T if transposed else values.reshape(layer.value.shape)
        name = f"{layer.weight}/weight"
        codes_name = self._constant(f"{layer.weight}/codes", np.ascontiguousarray(values))
        scale = self._constant(f"{layer.weight}/scales", scales)
        return name, [self._node("DequantizeLinear", [codes_name, scale], name, axis=int(transposed))], scales

    def _bias(self, node: Any, scales: Array) -> Any:
        """int32 in units of input step times weight step: onnxruntime adds it to the sums as it is."""
        constant = next(
            (initializer for initializer in self._graph.initializer if initializer.name == node.input[2]), None
        )
        if constant is None:
            raise ValueError(f"the bias {node.input[2]} is no constant")
        value = self._onnx.numpy_helper.to_array(constant)
        name = f"{node.output[0]}/bias"
        codes = np.clip(np.rint(value / scales), -(2**31), 2**31 - 1).astype(np.int32)
        codes_name = self._constant(f"{name}/codes", codes)
        scale = self._constant(f"{name}/scales", scales.astype(np.float32))
        node.input[2] = name
        return self._node("DequantizeLinear", [codes_name, scale], name, axis=0)

    def _constant(self, name: str, value: Array) -> str:
        self._graph.initializer.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        return self._onnx.helper.make_node(op, inputs, [output], **attributes)


def _step(ends: tuple[float, float]) -> float:
    """The value of one code: 0 is always among the 256."""
    return max((max(ends[1], 0.0) - min(ends[0], 0.0)) / 255, 1e-10)
