"""Scoring by a servable: encode, run the graph, calibrate, decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cumulant.core.servable import Answer, Calibration, Servable
from cumulant.servable.description import Columns, Floats, Matrix
from cumulant.servable.encoder import Encoder
from cumulant.servable.engine import Array, Engine
from cumulant.servable.folder import load_servable

TINY = 1e-15
#: binary models without labels of their own answer true and false
_TRUTH = ((), ("false", "true"), ("False", "True"))


class Scorer:
    """A loaded servable. Needs numpy, onnxruntime and msgspec; never unpickles. One thread an instance.

    Raises:
        NotFoundError, IntegrityError: as `load_servable`; also where the graph cannot be loaded.
    """

    def __init__(self, folder: Path | str, *, verify: bool = True, untried: bool = False) -> None:
        folder = Path(folder)
        self.servable: Servable = load_servable(folder, verify=verify)
        self.encoder = Encoder(self.servable.inputs)
        self.engine = Engine(folder / self.servable.model, untried=untried)
        self._input = self.engine.inputs[0].name
        self._outputs = [self.engine.outputs[0].name]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that the model reads, in the order of its matrix."""
        return self.encoder.features

    def score(self, columns: Columns) -> Floats:
        """Calibrated answers: binary [n] (of the second class), multiclass [n, classes], regression [n].

        Raises:
            RequestError: as `Encoder.matrix`.
        """
        return self.score_matrix(self.encoder.matrix(columns))

    def score_matrix(self, matrix: Matrix) -> Floats:
        """As `score`, from the encoded matrix [n, k]."""
        return self.finish(self.engine.run(self.feeds(matrix), self._outputs))

    def feeds(self, matrix: Matrix) -> dict[str, Matrix]:
        """Engine inputs for the encoded matrix [n, k]."""
        return {self._input: matrix}

    def finish(self, raw: Sequence[Array]) -> Floats:
        """Calibrated answers from the engine's outputs, as `score`."""
        answers = calibrate(raw[0].astype(np.float64, copy=False), self.servable.calibration)
        return answers if self.servable.task == "multiclass" else answers.reshape(-1)

    def answers(self, columns: Columns, *, age: Sequence[float | None] | None = None) -> list[Answer]:
        """One answer a row; `age` is that of the stored state used, in seconds."""
        return self.decide(self.score(columns), age=age)

    def decide(self, scores: Floats, *, age: Sequence[float | None] | None = None) -> list[Answer]:
        """Answers for `scores`, by the servable's threshold and labels."""
        ages = age if age is not None else [None] * len(scores)
        servable = self.servable
        if servable.task == "regression":
            return [Answer(prediction=s, state_age=a) for s, a in zip(scores.tolist(), ages, strict=True)]
        if servable.task == "multiclass":
            return _multiclass(scores, servable, ages)
        no, yes = labels(servable)
        cut = 0.5 if servable.threshold is None else servable.threshold
        return [
            Answer(prediction=yes if s >= cut else no, probability=s, state_age=a)
            for s, a in zip(scores.tolist(), ages, strict=True)
        ]


def labels(servable: Servable) -> tuple[str | int | bool, ...]:
    """Labels of a classifier: its classes, as numbers where the target was, or false and true."""
    if servable.task == "binary" and servable.classes in _TRUTH:
        return (False, True)
    if servable.whole:
        return tuple(map(int, servable.classes))
    return servable.classes


def calibrate(raw: Floats, calibration: Calibration) -> Floats:
    """Platt's sigmoid over the logit of `raw`, at least 1e-15 from 0 and 1 (Platt, 1999)."""
    if calibration.kind == "none":
        return raw
    p = np.clip(raw, TINY, 1 - TINY)
    result: Floats = 1 / (1 + np.exp(-(calibration.a * np.log(p / (1 - p)) + calibration.b)))
    return result


def _multiclass(scores: Floats, servable: Servable, ages: Sequence[float | None]) -> list[Answer]:
    classes, predictions = servable.classes, labels(servable)
    best = scores.argmax(axis=1).tolist() if len(scores) else []
    return [
        Answer(
            prediction=predictions[top],
            probability=row[top],
            probabilities=dict(zip(classes, row, strict=True)),
            state_age=age,
        )
        for top, row, age in zip(best, scores.tolist(), ages, strict=True)
    ]
