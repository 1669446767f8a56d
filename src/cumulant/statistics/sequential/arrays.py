"""The array types of this package, and checks of what callers pass."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def check_counts(events: npt.ArrayLike, trials: npt.ArrayLike, what: str) -> tuple[Floats, Floats]:
    """`events` and `trials` as floats of one shape; `what` names the arm in an error.

    Raises:
        ValueError: a count is negative, not finite, or there are more events than trials.
    """
    k, n = np.broadcast_arrays(np.asarray(events, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    if not (np.isfinite(k).all() and np.isfinite(n).all() and (k >= 0).all() and (k <= n).all()):
        raise ValueError(f"{what}: a block needs 0 <= events <= requests, both finite; give counts of one block")
    return k, n


def check_alpha(alpha: float) -> float:
    """`alpha` itself.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it is a probability of a false alarm between 0 and 1, such as 0.05")
    return alpha


def check_range(values: npt.ArrayLike, low: float, high: float) -> Floats:
    """`values` as floats.

    Raises:
        ValueError: a value is outside [low, high] or not a number.
    """
    x = np.asarray(values, dtype=np.float64)
    if not ((x >= low) & (x <= high)).all():
        raise ValueError(
            f"a value is outside [{low}, {high}] or not a number; the guarantee needs these bounds to hold"
        )
    return x


def pack(values: npt.NDArray[np.generic]) -> str:
    """The values of a column or a table as base64, in the type that they have: one short text."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def unpack(text: str, kind: str = "<f8") -> npt.NDArray[Any]:
    """What `packed` wrote [n], of values of that kind; a copy, which may be changed."""
    return np.frombuffer(base64.b64decode(text), dtype=kind).copy()
