"""What the driver must know of a servable of either kind: its description, and what it says to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cumulant.core.servable import GRAPH_FORMAT, GraphServable, Servable, TensorSpec

#: numpy's names of what MLflow's tensors can hold
_DTYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "object",
}  # fmt: skip


class _Format(msgspec.Struct):
    format: str = ""


def describe(folder: Path) -> Servable | GraphServable:
    """The description of the servable in `folder`."""
    text = (folder / "servable.json").read_bytes()
    kind: type[Servable | GraphServable] = Servable
    if msgspec.json.decode(text, type=_Format).format == GRAPH_FORMAT:
        kind = GraphServable
    return msgspec.json.decode(text, type=kind)


def params(found: Servable | GraphServable) -> dict[str, str]:
    """The parameters of a logged model."""
    if isinstance(found, Servable):
        return {"task": found.task, "features": str(len(found.inputs))}
    return {"task": task(found), "kind": found.lineage.get("kind", "ONNX")}


def task(found: Servable | GraphServable) -> str:
    """What MLflow calls the model's type."""
    return found.task if isinstance(found, Servable) else "graph"


def tensor_signature(mlflow: Any, found: GraphServable) -> Any:
    """Tensors in, tensors out; a matrix with named columns is a table of numbers, as a frame brings it."""
    schema = mlflow.types.schema.Schema
    inputs = schema([_tensor(mlflow, spec, named=len(found.inputs) > 1) for spec in found.inputs])
    if found.columns:
        column = mlflow.types.schema.ColSpec
        double = mlflow.types.schema.DataType.double
        inputs = schema([column(double, name) for name in found.columns])
    outputs = schema([_tensor(mlflow, spec, named=True) for spec in found.outputs])
    return mlflow.models.ModelSignature(inputs=inputs, outputs=outputs)


def _tensor(mlflow: Any, spec: TensorSpec, *, named: bool) -> Any:
    import numpy as np

    shape = tuple(spec.shape) or (-1,)
    return mlflow.types.schema.TensorSpec(np.dtype(_DTYPES[spec.datatype]), shape, name=spec.name if named else None)
