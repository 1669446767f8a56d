"""What packaging must know of a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cumulant.core.servable import Calibration, Input, Task

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]
#: one value a row; None and NaN are missing
Values = Sequence[Any] | NDArray[Any]
#: feature name -> its values
Columns = Mapping[str, Values]
Kind = Literal["lightgbm", "linear", "naive", "onnx"]


class LinearWeights(msgspec.Struct, frozen=True, kw_only=True):
    """A linear model over the matrix [n, k], with m outputs.

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


class TrainedModel(Protocol):
    """A model as training leaves it. `predict` takes the float32 matrix that `inputs` describe.

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
        """`lightgbm`: the text of each booster; their outputs are averaged."""
        ...

    def linear(self) -> LinearWeights:
        """`linear`: the weights."""
        ...

    def prior(self) -> Sequence[float]:
        """`naive`: the constant answer, one number an output (binary and regression: one)."""
        ...

    def onnx(self) -> bytes:
        """`onnx`: a user's graph from one float32 matrix [n, k] to probabilities or values."""
        ...

    def predict(self, matrix: Matrix, /) -> Floats: ...
