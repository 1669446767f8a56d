"""Model files inside folders of MLflow models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cumulant.core.errors import DataError, DefinitionError
from cumulant.packaging.convert.model_files import untrusted_pickle
from cumulant.packaging.sources import identify, is_inside

_MOST = 1 << 20
#: letters of a name that an error shows
_NAMED = 100
#: flavour -> its keys that name the model's file, relative to the folder
_FILES: Mapping[str, tuple[str, ...]] = {
    "onnx": ("data",),
    "lightgbm": ("data",),
    "xgboost": ("data",),
    "sklearn": ("pickled_model",),
}


def find_mlflow_model(folder: Path, *, trust_pickle: bool) -> Path:
    """File or servable of the MLflow model in `folder`; an own servable takes precedence over flavours.

    Raises:
        UsageError: the model is a pickle, and `trust_pickle` is not given.
        DataError: the description cannot be read, or names a file outside the folder.
        DefinitionError: the model has no flavour that is read here.
    """
    own = next(folder.glob("artifacts/*/servable.json"), None)
    if own is not None:
        return own.parent
    flavours = _flavours(folder / "MLmodel")
    for flavour, keys in _FILES.items():
        for name in (flavours[flavour].get(key) for key in keys if flavour in flavours):
            if isinstance(name, str):
                path = _file(folder, name)
                if identify(path) == "pickle" and not trust_pickle:
                    raise untrusted_pickle(path)
                return path
    listed = ", ".join(sorted(flavours)) or "none"
    hint = f"log it with one of mlflow.{', mlflow.'.join(_FILES)}"
    raise DefinitionError(f"the MLflow model has no flavour that is read here; it has {listed}", hint=hint)


def _flavours(path: Path) -> dict[str, dict[str, Any]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if path.stat().st_size > _MOST:
        raise DataError(f"{path} is too large to be a description", subject=str(path))
    try:
        described = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", subject=str(path)) from None
    flavours = described.get("flavors") if isinstance(described, dict) else None
    if not isinstance(flavours, dict):
        raise DataError(f"{path} is no description of an MLflow model", subject=str(path))
    return {str(name): value for name, value in flavours.items() if isinstance(value, dict)}


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not is_inside(path, folder):
        raise DataError(f'the MLflow model names "{name[:_NAMED]}", outside its folder: refused', subject=str(folder))
    if path.is_dir():  # some flavours keep the file in a folder of its own
        inner = [
            entry for entry in sorted(path.iterdir()) if entry.suffix in (".onnx", ".json", ".ubj", ".txt", ".lgb")
        ]
        return inner[0] if inner else path
    return path
