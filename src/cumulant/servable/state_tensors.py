"""State tensors of a graph: pairs of an output and the input that gets it with the next request of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cumulant.core.errors import DefinitionError, IntegrityError, RequestError, did_you_mean
from cumulant.core.servable import GraphServable, StateTensor, TensorSpec
from cumulant.servable.engine import DTYPES, Array, Engine

if TYPE_CHECKING:
    from onnx import ModelProto

_EXPORT = "export the graph so that what it gives is what it takes"


def check_state(servable: GraphServable) -> None:
    """Raises IntegrityError where the declared state does not match the tensors."""
    inputs = {spec.name: spec for spec in servable.inputs}
    outputs = {spec.name: spec for spec in servable.outputs}
    try:
        for state in servable.state:
            _check_pair(state.input, state.output, inputs, outputs)
            _check_declared(state, inputs[state.input])
        _check_once(servable.state)
    except DefinitionError as error:
        raise IntegrityError(f"{servable.name}: {error.message}", subject=servable.name, hint=error.hint) from None


def pair_state(pairs: Mapping[str, str], engine: Engine, model: ModelProto) -> tuple[StateTensor, ...]:
    """State tensors of `pairs`, output by input.

    A free size is that of the request's rows where the graph calls it as it calls the rows of an input that callers
    send, or where it comes first; any other one begins at 0.

    Raises:
        DefinitionError: there is no such tensor, or what the output gives is nothing that the input takes.
    """
    inputs = {spec.name: spec for spec in engine.inputs}
    outputs = {spec.name: spec for spec in engine.outputs}
    for name, output in pairs.items():
        _check_pair(name, output, inputs, outputs)
    symbols = _symbols(model)
    rows = {symbols[name][0] for name in inputs if name not in pairs and symbols.get(name)} - {""}
    states = tuple(
        StateTensor(name, output, inputs[name].datatype, _shape(inputs[name], symbols.get(name, []), rows))
        for name, output in pairs.items()
    )
    _check_once(states)
    return states


def try_state(engine: Engine, states: Sequence[StateTensor], feeds: Mapping[str, Array], rows: int) -> None:
    """Run two steps with `feeds`, the second on the state of the first.

    Raises:
        DefinitionError: the graph cannot run a second step.
    """
    carried = initial_state(states, rows)
    names = [state.output for state in states]
    for _ in range(2):
        try:
            arrays = engine.run({**feeds, **carried}, names)
        except RequestError as error:
            raise DefinitionError(f"the graph cannot run on its state: {error.message}", hint=_EXPORT) from None
        for state, array in zip(states, arrays, strict=True):
            check_next(state, array)
        carried = {state.input: array for state, array in zip(states, arrays, strict=True)}


def initial_state(states: Sequence[StateTensor], rows: int) -> dict[str, Array]:
    """Initial state of a sequence of requests with `rows` rows."""
    return {
        state.input: np.zeros([rows if size == -1 else size for size in state.shape], DTYPES[state.datatype])
        for state in states
    }


def check_next(state: StateTensor, array: Array) -> None:
    """Raises DefinitionError where the next request could not run on `array`."""
    fits = array.ndim == len(state.shape) and all(
        size in (-1, 0, got) for size, got in zip(state.shape, array.shape, strict=True)
    )
    if not fits:
        raise DefinitionError(
            f"{state.output} has the shape {list(array.shape)}, and {state.input} takes {list(state.shape)}",
            subject=state.output,
            hint=_EXPORT,
        )


def _check_pair(name: str, output: str, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
    for kind, tensor, known in (("input", name, inputs), ("output", output, outputs)):
        if tensor not in known:
            hint = did_you_mean(tensor, known) or f"known {kind}s: {', '.join(known)}"
            raise DefinitionError(f'the graph has no {kind} "{tensor}" to keep as state', subject=tensor, hint=hint)
    got, given = inputs[name], outputs[output]
    if got.datatype != given.datatype or len(got.shape) != len(given.shape):
        raise DefinitionError(
            f"{output} is {given.datatype} of {len(given.shape)} sizes,"
            f" and {name} takes {got.datatype} of {len(got.shape)}",
            subject=name,
            hint=_EXPORT,
        )
    if got.datatype == "BYTES":
        raise DefinitionError(f"{name} holds texts, which cannot be state", subject=name)


def _check_declared(state: StateTensor, spec: TensorSpec) -> None:
    sizes = zip(state.shape, spec.shape, strict=False)
    fits = len(state.shape) == len(spec.shape) and all(want in (-1, got) for got, want in sizes)
    if state.datatype != spec.datatype or not fits or any(size < -1 for size in state.shape):
        raise DefinitionError(f'the state "{state.input}" is declared otherwise than the graph takes it')


def _check_once(states: Sequence[StateTensor]) -> None:
    for kind, names in (("input", [state.input for state in states]), ("output", [state.output for state in states])):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DefinitionError(f"the {kind} {twice} is named twice as state", subject=twice)


def _symbols(model: ModelProto) -> dict[str, list[str]]:
    """Symbolic sizes of the graph's inputs; "" for fixed and unnamed ones."""
    return {value.name: [size.dim_param for size in value.type.tensor_type.shape.dim] for value in model.graph.input}


def _shape(spec: TensorSpec, symbols: Sequence[str], rows: set[str]) -> tuple[int, ...]:
    named = [*symbols, *[""] * len(spec.shape)]
    by_name = any(symbol in rows for symbol in symbols)
    return tuple(
        size if size != -1 else -1 if named[place] in rows or (place == 0 and not by_name) else 0
        for place, size in enumerate(spec.shape)
    )
