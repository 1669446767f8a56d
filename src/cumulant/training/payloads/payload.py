"""What a fitted model consists of, without pickle: boosters as text, arrays, a constant, an ONNX graph.

Every payload answers `predict(matrix [n, k] float32)` with float64 [n] (binary: probability of the second class;
regression: value) or [n, classes], before calibration, and writes itself to files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.training.payloads.encoding import Matrix

Floats = NDArray[np.float64]
Kind = Literal["lightgbm", "xgboost", "catboost", "mlp", "linear", "naive", "onnx", "blend", "widened"]


class Payload(Protocol):
    @property
    def kind(self) -> Kind: ...

    def predict(self, matrix: Matrix, /) -> Floats: ...

    def files(self) -> dict[str, bytes]:
        """Content by file name; `payload_from` reads it back."""
        ...


class Averaged(msgspec.Struct, frozen=True, dict=True):
    """Models of one kind as texts; their answers are averaged. Their files are named by `stem` and `suffix`."""

    texts: tuple[str, ...]
    kind: ClassVar[Kind]
    stem: ClassVar[str]
    suffix: ClassVar[str] = ".json"

    @cached_property
    def models(self) -> list[Any]:
        return [self._read(text) for text in self.texts]

    def predict(self, matrix: Matrix, /) -> Floats:
        return mean_of([self._answers(model, matrix) for model in self.models])

    def files(self) -> dict[str, bytes]:
        return {f"{self.stem}-{number}{self.suffix}": text.encode() for number, text in enumerate(self.texts)}

    @classmethod
    def of_files(cls, files: Mapping[str, bytes]) -> Self:
        """Raises FileNotFoundError where there are none."""
        return cls(_texts(files, cls.stem, cls.suffix))

    @staticmethod
    def _read(text: str) -> Any:
        raise NotImplementedError

    @staticmethod
    def _answers(model: Any, matrix: Matrix) -> Floats:
        answers: Floats = model.predict(matrix)
        return answers


class Boosters(Averaged, frozen=True, dict=True):
    """LightGBM models in LightGBM's own text form."""

    kind = "lightgbm"
    stem = "booster"
    suffix = ".txt"

    @staticmethod
    def _read(text: str) -> Any:
        import lightgbm

        return lightgbm.Booster(model_str=text)

    @staticmethod
    def _answers(model: Any, matrix: Matrix) -> Floats:
        return np.asarray(model.predict(matrix), dtype=np.float64)


def mean_of(answers: list[Floats]) -> Floats:
    total = answers[0]
    for member_answers in answers[1:]:
        total = total + member_answers
    return total / len(answers)


def average(answers: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """The weighted sum, in the order given."""
    total = weights[0] * answers[0]
    for weight, other in zip(weights[1:], answers[1:], strict=True):
        total = total + weight * other
    return total


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
        return linked(self.scores(matrix), self.link)

    def scores(self, matrix: Matrix | Floats) -> Floats:
        """[n, m] before the link."""
        score = np.tile(np.array(self.bias), (len(matrix), 1))
        if self.columns:
            picked = matrix[:, list(self.columns)].astype(np.float64)
            unknown = np.isnan(picked)
            scaled = (np.where(unknown, self.fill, picked) - np.array(self.mean)) / np.array(self.scale)
            score += scaled @ np.array(self.weight) + unknown @ np.array(self.missing)
        for column, rows in self.tables.items():
            codes, table = matrix[:, column], np.array(rows)
            score += table[np.where(np.isnan(codes), len(table) - 1, codes).astype(np.int64)]
        return score

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


class OnnxModel(msgspec.Struct, frozen=True, dict=True):
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
        (output,) = session.run([name], {session.get_inputs()[0].name: np.ascontiguousarray(matrix)})
        answer = np.asarray(output, dtype=np.float64).reshape(len(matrix), -1)
        return answer if self.outputs > 1 else answer[:, -1]

    def files(self) -> dict[str, bytes]:
        return {"model.onnx": self.content, "outputs": str(self.outputs).encode()}


_FLOATS = ("tensor(float)", "tensor(double)")


class Blend(msgspec.Struct, frozen=True, kw_only=True):
    """The average of other payloads by `weights`, whose sum is 1."""

    members: tuple[Payload, ...]
    weights: tuple[float, ...]

    @property
    def kind(self) -> Kind:
        return "blend"

    def predict(self, matrix: Matrix, /) -> Floats:
        return average([member.predict(matrix) for member in self.members], self.weights)

    def files(self) -> dict[str, bytes]:
        parts = _Parts(kinds=tuple(part.kind for part in self.members), weights=self.weights)
        files = {"blend.json": msgspec.json.encode(parts)}
        for number, member in enumerate(self.members):
            files |= {f"{_prefix(number)}{name}": content for name, content in member.files().items()}
        return files

    @classmethod
    def of_files(cls, files: Mapping[str, bytes], read: Callable[[Kind, Mapping[str, bytes]], Payload]) -> Self:
        """The payload that `files` wrote; `read` makes a member of its kind and files.

        Raises:
            ValueError: members and weights are not of one number.
        """
        parts = msgspec.json.decode(files["blend.json"], type=_Parts)
        if not parts.kinds or len(parts.kinds) != len(parts.weights):
            raise ValueError("blend.json needs one weight a member")
        members = []
        for number, kind in enumerate(parts.kinds):
            prefix = _prefix(number)
            own = {name.removeprefix(prefix): content for name, content in files.items() if name.startswith(prefix)}
            members.append(read(kind, own))
        return cls(members=tuple(members), weights=parts.weights)


class _Parts(msgspec.Struct, frozen=True, kw_only=True):
    kinds: tuple[Kind, ...]
    weights: tuple[float, ...]


def _prefix(number: int) -> str:
    return f"member-{number}."


def _texts(files: Mapping[str, bytes], stem: str, suffix: str) -> tuple[str, ...]:
    names = [name for name in files if name.startswith(f"{stem}-") and name.endswith(suffix)]
    if not names:
        raise FileNotFoundError(f"there is no {stem}-0{suffix}")
    ordered = sorted(names, key=lambda name: int(name.removeprefix(f"{stem}-").removesuffix(suffix)))
    return tuple(files[name].decode() for name in ordered)
