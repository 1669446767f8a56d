"""What a fitted model consists of, without pickle: boosters as text, arrays, a constant, an ONNX graph.

Every payload answers `predict(matrix [n, k] float32)` with float64 [n] (binary: probability of the second class;
regression: value) or [n, classes], before calibration, and writes itself to files.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import IntegrityError
from cumulant.training.encoding import Matrix

Floats = NDArray[np.float64]
Kind = Literal["lightgbm", "xgboost", "catboost", "linear", "naive", "onnx", "widened"]


class Payload(Protocol):
    @property
    def kind(self) -> Kind: ...

    def predict(self, matrix: Matrix, /) -> Floats: ...

    def files(self) -> dict[str, bytes]:
        """Content by file name; `payload_from` reads it back."""
        ...


class Boosters(msgspec.Struct, frozen=True, dict=True):
    """LightGBM models in LightGBM's own text form; their answers are averaged."""

    texts: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        return "lightgbm"

    @cached_property
    def _loaded(self) -> list[Any]:
        import lightgbm

        return [lightgbm.Booster(model_str=text) for text in self.texts]

    def predict(self, matrix: Matrix, /) -> Floats:
        return mean_of([np.asarray(booster.predict(matrix), dtype=np.float64) for booster in self._loaded])

    def files(self) -> dict[str, bytes]:
        return {f"booster-{number}.txt": text.encode() for number, text in enumerate(self.texts)}


def mean_of(answers: list[Floats]) -> Floats:
    total = answers[0]
    for one in answers[1:]:
        total = total + one
    return total / len(answers)


class LinearWeights(msgspec.Struct, frozen=True, kw_only=True):
    """A linear model over the matrix [n, k] with m outputs.

    score = bias + sum over numeric columns ((x or fill) - mean) / scale * weight
          + sum over numeric columns (missing * weight where x is missing)
          + sum over categorical columns table[code], the last row of a table serving missing codes.

    `columns`, `fill`, `mean`, `scale` have one entry a numeric column; `weight` and `missing` are
    [numeric columns, m]; `tables` maps a categorical column to [categories + 1, m].
    `link`: `identity`, `sigmoid` (m = 1) or `softmax`.
    """

    columns: tuple[int, ...]
    fill: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[tuple[float, ...], ...]
    missing: tuple[tuple[float, ...], ...]
    tables: dict[int, tuple[tuple[float, ...], ...]]
    bias: tuple[float, ...]
    link: Literal["identity", "sigmoid", "softmax"]

    @property
    def kind(self) -> Kind:
        return "linear"

    def predict(self, matrix: Matrix, /) -> Floats:
        score = np.tile(np.array(self.bias), (len(matrix), 1))
        if self.columns:
            picked = matrix[:, list(self.columns)].astype(np.float64)
            unknown = np.isnan(picked)
            scaled = (np.where(unknown, self.fill, picked) - np.array(self.mean)) / np.array(self.scale)
            score += scaled @ np.array(self.weight) + unknown @ np.array(self.missing)
        for column, rows in self.tables.items():
            codes, table = matrix[:, column], np.array(rows)
            score += table[np.where(np.isnan(codes), len(table) - 1, codes).astype(np.int64)]
        return linked(score, self.link)

    def files(self) -> dict[str, bytes]:
        return {"linear.json": msgspec.json.encode(self)}


def linked(score: Floats, link: str) -> Floats:
    from scipy.special import expit, softmax

    if link == "softmax":
        return np.asarray(softmax(score, axis=1), dtype=np.float64)
    return np.asarray(expit(score[:, 0]) if link == "sigmoid" else score[:, 0], dtype=np.float64)


class Prior(msgspec.Struct, frozen=True):
    """The same answer for every row: one number, or one probability a class."""

    values: tuple[float, ...]

    @property
    def kind(self) -> Kind:
        return "naive"

    def predict(self, matrix: Matrix, /) -> Floats:
        answer = np.tile(np.array(self.values, dtype=np.float64), (len(matrix), 1))
        return answer[:, 0] if len(self.values) == 1 else answer

    def files(self) -> dict[str, bytes]:
        return {"prior.json": msgspec.json.encode(self)}


class Graph(msgspec.Struct, frozen=True, dict=True):
    """A user's model as ONNX: one float32 matrix in, probabilities or values out (the last float output)."""

    content: bytes
    outputs: int

    @property
    def kind(self) -> Kind:
        return "onnx"

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])

    def predict(self, matrix: Matrix, /) -> Floats:
        session = self._session
        name = next(out.name for out in reversed(session.get_outputs()) if out.type in _FLOATS)
        (found,) = session.run([name], {session.get_inputs()[0].name: np.ascontiguousarray(matrix)})
        answer = np.asarray(found, dtype=np.float64).reshape(len(matrix), -1)
        return answer if self.outputs > 1 else answer[:, -1]

    def files(self) -> dict[str, bytes]:
        return {"model.onnx": self.content, "outputs": str(self.outputs).encode()}


_FLOATS = ("tensor(float)", "tensor(double)")


def payload_from(kind: Kind, folder: Path) -> Payload:
    """The payload that `files` wrote to `folder`.

    Raises:
        IntegrityError: a file is missing or is not what it should be.
    """
    from cumulant.training.engine_models import CatboostModels, XgboostModels
    from cumulant.training.widened import read_widened

    readers: dict[str, Callable[[Path], Payload]] = {
        "lightgbm": lambda path: Boosters(_texts(path, "booster", ".txt")),
        "xgboost": lambda path: XgboostModels(_texts(path, "xgboost", ".json")),
        "catboost": lambda path: CatboostModels(_texts(path, "catboost", ".json")),
        "linear": lambda path: msgspec.json.decode((path / "linear.json").read_bytes(), type=LinearWeights),
        "naive": lambda path: msgspec.json.decode((path / "prior.json").read_bytes(), type=Prior),
        "widened": read_widened,
        "onnx": lambda path: Graph((path / "model.onnx").read_bytes(), int((path / "outputs").read_text())),
    }
    try:
        return readers[kind](folder)
    except (FileNotFoundError, msgspec.DecodeError, ValueError) as error:
        raise IntegrityError(
            f"the stored model in {folder.name} cannot be read: {error}", subject=folder.name
        ) from None


def _texts(folder: Path, stem: str, suffix: str) -> tuple[str, ...]:
    found = sorted(folder.glob(f"{stem}-*{suffix}"), key=lambda path: int(path.stem.removeprefix(f"{stem}-")))
    if not found:
        raise FileNotFoundError(f"there is no {stem}-0{suffix}")
    return tuple(path.read_bytes().decode() for path in found)
