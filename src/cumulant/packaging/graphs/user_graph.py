"""A user's own ONNX graph, checked and adapted to the servable's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.core.errors import DefinitionError
from cumulant.packaging.graphs.graph import import_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

    from cumulant.core.servable import Task


def adapt_graph(content: bytes, *, width: int, task: Task, classes: int) -> ModelProto:
    """The graph of `content` with one float32 input [n, width] and one float64 output [n, m].

    Of several outputs the last float tensor is taken: converters put the labels first. Of a binary
    classifier's [n, 2] the second class is taken.

    Raises:
        DefinitionError: it is no ONNX graph of that form.
    """
    model = _decode(content)
    _check_input(model, width)
    result, rank, columns = _find_output(model)
    wanted = classes if task == "multiclass" else 1
    allowed = (1, 2) if task == "binary" else (wanted,)
    if columns is not None and columns not in allowed:
        raise DefinitionError(f"the ONNX graph gives {columns} columns where {wanted} are expected", subject=result)
    _set_output(model, result, rank, wanted)
    return model


def _decode(content: bytes) -> ModelProto:
    from google.protobuf.message import DecodeError

    onnx = import_onnx()
    try:
        model: ModelProto = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise DefinitionError(f"the model's bytes are no valid ONNX graph: {error}") from None
    return model


def _check_input(model: ModelProto, width: int) -> None:
    constants = {value.name for value in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise DefinitionError(f"the ONNX graph has {len(inputs)} inputs; it must take one float32 matrix [n, {width}]")
    name, tensor = inputs[0].name, inputs[0].type.tensor_type
    sizes = [size.dim_value for size in tensor.shape.dim]
    if tensor.elem_type != import_onnx().TensorProto.FLOAT or len(sizes) != 2 or sizes[1] not in (0, width):
        raise DefinitionError(f"the ONNX graph's input must be one float32 matrix [n, {width}]", subject=name)
    if sizes[0] != 0:
        raise DefinitionError("the ONNX graph's batch size is fixed; export it as dynamic", subject=name)


def _find_output(model: ModelProto) -> tuple[str, int, int | None]:
    """Name, rank and number of columns (where it is declared) of the answer."""
    types = import_onnx().TensorProto
    floats = [
        output for output in model.graph.output if output.type.tensor_type.elem_type in (types.FLOAT, types.DOUBLE)
    ]
    if not floats:
        hint = "with skl2onnx, convert with options={'zipmap': False}"
        raise DefinitionError("the ONNX graph has no float tensor among its outputs", hint=hint)
    sizes = floats[-1].type.tensor_type.shape.dim
    if len(sizes) not in (1, 2):
        raise DefinitionError("the ONNX graph's answer must be [n] or [n, m]", subject=floats[-1].name)
    columns = 1 if len(sizes) == 1 else sizes[1].dim_value or None
    return floats[-1].name, len(sizes), columns


def _set_output(model: ModelProto, result: str, rank: int, columns: int) -> None:
    onnx, graph = import_onnx(), model.graph
    helper, types = onnx.helper, onnx.TensorProto
    nodes: list[Any] = [helper.make_node("Cast", [result], ["servable_double"], to=types.DOUBLE)]
    last = "servable_double"
    if rank == 1:
        axis = onnx.numpy_helper.from_array(np.array([-1, 1], np.int64), "servable_shape")
        graph.initializer.append(axis)
        nodes.append(helper.make_node("Reshape", [last, "servable_shape"], ["servable_wide"]))
        last = "servable_wide"
    if columns == 1:
        place = onnx.numpy_helper.from_array(np.array([-1], np.int64), "servable_last")
        graph.initializer.append(place)
        nodes.append(helper.make_node("Gather", [last, "servable_last"], ["servable_output"], axis=1))
    else:
        nodes.append(helper.make_node("Identity", [last], ["servable_output"]))
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("servable_output", types.DOUBLE, ["n", columns]))
