"""Foreign models: a converted graph with its metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.servable.engine import Array

if TYPE_CHECKING:
    from onnx import ModelProto

#: sample values by input name, as they were read -> expected outputs by name
Predict = Callable[[Mapping[str, Array]], dict[str, Array]]
#: of the difference to the original, relative to values above 1
TREES, NETS = 1e-6, 1e-4


@dataclass(frozen=True, kw_only=True)
class ForeignModel:
    """Converted model; `files` are external data of the graph by name, `notes` are hints for the user."""

    kind: str
    converter: str
    model: ModelProto
    tolerance: float
    predict: Predict
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)


def installed_versions(*names: str) -> dict[str, str]:
    installed = {}
    for name in names:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed
