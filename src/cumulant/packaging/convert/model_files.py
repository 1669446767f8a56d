"""Conversion of a model file to a graph, by its kind."""

from __future__ import annotations

from pathlib import Path

from cumulant.core.errors import UsageError
from cumulant.packaging.convert.boosters import read_booster
from cumulant.packaging.convert.foreign_model import ForeignModel
from cumulant.packaging.convert.onnx_files import read_graph
from cumulant.packaging.samples import read_table_if_any
from cumulant.packaging.sources import Kind, identify


def read_model(path: Path, *, trust_pickle: bool = False, example: Path | None = None) -> ForeignModel:
    """The model in the file `path`. `example` is a file of rows; a table gives a scikit-learn model's column types.

    Raises:
        UsageError: it is a pickle, which may run anything when it is read, and `trust_pickle` is not given.
        DataError: it is empty, cut off, or of no accepted kind.
        DefinitionError: it has no ONNX form.
    """
    kind: Kind = identify(path)
    match kind:
        case "onnx":
            return read_graph(path)
        case "lightgbm":
            return read_booster(path)
        case "xgboost":
            from cumulant.packaging.convert.xgboost_model import read_xgboost

            return read_xgboost(path)
        case "pickle":
            from cumulant.packaging.convert.model_objects import from_object, unpickle

            if not trust_pickle:
                raise untrusted_pickle(path)
            return from_object(unpickle(path), example=read_table_if_any(example))
        case _:
            raise UsageError(f"{path} is a folder, not a model's file", subject=str(path))


def untrusted_pickle(path: Path) -> UsageError:
    hint = "add --trust-pickle if you trust its author, or save the model as ONNX, LightGBM text or XGBoost JSON"
    return UsageError(f"{path} is a pickle, which may run any code when it is read", subject=str(path), hint=hint)
