"""The checks of `plan`: what `train` and `release start` would refuse, before anything is trained."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core import expr
from cumulant.core.errors import DataError, DefinitionError, MissingPartError, did_you_mean, missing_part
from cumulant.core.servable import Task as ServableTask
from cumulant.flows.data.validate import load_snapshot
from cumulant.flows.features.task import Task, refuse_no_features, task_from_json
from cumulant.flows.ledger.step_function import StepFunction
from cumulant.flows.review.watched_slices import check_slices
from cumulant.flows.serving.constant_fallback import check_constant
from cumulant.flows.serving.reason_codes import check_codes, check_when
from cumulant.flows.stack.stack_processes import check_gateway
from cumulant.flows.training.target_classes import class_counts
from cumulant.flows.training.training_labels import reviewed_table
from cumulant.flows.training.training_rows import check_training_columns, computed_names
from cumulant.project.identity import python_environment
from cumulant.training.policy import ThresholdPolicy
from cumulant.training.spec import SEARCHED, WITHOUT_PART

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.core.refs import TableRef
    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.ledger.run_context import Context
    from cumulant.project.project import Project


def check_code(project: Project) -> None:
    """Load every function of the project that a training or a release calls. No data are read.

    Raises:
        DefinitionError: a file, module or function does not exist, or the features file defines nothing usable.
        MissingPartError: the package of a trainer is not installed.
        UserCodeError: importing one raised.
    """
    from cumulant.features.definition.loading import load

    load(project.policies.features)
    for trainer in project.training().trainers:
        if trainer not in WITHOUT_PART:
            _check_trainer(project, trainer)
    for metric in project.policies.release.metrics.values():
        if metric.call is not None:
            from cumulant.flows.release.controller.custom_metrics import METRIC
            from cumulant.training.trainers.user_trainer import load_function

            load_function(metric.call, project.root, METRIC)


def _check_trainer(project: Project, trainer: str) -> None:
    if trainer in SEARCHED:  # each has the name of its package, which is not imported for this
        if find_spec(trainer) is None:
            raise missing_part(trainer, trainer)
        return
    from cumulant.training.trainers import scikit_trainer
    from cumulant.training.trainers.trainer_lookup import make_trainer
    from cumulant.training.trainers.user_trainer import load_function

    if ":" in trainer and not trainer.startswith(scikit_trainer.PREFIX):
        load_function(trainer, project.root)
        return
    built = make_trainer(trainer, project.root)
    if isinstance(built, scikit_trainer.ScikitTrainer):
        built.check_probabilities(project.training().parameters.get(trainer, {}))


def gateway_warnings(project: Project) -> tuple[str, ...]:
    """What is missing for `up` and `release`, which alone need a gateway; everything else works without one."""
    try:
        check_gateway(project)
    except MissingPartError as error:
        return (f"`up` and `release start` do not work here: {error.full_text}",)
    return ()


def check_packages(context: Context) -> None:
    """Import the packages of the trainers, once in an environment.

    Raises:
        MissingPartError: one is installed and cannot be imported.
    """
    project = context.project
    packages = sorted({*project.training().trainers} & {*SEARCHED} - {*WITHOUT_PART})

    def load() -> dict[str, object]:
        from cumulant.training.payloads.engine_models import imported

        return {name: str(getattr(imported(name), "__version__", "")) for name in packages}

    if packages:
        # In this process: what is checked are the packages of this machine.
        context.step("check packages", {"packages": packages, "environment": python_environment().identity}, load)


def check_names(project: Project, task: Task, snapshot: Snapshot) -> None:
    """Check every name of a column or feature in the project file, and that no feature is made of the target alone.

    Raises:
        DataError, DefinitionError: a name is of none; a feature is leakage.
    """
    plan, labels = task.plan, expr.columns(task.target)
    check_allowed(plan, project.training().allow)
    _check_leaks(plan, labels, project.training().allow)
    spec, columns = project.spec, [field.name for field in snapshot.fields]  # also those that no feature reads
    known = list(dict.fromkeys([*plan.names, *columns]))
    refuse_no_features(plan)
    check_codes(spec.serving.reasons, plan)
    check_slices(project.policies.monitoring.review, plan)
    check_training_columns(known, project.training(), project.policies.evaluation)
    brought = [*(field.name for field in plan.request), *(name for name in columns if name not in labels)]
    _check_key(project.policies.release.key, list(dict.fromkeys(brought)))


def check_allowed(plan: FeaturePlan, allowed: Collection[str]) -> None:
    """Raises DefinitionError where `training.allow` names no feature: the one that is meant would not be allowed."""
    unknown = next((name for name in allowed if name not in plan.names), None)
    if unknown is not None:
        raise DefinitionError(
            f'training.allow names "{unknown}", which is no feature of this project',
            subject=unknown,
            hint=did_you_mean(unknown, plan.names) or f"features: {', '.join(plan.names)}",
        )


def _check_leaks(plan: FeaturePlan, labels: Collection[str], allowed: Collection[str]) -> None:
    """Refuse leakage that shows without the rows: a feature of the target's only column alone."""
    for feature in plan.features:
        if feature.name not in plan.names:  # a part of others
            continue
        own = feature.expr is not None and not expr.features(feature.expr) and expr.columns(feature.expr)
        if own and len(labels) == 1 and own == set(labels) and feature.name not in allowed:
            (column,) = labels
            raise DataError(
                f"the feature {feature.name} is made of {column} alone, and so is the target: this is leakage",
                subject=feature.name,
                hint="remove it from the features, declare when it becomes known, or allow it: "
                f"`allow: [{feature.name}]`",
            )


def _check_key(key: str | None, columns: list[str]) -> None:
    """A key that no request has would send each request to a version by itself, and no caller would stay on one."""
    if key is not None and key not in columns:
        raise DefinitionError(
            f'release.key names "{key}", which is no column of the requests',
            subject="release.key",
            hint=did_you_mean(key, columns) or f"columns: {', '.join(columns)}",
        )


class RowFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of the task by the rows."""

    task: ServableTask
    classes: tuple[str, ...]
    #: the labelled rows of each class
    counts: dict[str, int] = {}


def check_rows(context: Context, task: Task, snapshot: Snapshot) -> RowFacts:
    """Make the training set without its features, split it, and check the settings of its task and times.

    The rows are read once for the same rows and settings.

    Raises:
        DataError: the target or a cost cannot be used, or a split leaves too few rows.
        UsageError: a metric does not measure the task, or rows have no time for the capacity or the final fit.
        DefinitionError: reasons that the task has not, or a trainer or its parameters do not fit it.
    """
    project = context.project
    policy, reviewed = project.training(), reviewed_table(project, as_of=None)
    inputs = {
        "snapshot": snapshot.id,
        "plan": task.plan,
        "training": project.spec.training,
        "evaluation": project.spec.evaluation,
        "reasons": project.policies.serving.reasons,
        "reviewed": None if reviewed is None else reviewed.key,
    }
    arguments = {"task": task.to_json(), "snapshot": snapshot.id, "reviewed": msgspec.to_builtins(reviewed)}
    done = context.step(
        "check rows",
        msgspec.to_builtins(inputs),
        lambda: msgspec.to_builtins(_read_facts(project, task, snapshot, reviewed)),
        function=StepFunction(f"{__name__}:{run_row_facts.__name__}", arguments),
    )
    facts = msgspec.convert(done.result, RowFacts)
    check_constant(project.policies.serving.fallback.constant, facts.task, facts.classes)
    # What packages and the project's functions take may change while rows and settings stay.
    if any(":" in name or policy.parameters.get(name) for name in policy.trainers):
        from cumulant.training.trainers.trainer_checks import check_trainers

        check_trainers(policy, facts.task, facts.classes, root=Path(project.root))
    return facts


def run_row_facts(context: Context, *, task: dict[str, object], snapshot: str, reviewed: object) -> dict[str, object]:
    """The step `check rows` in a process of its own: `RowFacts`."""
    from cumulant.core.refs import TableRef

    rows, labels = load_snapshot(context.project, snapshot), msgspec.convert(reviewed, TableRef | None)
    facts = _read_facts(context.project, task_from_json(task), rows, labels)
    return msgspec.to_builtins(facts)  # type: ignore[no-any-return]


def _read_facts(project: Project, task: Task, snapshot: Snapshot, reviewed: TableRef | None) -> RowFacts:
    from cumulant.flows.training.search_step import horizon_of
    from cumulant.flows.training.training_rows import rows_without_features
    from cumulant.training.evaluation.gate import check_gate
    from cumulant.training.evaluation.threshold import check_timed
    from cumulant.training.search.search_metric import searched_metric

    spec, evaluation = project.training(), project.policies.evaluation
    rows = rows_without_features(project, task, snapshot, spec=spec, evaluation=evaluation, reviewed=reviewed)
    searched_metric(spec, rows)
    check_gate(evaluation.gate, task=rows.task, costs=rows.false_negative is not None)
    check_when(project.policies.serving.reasons, rows.task)
    if isinstance(spec.threshold, ThresholdPolicy) and spec.threshold.alerts is not None and rows.task == "binary":
        check_timed(spec.threshold.alerts, timed=rows.at is not None)
    if rows.at is not None or evaluation.clusters not in computed_names(task.plan):
        # Without times rows are split by their clusters, which here are not computed.
        from cumulant.training.splits import split

        parts = split(rows, evaluation, seed=spec.seed, horizon=horizon_of(rows, None))
        if rows.at is not None:
            from cumulant.training.splits import folds
            from cumulant.training.weighting import weighted

            weighted(parts.train, spec)
            folds(parts.train, spec.folds, seed=spec.seed)
    return RowFacts(task=rows.task, classes=rows.classes, counts=class_counts(rows))
