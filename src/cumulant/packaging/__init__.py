"""From a trained model to a servable: one folder that answers as the model did.

`Scorer` and `load_servable` need numpy, onnxruntime and msgspec only; `build` also needs onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.packaging.builder import build
    from cumulant.packaging.closed import closed_features, complete_fields, nonnegative_fields
    from cumulant.packaging.encoder import Encoder
    from cumulant.packaging.engine import DTYPES, Engine
    from cumulant.packaging.events import ServableBuilt
    from cumulant.packaging.folder import load_description, load_servable, new_folder, seal, with_salt, with_version
    from cumulant.packaging.model import TrainedModel
    from cumulant.packaging.quantization import quantize
    from cumulant.packaging.reference import reference_values
    from cumulant.packaging.scorer import Scorer, labels
    from cumulant.packaging.state import check_next, check_state, initial_state

_HOMES = {
    "DTYPES": "engine",
    "Encoder": "encoder",
    "Engine": "engine",
    "Scorer": "scorer",
    "ServableBuilt": "events",
    "TrainedModel": "model",
    "build": "builder",
    "check_next": "state",
    "check_state": "state",
    "closed_features": "closed",
    "complete_fields": "closed",
    "nonnegative_fields": "closed",
    "initial_state": "state",
    "labels": "scorer",
    "load_description": "folder",
    "load_servable": "folder",
    "new_folder": "folder",
    "quantize": "quantization",
    "reference_values": "reference",
    "seal": "folder",
    "with_salt": "folder",
    "with_version": "folder",
}

__all__ = [
    "DTYPES",
    "Encoder",
    "Engine",
    "Scorer",
    "ServableBuilt",
    "TrainedModel",
    "build",
    "check_next",
    "check_state",
    "closed_features",
    "complete_fields",
    "initial_state",
    "labels",
    "load_description",
    "load_servable",
    "new_folder",
    "nonnegative_fields",
    "quantize",
    "reference_values",
    "seal",
    "with_salt",
    "with_version",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
