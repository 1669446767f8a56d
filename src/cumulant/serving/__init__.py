"""The data plane: a program of its own that answers from servable folders.

It needs numpy, onnxruntime, msgspec and uvicorn, and reads nothing but the folders it is given and the
online state that their feature plans name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.serving.app import Application
    from cumulant.serving.events import ServiceStarted, ServiceStopped
    from cumulant.serving.models import Model, ModelSet, open_model
    from cumulant.serving.schema import RequestSchema
    from cumulant.serving.server import Ready, serve
    from cumulant.serving.spec import FallbackSpec, ReasonsSpec, ServingSpec

_HOMES = {
    "Application": "app",
    "Model": "models",
    "ModelSet": "models",
    "open_model": "models",
    "Ready": "server",
    "RequestSchema": "schema",
    "ServiceStarted": "events",
    "ServiceStopped": "events",
    "FallbackSpec": "spec",
    "ReasonsSpec": "spec",
    "ServingSpec": "spec",
    "serve": "server",
}

__all__ = [
    "Application",
    "FallbackSpec",
    "Model",
    "ModelSet",
    "Ready",
    "ReasonsSpec",
    "RequestSchema",
    "ServiceStarted",
    "ServiceStopped",
    "ServingSpec",
    "open_model",
    "serve",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
