"""Payloads read back from the files that they wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from cumulant.core.errors import IntegrityError
from cumulant.training.payloads.engine_models import CatboostModels, XgboostModels
from cumulant.training.payloads.payload import Blend, Boosters, Kind, LinearWeights, OnnxModel, Payload, Prior
from cumulant.training.payloads.perceptron import Perceptrons
from cumulant.training.payloads.widened import Widened


def payload_from(kind: Kind, folder: Path) -> Payload:
    """The payload whose `files` are in `folder`.

    Raises:
        IntegrityError: a file is missing or is not what it should be.
    """
    try:
        return payload_of(kind, {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    except (FileNotFoundError, KeyError, msgspec.DecodeError, ValueError) as error:
        lacking = f"there is no {error.args[0]}" if isinstance(error, KeyError) else error
        raise IntegrityError(
            f"the stored model in {folder.name} cannot be read: {lacking}", subject=folder.name
        ) from None


def payload_of(kind: Kind, files: Mapping[str, bytes]) -> Payload:
    """The payload whose `files` are these.

    Raises:
        KeyError, FileNotFoundError: a file is missing.
        ValueError: one is not what it should be.
    """
    readers: dict[Kind, Callable[[Mapping[str, bytes]], Payload]] = {
        "lightgbm": Boosters.of_files,
        "xgboost": XgboostModels.of_files,
        "catboost": CatboostModels.of_files,
        "mlp": Perceptrons.of_files,
        "linear": lambda files: msgspec.json.decode(files["linear.json"], type=LinearWeights),
        "naive": lambda files: msgspec.json.decode(files["prior.json"], type=Prior),
        "onnx": lambda files: OnnxModel(files["model.onnx"], int(files["outputs"])),
        "blend": lambda files: Blend.of_files(files, payload_of),
        "widened": lambda files: Widened.of_files(files, payload_of),
    }
    return readers[kind](files)
