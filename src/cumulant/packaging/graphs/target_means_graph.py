"""Means of the target for the values of texts, as a lookup in the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cumulant.core.errors import DefinitionError
from cumulant.packaging.graphs.graph import INPUT, GraphBuilder, import_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

    from cumulant.training.payloads.widened import Widening

_WIDE = "servable_matrix"
#: every operator of the lookup means the same from this version on
_LEAST_OPSET = 13


def add_widening(graph: GraphBuilder, widening: Widening, width: int) -> str:
    """Append what `Widening.apply` does; returns the name of the wide matrix, float64."""
    limits = np.full(width, np.inf)
    limits[[table.column for table in widening.tables]] = widening.most
    rare = graph.add("GreaterOrEqual", graph.x, graph.constant(limits))
    parts = [graph.add("Where", rare, graph.number(np.nan), graph.x)]
    for table in widening.tables:
        means = np.array(table.means, dtype=np.float32).astype(np.float64)  # as the model was fitted on them
        parts.append(graph.lookup(graph.x, table.column, means))
    return graph.add("Concat", *parts, axis=1)


def count_added_columns(widening: Widening) -> int:
    return sum(len(table.means[0]) for table in widening.tables)


def prepend_widening(model: ModelProto, widening: Widening, width: int) -> ModelProto:
    """`model`, which reads the wide matrix, reading the matrix of `width` columns.

    Raises:
        DefinitionError: its operators are too old.
    """
    onnx = import_onnx()
    if any(item.domain == "" and item.version < _LEAST_OPSET for item in model.opset_import):
        raise DefinitionError(
            f"the model's ONNX graph has operators of before version {_LEAST_OPSET}, which cannot stand behind the"
            " lookup of texts with many values",
            hint=f"convert it with target_opset={_LEAST_OPSET} or newer",
        )
    graph = GraphBuilder(width)
    wide = graph.cast(add_widening(graph, widening, width), "FP32")
    first = graph.finish_named({_WIDE: (wide, "FP32", (width + count_added_columns(widening),))})
    first.ir_version = model.ir_version
    del first.opset_import[:]
    first.opset_import.extend(model.opset_import)
    constants = {item.name for item in model.graph.initializer}
    (source,) = (item.name for item in model.graph.input if item.name not in constants)
    later = onnx.compose.add_prefix(model, "inner_")
    merged: ModelProto = onnx.compose.merge_models(first, later, io_map=[(_WIDE, f"inner_{source}")])
    assert [item.name for item in merged.graph.input] == [INPUT]
    return merged
