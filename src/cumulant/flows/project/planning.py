"""What would run: the sources, the compiled features and the target, checked before anything is trained."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import NotFoundError
from cumulant.core.plan import FeaturePlan
from cumulant.core.progress import Progress, silent
from cumulant.features.definition.known_time import show_moment
from cumulant.features.definition.tiers import tiers
from cumulant.features.flink.job import check_results
from cumulant.flows.data.request_rules import unchecked_notes
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.deployment.deployment import is_shared
from cumulant.flows.deployment.host_lifecycle import check_salt
from cumulant.flows.features.online_tables import stream_notes
from cumulant.flows.features.stream_query import stream_query
from cumulant.flows.features.task import Task, resolve_task
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.project.driver_needs import driver_needs
from cumulant.flows.storage.lifecycle import check_lifecycle, lifecycle_notes, lifecycle_warnings
from cumulant.project.connections import remote_settings
from cumulant.project.driver_checks import check_drivers
from cumulant.project.endpoints import DEFAULTS
from cumulant.project.file.gate_rules import split_notes
from cumulant.project.file.layers import LOCAL
from cumulant.project.file.release_rules import check_release
from cumulant.project.file.serving_rules import check_serving
from cumulant.project.file.training_rules import check_training
from cumulant.project.residency import unchecked_places
from cumulant.project.shared_registry import shared_registry_warnings

if TYPE_CHECKING:
    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.project.plan_checks import RowFacts
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


class PlannedSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source's snapshot; `reused`: nothing in it was new."""

    name: str
    snapshot: str
    rows: int
    rows_quarantined: int
    reused: bool


class TrainingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What `train` would do: every part of it compiled, and by default checked."""

    project: str
    environment: str
    sources: tuple[PlannedSource, ...]
    features: FeaturePlan
    entity: str
    target: str
    predict_at: str | None
    training: dict[str, Any]
    evaluation: dict[str, Any]
    notes: tuple[str, ...] = ()
    #: what kind of problem the target is, and the labelled rows of each class; None where nothing was checked
    task: str | None = None
    classes: dict[str, int] = {}
    warnings: tuple[str, ...] = ()
    #: features that only a batch can compute from raw rows, with the Python functions whose results they read
    batch_only: dict[str, tuple[str, ...]] = {}


@verb("project.plan")
def plan(project: Project, *, principal: Principal, checks: bool = True, progress: Progress = silent) -> TrainingPlan:
    """Check drivers and code, update the snapshots, and check all that `train` and `release start` refuse.

    Excepted is what only computed features show. Without `checks` the features are compiled, and nothing that only a
    training or a release needs is checked.

    Raises:
        MissingPartError: the package of a trainer is not installed, or cannot be imported.
        ProjectFileError: a driver is missing, or a setting that no training, release or server could use.
        NotKnownYetError: an input is not known at the moment of prediction.
        DefinitionError: the features file defines no feature, a watched slice of the review queue is misspelt, or the
            engine of streams cannot compute the features, or its results would show personal values.
        UserCodeError: a function or features file of the project raised.
        DataError: the rows cannot be learned from as declared: target, split, costs.
        EngineUnavailableError: the registry does not answer.
        UsageError: as `task.resolve_task`; a metric or threshold does not fit the task.
    """
    check_drivers(project, driver_needs(project))
    project.history()  # a URL without its folder, or an engine that is not installed
    streaming = project.stream_engine() is not None
    if is_shared(project):
        check_salt(project)
    training = project.training()
    rows: RowFacts | None = None
    warnings: tuple[str, ...] = ()
    with open_run(project, "plan", writes=False, principal=principal, progress=progress) as context:
        if checks:
            _check_declarations(context)
        snapshots, reused = snapshots_of(context)
        task = resolve_task(project, snapshots)
        if checks and streaming:
            check_results(task.plan)
            stream_query(project, task.plan)  # which refuses what its engine cannot compute
        if checks:
            rows, warnings = _check_task(context, task, snapshots[task.entity])
    settings = project.file.settings("training", "evaluation")
    return TrainingPlan(
        project=project.name,
        environment=project.environment,
        sources=tuple(
            PlannedSource(
                name=name,
                snapshot=snapshot.id,
                rows=snapshot.rows_passed,
                rows_quarantined=snapshot.rows_quarantined,
                reused=name in reused,
            )
            for name, snapshot in snapshots.items()
        ),
        features=task.plan,
        entity=task.entity,
        target=training.target,
        predict_at=None if task.predict_at is None else show_moment(task.predict_at),
        training=settings["training"],
        evaluation=settings["evaluation"],
        notes=(
            *split_notes(project.spec),
            *unchecked_notes(project.policies, task.plan),
            *stream_notes(project, task.plan),
            *_unconnected_notes(project),
            *_access_notes(project),
            *lifecycle_notes(project),
        ),
        task=None if rows is None else rows.task,
        classes={} if rows is None else rows.counts,
        warnings=(
            *warnings,
            *shared_registry_warnings(project.file, project.environment),
            *lifecycle_warnings(project),
        ),
        batch_only=_batch_only(project, task.plan),
    )


def _batch_only(project: Project, features: FeaturePlan) -> dict[str, tuple[str, ...]]:
    functions = {name: source.prepare for name, source in project.spec.data.items() if source.prepare is not None}
    return {name: tier.functions for name, tier in tiers(features, functions).items() if tier.tier == "batch"}


def _unconnected_notes(project: Project) -> list[str]:
    """What the environment names elsewhere and no part of a plan reads."""
    unread = [f"{name} ({url})" for name, url in remote_settings(project).items() if name in ("online", "log")]
    notes = [f"not connected to: {', '.join(unread)}; `cumulant doctor` does so"] if unread else []
    if places := unchecked_places(project.file.environment):
        notes.append(f"residency is not checked for {', '.join(places)}: their region is not declared")
    return notes


def _access_notes(project: Project) -> list[str]:
    """Roles that decide nothing, but on one's own machine."""
    if project.environment == LOCAL or project.endpoints.access != DEFAULTS["access"] or not project.policies.bindings:
        return []
    return [f"access.bindings decide nothing in {project.environment}: everybody may do everything (access: open://)"]


def _check_declarations(context: Context) -> None:
    """Check what needs no rows. Raises as `plan`."""
    from cumulant.flows.project import plan_checks  # which imports what trains and releases

    project = context.project
    check_training(project)
    check_release(project)
    check_serving(project)
    check_lifecycle(project)
    plan_checks.check_code(project)
    plan_checks.check_packages(context)
    with suppress(NotFoundError):  # a training reads the champion first, and needs a registry that answers
        project.registry().resolve(project.name)


def _check_task(context: Context, task: Task, snapshot: Snapshot) -> tuple[RowFacts, tuple[str, ...]]:
    """Facts of the task by its rows, and warnings. Raises as `plan`."""
    from cumulant.flows.project import plan_checks
    from cumulant.flows.training.target_classes import class_warnings, known_classes

    project = context.project
    plan_checks.check_names(project, task, snapshot)
    rows = plan_checks.check_rows(context, task, snapshot)
    warnings = class_warnings(project, task, snapshot, known=known_classes(project), kind=rows.task, counts=rows.counts)
    return rows, (*warnings, *plan_checks.gateway_warnings(project))
