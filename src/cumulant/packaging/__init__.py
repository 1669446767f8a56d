"""From a trained model to a servable: one folder that answers as the model did.

`Scorer` and `load_servable` need numpy, onnxruntime and msgspec only; `build` also needs onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.packaging.builder import build
    from cumulant.packaging.encoder import Encoder
    from cumulant.packaging.events import ServableBuilt
    from cumulant.packaging.folder import load_servable, with_version
    from cumulant.packaging.model import TrainedModel
    from cumulant.packaging.scorer import Scorer, labels

_HOMES = {
    "Encoder": "encoder",
    "Scorer": "scorer",
    "ServableBuilt": "events",
    "TrainedModel": "model",
    "build": "builder",
    "labels": "scorer",
    "load_servable": "folder",
    "with_version": "folder",
}

__all__ = [
    "Encoder",
    "Scorer",
    "ServableBuilt",
    "TrainedModel",
    "build",
    "labels",
    "load_servable",
    "with_version",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
