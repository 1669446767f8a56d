"""The description of a servable of either kind, and its parameters and signature in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cumulant.core.servable import GRAPH_FORMAT, GraphServable, Servable, TensorSpec

#: numpy's names of what MLflow's tensors can hold
_DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}


class _Format(msgspec.Struct):
    format: str = ""


def describe(folder: Path) -> Servable | GraphServable:
    """The description of the servable in `folder`."""
    text = (folder / "servable.json").read_bytes()
    kind: type[Servable | GraphServable] = Servable
    if msgspec.json.decode(text, type=_Format).format == GRAPH_FORMAT:
        kind = GraphServable
    return msgspec.json.decode(text, type=kind)


def model_params(servable: Servable | GraphServable) -> dict[str, str]:
    """The parameters of a logged model."""
    if isinstance(servable, Servable):
        return {"task": servable.task, "features": str(len(servable.inputs))}
    return {"task": model_type(servable), "kind": servable.lineage.get("kind", "ONNX")}


def model_type(servable: Servable | GraphServable) -> str:
    """The model's type in MLflow."""
    return servable.task if isinstance(servable, Servable) else "graph"


def tensor_signature(mlflow: Any, servable: GraphServable) -> Any:
    """The signature of a graph: tensors in and out; an input with named columns is a table of numbers."""
    schema = mlflow.types.schema.Schema
    inputs = schema([_tensor(mlflow, spec, named=len(servable.inputs) > 1) for spec in servable.inputs])
    if servable.columns:
        column = mlflow.types.schema.ColSpec
        double = mlflow.types.schema.DataType.double
        inputs = schema([column(double, name) for name in servable.columns])
    outputs = schema([_tensor(mlflow, spec, named=True) for spec in servable.outputs])
    return mlflow.models.ModelSignature(inputs=inputs, outputs=outputs)


def _tensor(mlflow: Any, spec: TensorSpec, *, named: bool) -> Any:
    import numpy as np

    shape = tuple(spec.shape) or (-1,)
    return mlflow.types.schema.TensorSpec(np.dtype(_DTYPES[spec.datatype]), shape, name=spec.name if named else None)
