"""The known forms: onnxruntime's dynamic int8, 4-bit products, float16."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.core.errors import missing_part
from cumulant.packaging.graphs.graph import import_onnx
from cumulant.packaging.quantize.layers import Floats, WeightedLayer, find_node, node_attribute, replace_node
from cumulant.packaging.quantize.packed import compact
from cumulant.packaging.quantize.rounding import round_weights

if TYPE_CHECKING:
    from onnx import ModelProto

_MICROSOFT = "com.microsoft"
#: inputs that share a scale in a 4-bit product
_BLOCK = 32


def to_dynamic_int8(model: ModelProto) -> ModelProto:
    """Weights int8, one scale an output; activations quantized at each call by the range they happen to have."""
    onnx = import_onnx()
    with TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        onnx.save(model, source)
        _quantization().quantize_dynamic(source, target, per_channel=True)
        quantized: ModelProto = onnx.load(target)
    return compact(quantized)


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


def to_float16(model: ModelProto) -> ModelProto:
    """Weights and arithmetic float16; inputs and outputs as they were."""
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "onnxruntime", "train") from None
    with _quiet():
        converted: ModelProto = convert_float_to_float16(deepcopy(model), keep_io_types=True)
    return compact(converted)


def to_four_bit_products(
    model: ModelProto, products: Mapping[str, WeightedLayer], moments: Mapping[str, Floats]
) -> ModelProto:
    """`products` by onnxruntime's MatMulNBits, with 4-bit weights rounded by `moments`, as its quantizer cannot."""
    onnx = import_onnx()
    copy = deepcopy(model)
    graph = copy.graph
    for name, layer in products.items():
        _replace(graph, layer, _four_bits(layer, moments.get(name), onnx), onnx)
    if all(opset.domain != _MICROSOFT for opset in copy.opset_import):
        copy.opset_import.append(onnx.helper.make_opsetid(_MICROSOFT, 1))
    return compact(copy)


def can_be_four_bits(model: ModelProto, layer: WeightedLayer) -> bool:
    """Whether it is a plain product whose inputs fill whole blocks."""
    if layer.rows.shape[1] % _BLOCK:
        return False
    return layer.op == "MatMul" or (layer.op == "Gemm" and plain_gemm(model, layer))


def plain_gemm(model: ModelProto, layer: WeightedLayer) -> bool:
    node = model.graph.node[layer.node]
    return all(
        node_attribute(node, name, plain) == plain for name, plain in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))
    )


def _four_bits(layer: WeightedLayer, moments: Floats | None, onnx: Any) -> list[Any]:
    codes = round_weights(layer.rows, 4, _BLOCK, moments)
    nibbles = (codes.values + 8).astype(np.uint8).reshape(len(codes.values), -1, _BLOCK)
    packed = (nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)).astype(np.uint8)
    values = {f"{layer.weight}/bits": packed, f"{layer.weight}/scales": codes.scales.astype(np.float32).ravel()}
    return [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]


def _replace(graph: Any, layer: WeightedLayer, constants: list[Any], onnx: Any) -> None:
    node = find_node(graph, layer)
    bias = list(node.input[2:3])
    inputs, output = [layer.source, *(entry.name for entry in constants)], node.output[0] + ("/product" if bias else "")
    product = onnx.helper.make_node(
        "MatMulNBits",
        inputs,
        [output],
        domain=_MICROSOFT,
        K=layer.rows.shape[1],
        N=layer.rows.shape[0],
        bits=4,
        block_size=_BLOCK,
        accuracy_level=4,
    )
    graph.initializer.extend(constants)
    add = [onnx.helper.make_node("Add", [output, *bias], [layer.output])] if bias else []
    replace_node(graph, node, [product, *add])
