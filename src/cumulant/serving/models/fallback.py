"""Fallback answers of an overloaded model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from cumulant.core.errors import CumulantError, UsageError
from cumulant.core.servable import Answer
from cumulant.servable.engine import DTYPES, Array
from cumulant.serving.models.model import Model
from cumulant.serving.models.request_work import RequestWork
from cumulant.serving.models.row_model import RowModel
from cumulant.serving.settings import FallbackConfig

Kind = Literal["cached", "servable", "constant"]


class Fallback:
    """The declared fallback of one model.

    Raises:
        UsageError: the cheaper servable or the constant does not give what the model gives.
    """

    def __init__(self, model: Model, declared: FallbackConfig, cheap: Model | None) -> None:
        self._model, self._cached, self._cheap = model, declared.cached, cheap
        self.counts: dict[str, int] = {"cached": 0, "servable": 0, "constant": 0}
        if cheap is not None:
            _check_outputs(model, cheap.outputs, f"the fallback {cheap.name}")
            if isinstance(model, RowModel) != isinstance(cheap, RowModel):
                raise UsageError(f"the fallback {cheap.name} is of another kind than {model.name}", subject=cheap.name)
        self._constant = None if declared.constant is None else _constant(model, declared.constant)

    def raw(self, work: RequestWork) -> list[Array] | None:
        """Outputs of the first fallback that can answer `work`, which records its kind; None where none can."""
        if self._cached and (cached := self._model.runner.cache.get_stale(work.feeds)) is not None:
            return self._noted(work, "cached", cached)
        if self._cheap is not None and (cheaper := self._cheaper(self._cheap, work)) is not None:
            return self._noted(work, "servable", cheaper)
        if self._constant is None:
            return None
        if isinstance(self._constant, Answer):
            work.answers = [self._constant] * work.rows
            return self._noted(work, "constant", [])
        return self._noted(work, "constant", [np.repeat(array, work.rows, axis=0) for array in self._constant])

    def _noted(self, work: RequestWork, kind: Kind, raw: list[Array]) -> list[Array]:
        work.fallback = kind
        self.counts[kind] += 1
        return raw

    def _cheaper(self, cheap: Model, work: RequestWork) -> list[Array] | None:
        """Outputs of the cheaper servable, unless it is overloaded too."""
        try:
            if isinstance(cheap, RowModel):
                own = cheap.from_rows(work.raw or [])
                raw = cheap.runner.run_now(own.feeds, own.rows)
                work.answers = None if raw is None else cheap.answers(own, raw)
                return None if raw is None else []
            raw = cheap.runner.run_now({name: work.feeds[name] for name in cheap.inputs}, work.rows)
        except (CumulantError, KeyError):
            return None
        if raw is None:
            return None
        by_name = dict(zip(cheap.outputs, raw, strict=True))
        return [by_name[name] for name in self._model.outputs]


def _check_outputs(model: Model, given: Mapping[str, object], what: str) -> None:
    missing = [name for name in model.outputs if name not in given]
    if missing:
        expected = ", ".join(model.outputs)
        raise UsageError(
            f"{what} lacks the output {missing[0]} of {model.name}", subject=missing[0], hint=f"it must give {expected}"
        )


def _constant(model: Model, given: Mapping[str, Any]) -> Answer | Sequence[Array]:
    """Constant answer of one row, in the form of the model's answers."""
    if isinstance(model, RowModel):
        try:
            return msgspec.convert(given, Answer)
        except msgspec.ValidationError as error:
            hint = 'write {"prediction": ...}, with "probability" for a classifier'
            raise UsageError(f"the constant of the fallback is no answer: {error}", hint=hint) from None
    _check_outputs(model, given, "the constant of the fallback")
    arrays: list[Array] = []
    for name, (datatype, shape) in model.outputs.items():
        wanted = tuple(1 if size == -1 else size for size in shape)
        try:
            value = np.array(given[name], dtype=DTYPES[datatype])  # type: ignore[index]
            arrays.append(np.broadcast_to(value, wanted))
        except (ValueError, TypeError, OverflowError):
            raise UsageError(
                f"the constant of the fallback has no {datatype} of shape {list(shape)} for {name}", subject=name
            ) from None
    return arrays
