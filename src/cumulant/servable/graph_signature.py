"""Check of a graph's inputs and outputs against its servable's description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cumulant.core.errors import IntegrityError
from cumulant.core.servable import GraphServable, TensorSpec
from cumulant.servable.engine import Engine

_HINT = "package the model again; callers rely on its description"


def check_described(servable: GraphServable, engine: Engine) -> None:
    """Raises IntegrityError where the description names other tensors than the graph has."""
    inputs, outputs = _by_name(servable.inputs, servable), _by_name(servable.outputs, servable)
    graph_inputs = {spec.name: spec for spec in engine.inputs}
    graph_outputs = {spec.name: spec for spec in engine.outputs}
    for name in graph_inputs.keys() - inputs.keys():
        raise _wrong(servable, f'the graph has the input "{name[:100]}", which is not described')
    if not outputs:
        raise _wrong(servable, "no output is described")
    for kind, described, actual in (("input", inputs, graph_inputs), ("output", outputs, graph_outputs)):
        for name, spec in described.items():
            if name not in actual:
                raise _wrong(servable, f'the {kind} "{name[:100]}" is described, and the graph has none of that name')
            if not _fits(spec, actual[name], declared=kind == "input"):
                words = f"is described as {_words(spec)}, and the graph has {_words(actual[name])}"
                raise _wrong(servable, f'the {kind} "{name[:100]}" {words}')


def _by_name(specs: Sequence[TensorSpec], servable: GraphServable) -> Mapping[str, TensorSpec]:
    by_name = {spec.name: spec for spec in specs}
    if len(by_name) < len(specs):
        raise _wrong(servable, "a tensor is described twice")
    return by_name


def _fits(described: TensorSpec, actual: TensorSpec, *, declared: bool) -> bool:
    """The shapes of outputs are inferred by the engine, by each release of it more of them: they are not compared."""
    if described.datatype != actual.datatype or min(described.shape, default=0) < -1:
        return False
    if not declared:
        return True
    return len(described.shape) == len(actual.shape) and all(
        -1 in sizes or len(set(sizes)) == 1 for sizes in zip(described.shape, actual.shape, strict=True)
    )


def _words(spec: TensorSpec) -> str:
    return f"{spec.datatype} {str(list(spec.shape))[:100]}"


def _wrong(servable: GraphServable, problem: str) -> IntegrityError:
    name = servable.name[:100]
    return IntegrityError(f"{name}: {problem}", subject=name, hint=_HINT)
