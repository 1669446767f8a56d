"""What is predicted, of which source, and when: the `training` section resolved against the snapshots."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from cumulant.core import expr
from cumulant.core.errors import DefinitionError, NotKnownYetError, UsageError, did_you_mean, not_found

if TYPE_CHECKING:
    from cumulant.core.expr import Node
    from cumulant.core.plan import FeaturePlan, PredictAt, Source
    from cumulant.data.snapshot import Snapshot
    from cumulant.features.definition.loading import Definitions
    from cumulant.project.project import Project
    from cumulant.training.spec import TrainingSpec


@dataclass(frozen=True)
class Task:
    """The entity source, the target over its columns, and the plan of the features."""

    entity: str
    target: Node
    predict_at: PredictAt | None
    plan: FeaturePlan

    def to_json(self) -> dict[str, object]:
        """For `task_from_json`."""
        parts = {"target": self.target, "predict_at": self.predict_at, "plan": self.plan}
        return {"entity": self.entity, **msgspec.to_builtins(parts)}


def task_from_json(value: Mapping[str, object]) -> Task:
    """The task that `Task.to_json` describes, in another process of the project."""
    from cumulant.core.expr import Node
    from cumulant.core.plan import PredictAt, read_plan

    return Task(
        entity=str(value["entity"]),
        target=msgspec.convert(value["target"], Node),
        predict_at=msgspec.convert(value["predict_at"], PredictAt | None),
        plan=read_plan(value["plan"]),
    )


def resolve_task(project: Project, snapshots: Mapping[str, Snapshot]) -> Task:
    """Compile the project's features and target.

    Raises:
        UsageError: no target, one that no source or several sources can give, or one made of a personal column.
        DefinitionError, NotKnownYetError: as `features.compile_plan`.
    """
    from cumulant.data.snapshot import source_of
    from cumulant.features.definition.plan import compile_plan

    training = project.spec.training
    if training is None:
        raise UsageError("the project declares no target", hint="add `training: {target: COLUMN}` to cumulant.yaml")
    declared = project.spec.data
    sources = {name: source_of(snapshot, declared.get(name)) for name, snapshot in snapshots.items()}
    target = target_of(training, {field.name for source in sources.values() for field in source.fields})
    entity = _entity(training, target, sources)
    _refuse_personal(training.target, target, sources[entity])
    predict_at = _predict_at(training, sources, entity)
    plan = compile_plan(_definitions(project), sources, entity=entity, predict_at=predict_at)
    _refuse_own_label(plan, expr.columns(target))
    return Task(entity=entity, target=target, predict_at=predict_at, plan=plan)


def _refuse_personal(text: str, target: Node, source: Source) -> None:
    """A personal target would be visible in the model's classes, answers, plots and report.

    Raises:
        UsageError: a column of the target is personal.
    """
    wanted = expr.columns(target)
    column = next((field.name for field in source.fields if field.personal and field.name in wanted), None)
    if column is not None:
        raise UsageError(
            f'the target "{text}" would show values of {column}, a personal column of {source.name}, in classes, '
            "answers and reports",
            subject=column,
            hint=f"take {column} out of `personal` under data: {source.name}: (or out of its contract) if it tells "
            "nothing about a person; else make a column in `prepare` that people may see, and name that as target",
        )


def refuse_no_features(plan: FeaturePlan) -> None:
    """Raises DefinitionError where the features file defines nothing that a model could learn from."""
    if not plan.names:
        raise DefinitionError(
            "there is no feature to learn from", hint="define some in the features file, or list columns of the source"
        )


def _refuse_own_label(plan: FeaturePlan, labels: Collection[str]) -> None:
    """A window over the target that holds the row predicted for would reveal the row's own label.

    Raises:
        NotKnownYetError: such a window.
    """
    from cumulant.features.definition.known_time import counts_itself

    for feature in plan.features:
        window = feature.window
        if window is None or window.value is None or not counts_itself(plan, window):
            continue
        columns = sorted(expr.columns(window.value) & set(labels))
        if columns:
            raise NotKnownYetError(
                f'feature {feature.name}: its window over "{columns[0]}" holds the label of the row itself, for '
                "no known time declares that it becomes known later",
                subject=columns[0],
                hint=f"declare when it is known, as `known_time: {{7d: [{columns[0]}]}}` under data: {plan.entity}:",
            )


def _definitions(project: Project) -> Definitions:
    from cumulant.features.definition.loading import load

    return load(project.policies.features)


def _predict_at(training: TrainingSpec, sources: Mapping[str, Source], entity: str) -> PredictAt | None:
    from cumulant.features.definition.parsing import parse_predict_at

    text = training.predict_at or sources[entity].event_time
    return None if text is None else parse_predict_at(text, sources, entity=entity)


def _entity(training: TrainingSpec, target: Node, sources: Mapping[str, Source]) -> str:
    wanted = expr.columns(target)
    if training.source is not None:
        if training.source not in sources:
            raise not_found("source", training.source, sources)
        return training.source
    holders = [name for name, source in sources.items() if wanted <= {field.name for field in source.fields}]
    if len(holders) == 1:
        return holders[0]
    if holders:
        raise UsageError(
            f'the target "{training.target}" could come from {", ".join(holders)}',
            hint="name it with `training: {source: NAME}`",
        )
    known = {field.name for source in sources.values() for field in source.fields}
    missing = sorted(wanted - known)
    hint = did_you_mean(missing[0], known) if missing else "its columns are in different sources; prepare one source"
    raise UsageError(
        f"no source has the column{'s' if len(missing) > 1 else ''} {', '.join(missing) or ', '.join(sorted(wanted))} "
        f'of the target "{training.target}"',
        subject=training.target,
        hint=hint,
    )


def target_columns(target: str) -> tuple[str, ...]:
    """The columns of a target, which may be a column of that very name or an expression."""
    from cumulant.features.definition.parsing import parse

    try:
        return (target, *sorted(expr.columns(parse(target))))
    except DefinitionError:
        return (target,)


def target_of(training: TrainingSpec, columns: Collection[str]) -> Node:
    """The target of a training section: the column of that very name, else an expression over columns."""
    from cumulant.features.definition.parsing import parse

    return expr.Column(training.target) if training.target in columns else parse(training.target)
