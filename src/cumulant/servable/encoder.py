"""Feature columns as the float32 matrix that a model reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cumulant.core.errors import RequestError, did_you_mean
from cumulant.core.servable import Input
from cumulant.servable.description import Columns, Floats, Matrix, Values

_NAN = math.nan
#: up to so many rows, going value by value is faster than an array for each column
_FEW = 4


class Encoder:
    """Turns columns of features (lists or arrays, None or NaN for missing) into a matrix [n, k].

    Numbers are centred in float64 before the cast to float32, so that large magnitudes keep their digits;
    what does not fit a float32 is missing. A category that the model has not seen is missing.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.features = tuple(declared.feature for declared in inputs)
        self._codes: tuple[Callable[[Any], float], ...] = tuple(
            _codes(declared) if declared.kind == "category" else float for declared in inputs
        )
        self._columns = tuple(
            _code_column(declared) if declared.kind == "category" else _number_column for declared in inputs
        )
        center = np.array([declared.center for declared in inputs], dtype=np.float64)
        self._center = center if center.any() else None

    def matrix(self, columns: Columns) -> Matrix:
        """The rows of `columns`; columns that the model does not use are ignored.

        Raises:
            RequestError: a feature is absent, is no number where one is needed, or has another length.
        """
        try:
            picked = [columns[name] for name in self.features]
        except KeyError as error:
            raise self._absent(str(error.args[0]), columns) from None
        rows = len(picked[0]) if picked else len(next(iter(columns.values()), ()))
        for name, values in zip(self.features, picked, strict=True):
            if len(values) != rows:
                raise RequestError(f"feature {name} has {len(values)} values where {rows} are expected", subject=name)
        wide: Floats = np.empty((rows, len(self.features)), dtype=np.float64)
        place = 0
        try:
            if rows <= _FEW:
                for place, (code, values) in enumerate(zip(self._codes, picked, strict=True)):
                    for row, value in enumerate(values):
                        wide[row, place] = _NAN if value is None else code(value)
            else:
                for place, (column, values) in enumerate(zip(self._columns, picked, strict=True)):
                    wide[:, place] = column(values)
        except (TypeError, ValueError, OverflowError):
            name = self.features[place]
            raise RequestError(f"feature {name} holds a value that is no number", subject=name) from None
        if self._center is not None:
            wide -= self._center
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = wide.astype(np.float32)
        narrow[np.isinf(narrow)] = _NAN
        return narrow

    def _absent(self, name: str, columns: Columns) -> RequestError:
        hint = did_you_mean(name, columns) or f"the model reads {', '.join(self.features[:12])}"
        return RequestError(f"feature {name} is missing", subject=name, hint=hint)


def _number_column(values: Values) -> ArrayLike:
    return np.asarray(values, dtype=np.float64)


def _codes(declared: Input) -> Callable[[object], float]:
    codes: dict[object, float] = {text: float(code) for code, text in enumerate(declared.categories)}

    def code(value: object) -> float:
        return codes.get(value if isinstance(value, str) else category_of(value), _NAN)

    return code


def _code_column(declared: Input) -> Callable[[Values], ArrayLike]:
    code = _codes(declared)

    def column(values: Values) -> ArrayLike:
        return [code(value) for value in (values.tolist() if isinstance(values, np.ndarray) else values)]

    return column


def category_of(value: object) -> str | None:
    """Category text of a value that is no text: `true`, `3`, `2.5`; None for missing."""
    if value is None or value != value:  # noqa: PLR0124 - NaN is the one value that differs from itself
        return None
    return ("true" if value else "false") if isinstance(value, (bool, np.bool_)) else str(value)
