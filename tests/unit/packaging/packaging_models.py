"""Small trained models for the tests of packaging: the protocol, filled with real engines."""

from __future__ import annotations

from dataclasses import dataclass

import lightgbm
import numpy as np

from cumulant.core.plan import FeaturePlan, FeatureSpec, Field
from cumulant.core.servable import Calibration, Input
from cumulant.servable.scorer import calibrate
from cumulant.training.payloads.encoding import encode
from cumulant.training.payloads.payload import LinearWeights

NONE = Calibration()


@dataclass(frozen=True, kw_only=True)
class Boosted:
    """The average of LightGBM boosters, predicted by LightGBM itself."""

    texts: tuple[str, ...]
    inputs: tuple[Input, ...]
    task: str = "binary"
    classes: tuple[str, ...] = ("false", "true")
    calibration: Calibration = NONE
    threshold: float | None = 0.5
    kind: str = "lightgbm"

    def encode(self, features):
        return encode(features, self.inputs)

    def boosters(self):
        return self.texts

    def predict(self, matrix):
        found = [lightgbm.Booster(model_str=text).predict(matrix, num_threads=1) for text in self.texts]
        return calibrate(sum(found[1:], start=found[0]) / len(found), self.calibration)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A linear model, predicted row by row in plain Python: slow and obviously right."""

    weights: LinearWeights
    inputs: tuple[Input, ...]
    task: str = "regression"
    classes: tuple[str, ...] = ()
    calibration: Calibration = NONE
    threshold: float | None = None
    kind: str = "linear"

    def encode(self, features):
        return encode(features, self.inputs)

    def linear(self):
        return self.weights

    def predict(self, matrix):
        rows = np.array([self._row([float(x) for x in row]) for row in matrix]).reshape(len(matrix), -1)
        return rows if self.task == "multiclass" else rows[:, 0]

    def _row(self, row):
        w = self.weights
        scores = list(w.bias)
        for place, column in enumerate(w.columns):
            x, unknown = row[column], row[column] != row[column]
            scaled = ((w.fill[place] if unknown else x) - w.mean[place]) / w.scale[place]
            for k in range(len(scores)):
                scores[k] += scaled * w.weight[place][k] + (w.missing[place][k] if unknown else 0)
        for column, table in w.tables.items():
            known = row[column] == row[column]
            for k in range(len(scores)):
                scores[k] += table[int(row[column])][k] if known else table[-1][k]
        if w.link == "sigmoid":
            return [1 / (1 + np.exp(-scores[0]))]
        if w.link == "softmax":
            powers = [np.exp(score - max(scores)) for score in scores]
            return [power / sum(powers) for power in powers]
        return scores


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The same answer for every row."""

    values: tuple[float, ...]
    inputs: tuple[Input, ...]
    task: str = "binary"
    classes: tuple[str, ...] = ("false", "true")
    calibration: Calibration = NONE
    threshold: float | None = 0.5
    kind: str = "naive"

    def encode(self, features):
        return encode(features, self.inputs)

    def prior(self):
        return self.values

    def predict(self, matrix):
        rows = np.tile(np.array(self.values), (len(matrix), 1))
        return rows if self.task == "multiclass" else rows[:, 0]


@dataclass(frozen=True, kw_only=True)
class Own:
    """A user's ONNX graph beside the function that it came from."""

    content: bytes
    inputs: tuple[Input, ...]
    function: object
    task: str = "binary"
    classes: tuple[str, ...] = ("false", "true")
    calibration: Calibration = NONE
    threshold: float | None = 0.5
    kind: str = "onnx"

    def encode(self, features):
        return encode(features, self.inputs)

    def onnx(self):
        return self.content

    def predict(self, matrix):
        return self.function(matrix)


def numbers(count: int) -> tuple[Input, ...]:
    return tuple(Input(f"f{place}", "number") for place in range(count))


def plan_for(inputs: tuple[Input, ...]) -> FeaturePlan:
    types = {"number": "float", "flag": "bool", "category": "str"}
    features = tuple(FeatureSpec(one.feature, types[one.kind]) for one in inputs)
    return FeaturePlan("rows", None, {}, features, tuple(Field(f.name, f.dtype) for f in features))


def columns_of(matrix) -> dict[str, list[float]]:
    """A matrix of numbers as the columns that encode to it."""
    return {f"f{place}": matrix[:, place].astype(np.float64) for place in range(matrix.shape[1])}
