"""Conversion of models in memory and in pickles."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cumulant.core.errors import DataError, UsageError, missing_part
from cumulant.packaging.convert.boosters import from_booster
from cumulant.packaging.convert.foreign_model import ForeignModel
from cumulant.packaging.convert.hist_boosting import from_hist_boosting, is_hist_boosting
from cumulant.packaging.convert.onnx_files import decode, from_graph
from cumulant.packaging.convert.xgboost_model import from_document

if TYPE_CHECKING:
    import polars as pl

_KINDS = "a scikit-learn estimator or pipeline, a LightGBM or XGBoost model, or an ONNX ModelProto"


def unpickle(path: Path) -> Any:
    """What the joblib or pickle file holds. Its author can run any code here: require trust first.

    Raises:
        DataError: it is cut off, or needs a module that is not here.
    """
    try:
        import joblib
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "joblib", "train") from None
    try:
        return joblib.load(path)
    except ImportError as error:
        hint = "run this where the model's own code can be imported"
        raise DataError(f"{path} cannot be read: {error}", subject=str(path), hint=hint) from None
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        ValueError,
        TypeError,
        LookupError,
        OSError,
        zlib.error,
        MemoryError,
    ) as error:
        hint = "run this with the packages that the model was saved with"
        raise DataError(f"{path} cannot be unpickled: {error!r}", subject=str(path), hint=hint) from None


def from_object(model: Any, *, example: pl.DataFrame | None = None) -> ForeignModel:
    """The graph of a model in memory; `example` is a table of rows, which gives the types of its columns.

    Raises:
        UsageError: it is of no accepted kind.
        DefinitionError: it has no ONNX form; names the steps that have none.
    """
    family = _family(model)
    match family:
        case "onnx":
            return from_graph(decode(model.SerializeToString(), "the model"))
        case "lightgbm":
            return _lightgbm(model)
        case "xgboost":
            return _xgboost(model)
        case "sklearn" if hasattr(model, "steps") and _has_own_trees(model.steps[-1][1]):
            from cumulant.packaging.convert.scikit_models import from_pipeline

            return from_pipeline(model, from_object(model.steps[-1][1]), example=example)
        case "sklearn" if is_hist_boosting(model):
            return from_hist_boosting(model)
        case "sklearn":
            from cumulant.packaging.convert.scikit_models import from_estimator

            return from_estimator(model, example=example)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise UsageError(f"a {kind} cannot be packaged", subject=kind, hint=f"give {_KINDS}")


def _has_own_trees(model: Any) -> bool:
    return _family(model) in ("lightgbm", "xgboost") or is_hist_boosting(model)


def _family(model: Any) -> str:
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if type(model).__name__ == "ModelProto":
        return "onnx"
    return next((name for name in ("lightgbm", "xgboost", "sklearn") if name in packages), "")


def _lightgbm(model: Any) -> ForeignModel:
    booster = getattr(model, "booster_", model)
    if not hasattr(booster, "model_to_string"):
        raise UsageError("this LightGBM object is no model", hint=f"give {_KINDS}")
    # The text is the model that is packaged, so the model of the text is what answers are compared with.
    labels = getattr(model, "classes_", ())
    return from_booster(booster.model_to_string(), booster, labels=labels, names=_names(model))


def _xgboost(model: Any) -> ForeignModel:
    import msgspec

    booster = model.get_booster() if hasattr(model, "get_booster") else model
    if not hasattr(booster, "save_raw"):
        raise UsageError("this XGBoost object is no model", hint=f"give {_KINDS}")
    document = msgspec.json.decode(bytes(booster.save_raw("json")))
    return from_document(document, lambda: booster, labels=getattr(model, "classes_", ()))


def _names(model: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in getattr(model, "feature_names_in_", ()))
