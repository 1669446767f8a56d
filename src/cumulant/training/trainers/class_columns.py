"""A classifier that was fitted on rows without some of the classes answers for all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cumulant.training.payloads.payload import OnnxModel, Payload, Prior
from cumulant.training.trainers.trainer import Problem

_COLUMNS, _OUTPUT = "cumulant_class_columns", "cumulant_all_classes"


def only_class(place: int, problem: Problem) -> Prior:
    """The answer where every row is of the class at `place`."""
    if problem.task == "binary":
        return Prior((float(place),))
    return Prior(tuple(float(place == number) for number in range(len(problem.classes))))


def all_classes(payload: Payload, present: NDArray[np.int64], problem: Problem) -> Payload:
    """`payload` with a column for each class of the problem, 0 for those that are not `present`."""
    if not isinstance(payload, OnnxModel) or len(present) == len(problem.classes):
        return payload
    import onnx

    model = onnx.load_from_string(payload.content)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    output = next(value for value in reversed(model.graph.output) if value.type.tensor_type.elem_type in floats)
    kind = output.type.tensor_type.elem_type
    columns = np.eye(len(problem.classes))[present].astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    model.graph.initializer.append(onnx.numpy_helper.from_array(columns, _COLUMNS))
    model.graph.node.append(onnx.helper.make_node("MatMul", [output.name, _COLUMNS], [_OUTPUT]))
    model.graph.output.append(onnx.helper.make_tensor_value_info(_OUTPUT, kind, [None, len(problem.classes)]))
    return OnnxModel(model.SerializeToString(), len(problem.classes))
