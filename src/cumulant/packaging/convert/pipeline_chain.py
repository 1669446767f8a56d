"""A pipeline whose last step has exact trees here, as LightGBM and XGBoost have; skl2onnx converts the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cumulant.packaging.convert.foreign_model import NETS, TREES, ForeignModel
from cumulant.packaging.convert.scikit_models import EstimatorTable, check_convertible, convert, to_dense
from cumulant.packaging.graphs.graph import INPUT, import_onnx
from cumulant.servable.engine import Array

if TYPE_CHECKING:
    import polars as pl
    from onnx import ModelProto

_BETWEEN, _LAST = "between", "model_"
_SELF = "scikit-learn"


def from_chain(pipeline: Any, last: ForeignModel, *, example: pl.DataFrame | None = None) -> ForeignModel:
    """The graph of `pipeline`, whose last step is the model `last`.

    Raises:
        DefinitionError: a step before it has no ONNX form (named).
    """
    head = pipeline[:-1]
    check_convertible(head)
    columns = tuple(str(name) for name in getattr(pipeline, "feature_names_in_", ()))
    table = EstimatorTable(pipeline, columns, example)
    graph, kind, notes = convert(head, table)

    def predict(values: Mapping[str, Array]) -> dict[str, Array]:
        return last.predict({INPUT: to_dense(head.transform(table.original(values)))})

    return replace(
        last,
        kind=last.kind if last.kind == _SELF else f"{_SELF} with {last.kind}",
        converter=f"skl2onnx, {kind}; {last.converter}",
        model=_joined(graph, last.model),
        tolerance=TREES if kind == "FP64" else NETS,
        predict=predict,
        columns=columns if table.matrix else (),
        notes=(*notes, *last.notes),
    )


def _joined(head: ModelProto, last: ModelProto) -> ModelProto:
    onnx = import_onnx()
    tail = onnx.compose.add_prefix(last, _LAST, rename_outputs=False)
    taken = tail.graph.input[0].type.tensor_type
    head.graph.node.append(onnx.helper.make_node("Cast", [head.graph.output[0].name], [_BETWEEN], to=taken.elem_type))
    del head.graph.output[:]
    width = taken.shape.dim[1].dim_value
    head.graph.output.append(onnx.helper.make_tensor_value_info(_BETWEEN, taken.elem_type, ["n", width]))
    # The operators of preprocessing are the same in the newer version that the trees need.
    del head.opset_import[:]
    head.opset_import.extend(tail.opset_import)
    head.ir_version = tail.ir_version
    merged: ModelProto = onnx.compose.merge_models(head, tail, io_map=[(_BETWEEN, f"{_LAST}{INPUT}")])
    return merged
