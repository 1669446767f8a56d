"""The columns of the sources that a project uses, and what for: the loss of any other stops nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from cumulant.core import expr
from cumulant.core.errors import CumulantError
from cumulant.flows.features.task import target_columns

if TYPE_CHECKING:
    from cumulant.data.spec import SourceSpec
    from cumulant.features.definition.loading import Definition
    from cumulant.project.project import Project
    from cumulant.training.spec import EvaluationSpec, TrainingSpec

#: (source or None for the one that is predicted for, column, what uses it)
Use = tuple[str | None, str, str]
_OFFSET = re.compile(r"\s*[-+]\s*\d")
_OWN_CLUSTERS = ("auto", "day", "row")


def used_columns(project: Project) -> dict[str, dict[str, str]] | None:
    """Source to its used columns, each with what uses it; None (all) without a usable features file, which is run."""
    try:
        from cumulant.features.definition.loading import load

        definitions = load(project.policies.features).features
        specs = {name: project.policies.source(name).spec for name in project.policies.sources}
    except CumulantError:
        return None  # the flow that needs the features or the contract reports the fault
    if not definitions:
        return None
    uses = [*_of_features(definitions), *_of_training(project.spec.training, project.spec.evaluation)]
    entities = _entities(project.spec.training, definitions, specs)
    from cumulant.data.proposal.usage import declared_uses, referred_uses

    used = {name: declared_uses(name, spec) for name, spec in specs.items()}
    for source, column, what in uses:
        for name in entities if source is None else [source]:
            used.setdefault(name, {}).setdefault(column, what)
    for name, referred in referred_uses(specs).items():
        used[name] = {**referred, **used.get(name, {})}
    return used


def _entities(
    training: TrainingSpec | None, definitions: Iterable[Definition], specs: Mapping[str, SourceSpec]
) -> list[str]:
    """The source that is predicted for; all of them where only their columns could show which it is."""
    if training is not None and training.source is not None:
        return [training.source]
    named = [definition.of for definition in definitions if definition.of is not None]
    return list(dict.fromkeys(named)) or list(specs)


def _of_features(definitions: Iterable[Definition]) -> Iterator[Use]:
    for definition in definitions:
        hidden = definition.name.startswith("_")
        what = f"the features file ({definition.place})" if hidden else f"feature {definition.name}"
        for source, column in _read_by(definition):
            yield source, column, what


def _read_by(definition: Definition) -> Iterator[tuple[str | None, str]]:
    """The columns that a definition reads, each with its source; None: the row itself."""
    lookup, window = definition.lookup, definition.window
    if definition.expr is not None:
        yield from ((definition.of, column) for column in sorted(expr.columns(definition.expr)))
    if lookup is not None:
        yield lookup.source, lookup.column
    if window is not None and window.value is not None:
        yield from ((window.source, column) for column in sorted(expr.columns(window.value)))
    for measure in (lookup, window):
        for key in measure.by if measure is not None else ():
            yield measure.source if measure is not None else None, key
            yield None, key


def _of_training(training: TrainingSpec | None, evaluation: EvaluationSpec) -> Iterator[Use]:
    if training is None:
        return
    for column in target_columns(training.target):
        yield None, column, "the target"
    if training.predict_at is not None:
        yield None, _OFFSET.split(training.predict_at, maxsplit=1)[0].strip(), "predict_at"
    if training.cost is not None:
        for cost in (training.cost.false_negative, training.cost.false_positive):
            if isinstance(cost, str):
                yield None, cost, "the cost"
    yield from ((None, column, "evaluation.slices") for column in evaluation.slices)
    if evaluation.clusters not in _OWN_CLUSTERS:
        yield None, evaluation.clusters, "evaluation.clusters"
