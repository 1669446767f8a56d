"""The array types of this package, states as plain values, and checks of what callers pass."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Self, cast, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: arrays of more values are stored packed, in a third to a half of the space
_PACKED_FROM = 64


@dataclass(frozen=True)
class StoredState:
    """A state of numbers, tuples of them, arrays and such states, which JSON can hold."""

    def to_json(self) -> dict[str, object]:
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> Self:
        """The state that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is of another form.
        """
        return cls(**{name: read(stored[name]) for name, read in _readers(cls).items()})  # type: ignore[arg-type]


def _plain(value: Any) -> object:
    if isinstance(value, StoredState):
        return value.to_json()
    if isinstance(value, np.ndarray) and value.size > _PACKED_FROM:
        return {"shape": list(value.shape), "packed": pack(value)}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


@cache
def _readers(kind: type[StoredState]) -> dict[str, Callable[[Any], Any]]:
    hints = get_type_hints(kind)
    return {field.name: _reader(hints[field.name]) for field in fields(kind)}


def _reader(kind: Any) -> Callable[[Any], Any]:
    if isinstance(kind, type) and issubclass(kind, StoredState):
        return kind.from_json
    if kind in (int, float):
        return cast("Callable[[Any], Any]", kind)
    return tuple if get_origin(kind) is tuple else _array


def _array(stored: Any) -> Floats:
    if isinstance(stored, Mapping):
        return cast("Floats", unpack(stored["packed"]).reshape(stored["shape"]))
    return np.asarray(stored, dtype=np.float64)


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
    """What `pack` wrote [n], of values of that kind; a copy, which may be changed."""
    return np.frombuffer(base64.b64decode(text), dtype=kind).copy()
