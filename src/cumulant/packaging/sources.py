"""Kind of a model file, identified by its content."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cumulant.core.errors import DataError, NotFoundError, StorageError

Kind = Literal["servable", "mlflow", "onnx", "lightgbm", "xgboost", "pickle"]
ACCEPTED = (
    "accepted are an ONNX file, a LightGBM text model, an XGBoost model (.json or .ubj), a servable's folder, "
    "a models:/ or runs:/ URI, and a scikit-learn joblib with --trust-pickle"
)
_HEAD = 4096
#: protobuf cannot hold more in one message
MOST_BYTES = 2**31 - 1
#: a pickle of protocol 2 to 5, and what joblib compresses with: gzip, bzip2, xz, lzma, lz4, zlib
_PICKLES = (
    *(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5)),
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x5d\x00\x00",
    b"\x04\x22M\x18",
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
)
_OTHERS = {
    b"PK\x03\x04": "a zip archive, as PyTorch, Keras and skops write",
    b"\x89HDF\r\n": "an HDF5 file, as Keras writes",
    b"GGUF": "a GGUF file",
    b"binf": "an XGBoost model in its old binary form; save it again with save_model('model.ubj')",
    b"bs64": "an XGBoost model in its old binary form; save it again with save_model('model.ubj')",
    b"CBM1": "a CatBoost model; save it with save_model('model.onnx', format='onnx')",
}


def identify(path: Path) -> Kind:
    """Kind of the model at `path`.

    Raises:
        NotFoundError: nothing stands there.
        DataError: it is empty, too large, or of no accepted kind.
        StorageError: it cannot be read.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise NotFoundError(f"there is no model file at {path}", subject=str(path), hint=ACCEPTED)
    head, size = _head(path)
    if size == 0:
        raise DataError(f"{path} is empty", subject=str(path), hint="save the model again")
    kind = _by_content(head)
    if kind is None:
        raise _unknown(path, head)
    if size > MOST_BYTES and kind != "pickle":
        hint = "export large ONNX weights as external data"
        raise DataError(f"{path} is larger than 2 GiB", subject=str(path), hint=hint)
    return kind


def is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` leads below `folder`, links followed. One that no file can have does not: too long, or a loop."""
    try:
        path.exists()  # raises where the path is too long
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _folder(path: Path) -> Kind:
    if (path / "servable.json").is_file():
        return "servable"
    if (path / "MLmodel").is_file():
        return "mlflow"
    raise DataError(f"the folder {path} holds neither a servable nor an MLflow model", subject=str(path), hint=ACCEPTED)


def _head(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD), path.stat().st_size
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}", subject=str(path)) from None


def _by_content(head: bytes) -> Kind | None:
    if head.startswith(_PICKLES):
        return "pickle"
    if head.startswith(tuple(_OTHERS)):
        return None
    if head.startswith((b"tree\n", b"tree\r\n")):
        return "lightgbm"
    if head.startswith(b"{L\0") or (head.lstrip()[:1] == b"{" and b'"' in head):
        return "xgboost"
    # An ONNX file has no mark of its own; it starts with the field 1 (its version) of a protobuf message.
    return "onnx" if head[:1] == b"\x08" else None


def _unknown(path: Path, head: bytes) -> DataError:
    description = next((text for mark, text in _OTHERS.items() if head.startswith(mark)), None)
    message = f"{path} is {description}" if description else f"{path} is no model that can be packaged"
    return DataError(message, subject=str(path), hint=ACCEPTED)
