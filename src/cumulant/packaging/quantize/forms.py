"""The known forms: onnxruntime's dynamic int8, 4-bit products, float16."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.core.errors import missing_part
from cumulant.packaging.graphs.graph import onnx_part
from cumulant.packaging.quantize.layers import Floats, Layer, attribute
from cumulant.packaging.quantize.packed import compact
from cumulant.packaging.quantize.rounding import rounded

if TYPE_CHECKING:
    from onnx import ModelProto

_MICROSOFT = "com.microsoft"
#: inputs that share a scale in a 4-bit product
_BLOCK = 32


def dynamic_int8(model: ModelProto) -> ModelProto:
    """Weights int8, one scale an output; activations quantized at each call by the range they happen to have."""
    onnx = onnx_part()
    with TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        onnx.save(model, source)
        _quantization().quantize_dynamic(source, target, per_channel=True)
        found: ModelProto = onnx.load(target)
    return compact(found)


def _quantization() -> Any:
    try:
        from onnxruntime import quantization
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "onnxruntime", "train") from None
    return quantization


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises on the root logger; what it advises is done or measured here."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def half_computed(model: ModelProto) -> ModelProto:
    """Weights and arithmetic float16; inputs and outputs as they were."""
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "onnxruntime", "train") from None
    copy = onnx_part().ModelProto()
    copy.CopyFrom(model)
    with _quiet():
        found: ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    return compact(found)


def four_bit_products(model: ModelProto, found: Mapping[str, Layer], moments: Mapping[str, Floats]) -> ModelProto:
    """The products of `found` by onnxruntime's MatMulNBits: weights stay 4 bits in memory too.

    The nodes are written here: onnxruntime's own quantizer needs one more package and rounds without `moments`.
    """
    onnx = onnx_part()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for name, layer in found.items():
        _replace(graph, layer, _four_bits(layer, moments.get(name), onnx), onnx)
    if all(one.domain != _MICROSOFT for one in copy.opset_import):
        copy.opset_import.append(onnx.helper.make_opsetid(_MICROSOFT, 1))
    return compact(copy)


def can_be_four_bits(model: ModelProto, layer: Layer) -> bool:
    """Whether it is a plain product whose inputs fill whole blocks."""
    if layer.rows.shape[1] % _BLOCK:
        return False
    return layer.op == "MatMul" or (layer.op == "Gemm" and plain_gemm(model, layer))


def plain_gemm(model: ModelProto, layer: Layer) -> bool:
    node = model.graph.node[layer.node]
    return all(attribute(node, name, plain) == plain for name, plain in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)))


def _four_bits(layer: Layer, moments: Floats | None, onnx: Any) -> list[Any]:
    codes = rounded(layer.rows, 4, _BLOCK, moments)
    held = (codes.values + 8).astype(np.uint8).reshape(len(codes.values), -1, _BLOCK)
    packed = (held[..., 0::2] | (held[..., 1::2] << 4)).astype(np.uint8)
    values = {f"{layer.weight}/bits": packed, f"{layer.weight}/scales": codes.scales.astype(np.float32).ravel()}
    return [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]


def _replace(graph: Any, layer: Layer, constants: list[Any], onnx: Any) -> None:
    node = next(one for one in graph.node if layer.weight in one.input)
    place, outputs = list(graph.node).index(node), layer.rows.shape[0]
    bias = list(node.input[2:3])
    inputs, output = [layer.source, *(one.name for one in constants)], node.output[0] + ("/product" if bias else "")
    product = onnx.helper.make_node(
        "MatMulNBits", inputs, [output],
        domain=_MICROSOFT, K=layer.rows.shape[1], N=outputs, bits=4, block_size=_BLOCK, accuracy_level=4,
    )  # fmt: skip
    graph.initializer.extend(constants)
    graph.node.remove(node)
    graph.node.insert(place, product)
    if bias:
        add = onnx.helper.make_node("Add", [product.output[0], bias[0]], [layer.output])
        graph.node.insert(place + 1, add)
