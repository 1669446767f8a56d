"""Interface of trained models for packaging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.servable import Calibration, Input, Task
    from cumulant.training.payloads.payload import LinearWeights
    from cumulant.training.payloads.widened import Widening

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]
#: one value a row; None and NaN are missing
Values = Sequence[Any] | NDArray[Any]
#: feature name -> its values
Columns = Mapping[str, Values]
Kind = Literal["lightgbm", "xgboost", "catboost", "mlp", "linear", "naive", "onnx", "blend", "widened"]


class TrainedModel(Protocol):
    """Trained model. `predict` takes the float32 matrix that `inputs` describe.

    It answers calibrated probabilities of the second class ([n], binary), probabilities ([n, classes],
    multiclass) or values ([n], regression).
    """

    @property
    def kind(self) -> Kind: ...

    @property
    def task(self) -> Task: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def inputs(self) -> tuple[Input, ...]: ...

    @property
    def calibration(self) -> Calibration: ...

    @property
    def threshold(self) -> float | None: ...

    def boosters(self) -> Sequence[str]:
        """`lightgbm`, `xgboost`, `catboost`, `mlp`: the text of each booster; their outputs are averaged."""
        ...

    def linear(self) -> LinearWeights:
        """`linear`: the weights; see there for the form."""
        ...

    def prior(self) -> Sequence[float]:
        """`naive`: the constant answer, one number an output (binary and regression: one)."""
        ...

    def widened(self) -> tuple[Widening, TrainedModel]:
        """`widened`: the widening of the matrix, and the inner model."""
        ...

    def onnx(self) -> bytes:
        """`onnx`: a user's graph from one float32 matrix [n, k] to probabilities or values."""
        ...

    def members(self) -> Sequence[tuple[float, TrainedModel]]:
        """`blend`: the weight of each member, and the member without calibration."""
        ...

    def encode(self, features: pl.DataFrame) -> Matrix:
        """Features as the matrix of training, [n, k]."""
        ...

    def predict(self, matrix: Matrix, /) -> Floats: ...
