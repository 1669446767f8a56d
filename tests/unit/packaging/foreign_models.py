"""Models from elsewhere for the tests of packaging."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cumulant.packaging.convert.foreign_build import GraphOptions, build_graph
from cumulant.packaging.samples import ModelSample

CATEGORIES = 17


def rows(rng, count, *, missing=0.15):
    """Float64: two continuous columns, one of few whole numbers, one of category codes; some are missing."""
    matrix = rng.normal(size=(count, 4))
    matrix[:, 2] = rng.integers(-2, 3, count)
    matrix[:, 3] = rng.integers(0, CATEGORIES, count)
    matrix[rng.random(matrix.shape) < missing] = np.nan
    return matrix


def target(matrix, rng):
    filled = np.nan_to_num(matrix, nan=0.5)
    return filled[:, 0] + np.sin(filled[:, 3] * 7) + filled[:, 1] * filled[:, 2] + rng.normal(0, 0.3, len(filled))


def given(array, name="input"):
    """A sample of one input."""
    return lambda inputs, columns: ModelSample({name: array}, given=True)


def built(foreign, out, sample=None, **options):
    return build_graph(foreign, name="m", out=out, sample=sample, lineage={}, options=GraphOptions(**options))


def network(*, rows="n", output_rows="n", weights=None, zipmap=False):
    """One float32 matrix [n, 3] times weights [3, 2], then softmax."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 2)).astype(np.float32) if weights is None else weights
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Softmax", ["s"], ["p"], axis=1)]
    outputs = [helper.make_tensor_value_info("p", TensorProto.FLOAT, [output_rows, 2])]
    if zipmap:
        nodes.append(helper.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_strings=["no", "yes"]))
        kind = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        outputs = [helper.make_value_info("z", helper.make_sequence_type_proto(kind))]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 3])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, [numpy_helper.from_array(weights, "w")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def save_external(model, path, location="weights.bin", **entries):
    """The model with its weights in a file beside it, whatever `location` claims."""
    weights = model.graph.initializer[0]
    raw = bytes(weights.raw_data)
    (path.parent / "weights.bin").write_bytes(raw)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(len(raw)), **entries}.items():
        weights.external_data.add(key=key, value=value)
    onnx.save(model, str(path))
    return path
