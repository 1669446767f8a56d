"""Test runs of a graph on synthetic inputs, where there is no sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from cumulant.core.errors import DefinitionError, RequestError
from cumulant.core.servable import TensorSpec
from cumulant.servable.engine import DTYPES, Array, Engine

#: sizes that stand for those that a request chooses, and texts that may be read as numbers
_SIZES, _TEXTS = (1, 8), ("0", "")
#: values of one made-up input; a graph may claim any size
_MOST = 2**25


def check_runs(engine: Engine, feeds: Mapping[str, Array], name: str) -> None:
    """Run made-up rows, then one row of zeros and one of ones in several sizes, until the graph takes some. Inputs that
    are too large to make up are not asked for.

    Raises:
        DefinitionError: it takes none of them.
    """
    if any(
        np.prod([float(trial_feeds) for trial_feeds in _shape(spec, max(_SIZES))]) > _MOST for spec in engine.inputs
    ):
        return
    first: RequestError | None = None
    for trial_feeds in (feeds, *_simple(engine)):
        try:
            engine.run(trial_feeds)
        except RequestError as error:
            first = first or error
        else:
            return
    if first is not None:
        reason = first.message.partition(": ")[2] or first.message
        hint = "fix the graph; if it refuses made-up values only, add --sample FILE with rows that it takes"
        raise DefinitionError(
            f"onnxruntime loads the graph of {name} and cannot run it: {reason}", subject=name, hint=hint
        )


def _simple(engine: Engine) -> Iterator[dict[str, Array]]:
    for size in _SIZES:
        for value in (0, 1):
            yield {spec.name: _filled(spec, size, value) for spec in engine.inputs}


def _shape(spec: TensorSpec, size: int) -> tuple[int, ...]:
    return tuple(
        (1 if place == 0 else size) if declared == -1 else declared for place, declared in enumerate(spec.shape)
    )


def _filled(spec: TensorSpec, size: int, value: int) -> Array:
    return np.full(_shape(spec, size), _TEXTS[value] if spec.datatype == "BYTES" else value, DTYPES[spec.datatype])
