"""A fitted model: how features become its matrix, its payload, its calibration and its threshold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import polars as pl

from cumulant.core.errors import DefinitionError, IntegrityError
from cumulant.core.servable import Calibration, Input, Task
from cumulant.training.evaluation.calibration import apply
from cumulant.training.payloads.encoding import Matrix, encode
from cumulant.training.payloads.payload import (
    Averaged,
    Blend,
    Boosters,
    Floats,
    Kind,
    LinearWeights,
    OnnxModel,
    Payload,
    Prior,
)
from cumulant.training.payloads.stored_payload import payload_from
from cumulant.training.payloads.widened import Widened, Widening
from cumulant.training.spec import Parameter

P = TypeVar("P", Blend, Boosters, LinearWeights, Prior, OnnxModel, Widened)


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a model but its payload."""

    kind: Kind
    trainer: str
    task: Task
    classes: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()
    calibration: Calibration = Calibration()
    threshold: float | None = None
    #: share of the gain (boosters) or of the absolute standardised weight (linear) of each feature, largest first
    importance: dict[str, float] = {}
    params: dict[str, Parameter] = {}


class FittedModel:
    """A model that answers by itself, without ONNX: the reference that a packaged model is compared with."""

    def __init__(self, card: ModelCard, payload: Payload) -> None:
        self.card = card
        self.payload = payload

    @property
    def kind(self) -> Kind:
        return self.card.kind

    @property
    def trainer(self) -> str:
        return self.card.trainer

    @property
    def task(self) -> Task:
        return self.card.task

    @property
    def classes(self) -> tuple[str, ...]:
        return self.card.classes

    @property
    def inputs(self) -> tuple[Input, ...]:
        return self.card.inputs

    @property
    def calibration(self) -> Calibration:
        return self.card.calibration

    @property
    def threshold(self) -> float | None:
        """Binary: true is answered at or above it."""
        return self.card.threshold

    @property
    def importance(self) -> dict[str, float]:
        return self.card.importance

    @property
    def params(self) -> dict[str, Parameter]:
        return self.card.params

    def encode(self, features: pl.DataFrame) -> Matrix:
        """[n, k] float32; see `encoding.encode`."""
        return encode(features, self.inputs)

    def predict(self, matrix: Matrix, /) -> Floats:
        """Calibrated probability of the second class [n], probabilities [n, classes], or values [n]."""
        return apply(self.calibration, self.payload.predict(matrix))

    def predict_frame(self, features: pl.DataFrame) -> Floats:
        """`predict` of the encoded features."""
        return self.predict(self.encode(features))

    def boosters(self) -> Sequence[str]:
        """The texts of boosters or perceptrons, whose answers are averaged.

        Raises:
            DefinitionError: a model of another kind.
        """
        if isinstance(self.payload, Averaged):
            return self.payload.texts
        return self._of(Boosters).texts

    def linear(self) -> LinearWeights:
        """Raises DefinitionError for another kind."""
        return self._of(LinearWeights)

    def widened(self) -> tuple[Widening, FittedModel]:
        """How the matrix is widened, and the model of the wide one. Raises DefinitionError for another kind."""
        own = self._of(Widened)
        return own.widening, FittedModel(msgspec.structs.replace(self.card, kind=own.inner.kind), own.inner)

    def prior(self) -> Sequence[float]:
        """The constant answer. Raises DefinitionError for another kind."""
        return self._of(Prior).values

    def onnx(self) -> bytes:
        """A user's graph. Raises DefinitionError for another kind."""
        return self._of(OnnxModel).content

    def members(self) -> Sequence[tuple[float, FittedModel]]:
        """Weights and members of a blend, uncalibrated. Raises DefinitionError for another kind."""
        blend = self._of(Blend)
        plain = {"calibration": Calibration(), "threshold": None}
        cards = [msgspec.structs.replace(self.card, kind=part.kind, **plain) for part in blend.members]
        return [
            (weight, FittedModel(card, member))
            for weight, card, member in zip(blend.weights, cards, blend.members, strict=True)
        ]

    def _of(self, wanted: type[P]) -> P:
        if not isinstance(self.payload, wanted):
            raise DefinitionError(f"a model of kind {self.kind} is no {wanted.__name__.lower()}")
        return self.payload

    def to_folder(self, folder: Path) -> Path:
        """Write the model as text, JSON and ONNX files; nothing is pickled. The same model gives the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.payload.files().items():
            (folder / name).write_bytes(content)
        (folder / "model.json").write_bytes(msgspec.json.encode(self.card))
        return folder

    @classmethod
    def from_folder(cls, folder: Path) -> FittedModel:
        """Read what `to_folder` wrote.

        Raises:
            IntegrityError: a file is missing or is not what it should be.
        """
        try:
            card = msgspec.json.decode((folder / "model.json").read_bytes(), type=ModelCard)
        except (FileNotFoundError, msgspec.DecodeError) as error:
            raise IntegrityError(f"the stored model in {folder.name} cannot be read: {error}") from None
        return cls(card, payload_from(card.kind, folder))


def constant(values: Sequence[float], *, task: Task, classes: Sequence[str], inputs: Sequence[Input]) -> FittedModel:
    """The naive model that always answers `values`."""
    card = ModelCard(kind="naive", trainer="naive", task=task, classes=tuple(classes), inputs=tuple(inputs))
    return FittedModel(card, Prior(tuple(float(value) for value in np.asarray(values))))
