"""Feature columns as the float32 matrix that a model reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from cumulant.core.errors import RequestError, did_you_mean
from cumulant.core.servable import Input
from cumulant.packaging.model import Columns, Floats, Matrix, Values

_NAN = math.nan


class Encoder:
    """Turns columns of features (lists or arrays, None or NaN for missing) into a matrix [n, k].

    Numbers are centred in float64 before the cast to float32, so that large magnitudes keep their digits;
    what does not fit a float32 is missing. A category that the model has not seen is missing.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.features = tuple(one.feature for one in inputs)
        self._fill = tuple(_categories(one) if one.kind == "category" else _numbers(one) for one in inputs)
        center = np.array([one.center for one in inputs], dtype=np.float64)
        self._center = center if center.any() else None

    def matrix(self, columns: Columns) -> Matrix:
        """The rows of `columns`; columns that the model does not use are ignored.

        Raises:
            RequestError: a feature is absent, is no number where one is needed, or has another length.
        """
        rows = self._rows(columns)
        wide: Floats = np.empty((rows, len(self.features)), dtype=np.float64)
        for index, (name, fill) in enumerate(zip(self.features, self._fill, strict=True)):
            values = columns[name]
            if len(values) != rows:
                raise RequestError(f"feature {name} has {len(values)} values where {rows} are expected", subject=name)
            wide[:, index] = fill(values)
        if self._center is not None:
            wide -= self._center
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = wide.astype(np.float32)
        narrow[np.isinf(narrow)] = np.nan
        return narrow

    def _rows(self, columns: Columns) -> int:
        for name in self.features:
            if name not in columns:
                hint = did_you_mean(name, columns) or f"the model reads {', '.join(self.features[:12])}"
                raise RequestError(f"feature {name} is missing", subject=name, hint=hint)
        return len(columns[self.features[0]]) if self.features else len(next(iter(columns.values()), ()))


def _numbers(one: Input) -> Callable[[Values], ArrayLike]:
    def fill(values: Values) -> ArrayLike:
        try:
            return np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            message = f"feature {one.feature} holds a value that is no number"
            raise RequestError(message, subject=one.feature) from None

    return fill


def _categories(one: Input) -> Callable[[Values], ArrayLike]:
    codes: dict[object, float] = {text: float(code) for code, text in enumerate(one.categories)}

    def fill(values: Values) -> ArrayLike:
        listed = values.tolist() if isinstance(values, np.ndarray) else values
        return [codes.get(value if isinstance(value, str) else _text(value), _NAN) for value in listed]

    return fill


def _text(value: object) -> str | None:
    """How a value that is no text is written as a category: `true`, `3`, `2.5`; None for missing."""
    if value is None or value != value:  # noqa: PLR0124 - NaN is the one value that differs from itself
        return None
    return ("true" if value else "false") if isinstance(value, (bool, np.bool_)) else str(value)
