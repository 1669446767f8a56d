"""The form of a project's labels: by the served model, else by the project file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import NotFoundError
from cumulant.core.expr import Node, columns
from cumulant.core.plan import Field
from cumulant.core.servable import GraphServable, Servable
from cumulant.data.spec import SourceSpec, is_delay
from cumulant.flows.features.task import target_of
from cumulant.flows.registry.models import CHAMPION
from cumulant.flows.registry.version_servable import describe_servable
from cumulant.outcomes.labels.label_rows import LabelSchema

if TYPE_CHECKING:
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.training.spec import TrainingSpec


def schema_of(project: Project, served: Servable | GraphServable | None = None) -> LabelSchema:
    """The form of labels by the model `served`, else the champion's, the newest version's, or the project's."""
    training, described = project.spec.training, model_description(project) if served is None else _of_rows(served)
    plan = None if described is None else described.plan
    declared = _entity_source(project, training, None if plan is None else plan.entity)
    fields = {} if plan is None else {field.name: field for field in plan.sources[plan.entity].fields}
    target = None if training is None else target_of(training, fields)
    schema = LabelSchema(
        target=target,
        formats=declared.number_formats,
        date_formats=declared.date_formats,
        known=_known(declared, target, fields),
    )
    if described is None or plan is None:
        return schema
    from cumulant.servable.scorer import labels

    return msgspec.structs.replace(
        schema,
        model=described.name,
        task=described.task,
        classes=labels(described),
        key=tuple(fields[name] for name in plan.sources[plan.entity].key if name in fields),
        time=None if plan.predict_at is None else fields.get(plan.predict_at.column),
        offset_us=0 if plan.predict_at is None else plan.predict_at.offset_us,
    )


def _known(declared: SourceSpec, target: Node | None, fields: Mapping[str, Field]) -> Field | None:
    """The known-time column of all columns of the target; None without a single one."""
    known = {declared.known_columns.get(name) for name in columns(target)} if target is not None else set()
    column = known.pop() if len(known) == 1 else None
    if column is None or is_delay(column):
        return None
    zone = None if declared.time is None else declared.time.zone
    return fields.get(column) or Field(column, "time", zone=zone)


def _entity_source(project: Project, training: TrainingSpec | None, entity: str | None = None) -> SourceSpec:
    """The source that holds the target: `entity`, else the declared or the only one; an empty one where none does."""
    sources = project.file.spec.data
    named = entity or (training.source if training is not None else None)
    if named is None and len(sources) == 1:
        named = next(iter(sources))
    return sources.get(named or "", SourceSpec())


def model_description(project: Project) -> Servable | None:
    """The champion's or newest version's servable; None without one, and for a foreign model."""
    try:
        return _of_rows(describe_servable(project, _version(project)))
    except NotFoundError:
        return None


def _of_rows(described: Servable | GraphServable) -> Servable | None:
    return described if isinstance(described, Servable) else None


def _version(project: Project) -> ModelVersion:
    registry = project.registry()
    try:
        return registry.resolve(f"{project.name}@{CHAMPION}")
    except NotFoundError:
        return registry.resolve(project.name)
