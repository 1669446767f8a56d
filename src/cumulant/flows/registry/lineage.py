"""From a model version back to what made it, and forward again: reproduce."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import NotFoundError
from cumulant.core.ids import file_digest
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Servable
from cumulant.data.snapshot import SourceFile
from cumulant.flows.data.validate import load_snapshot
from cumulant.flows.features.feature_table import scans, store_features
from cumulant.flows.features.task import Task, target_of
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.registry.model_record import ModelRecord, find_record
from cumulant.flows.registry.models import LearnedRows, learned_rows
from cumulant.flows.registry.version_servable import describe_row_servable, describe_servable
from cumulant.flows.training.final_fit import fit_on_all_rows
from cumulant.flows.training.search_step import all_rows, rows_of, sample_training_rows
from cumulant.flows.training.training_identity import TrainingWork, trainer_code
from cumulant.ports.registry import ModelVersion
from cumulant.project.identity import python_environment
from cumulant.project.training_section import training_policy

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.core.refs import TableRef
    from cumulant.data.snapshot import Snapshot
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


class SourceLineage(msgspec.Struct, frozen=True, kw_only=True):
    """A source's snapshot and the files that it was made of, each with its hash and rows."""

    source: str
    snapshot: str
    accepted: datetime
    rows: int
    files: tuple[SourceFile, ...]


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """What made a version: data, features, settings, code and environment."""

    model: ModelVersion
    run: str
    created: datetime
    sources: tuple[SourceLineage, ...]
    features: tuple[str, ...]
    plan: str
    target: str
    as_of: datetime | None
    #: how many rows were learned from, and by `training.rows` of how many
    learned: LearnedRows
    training: dict[str, object]
    evaluation: dict[str, object]
    code: str
    python: str
    packages: dict[str, str]
    environment: str
    servable: str
    files: dict[str, str]


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """`identical`: every file of the servable has the hash it had. Else what differs, one line each."""

    model: ModelVersion
    identical: bool
    differences: tuple[str, ...]
    files: dict[str, str]
    seconds: float


def record_of(project: Project, version: ModelVersion) -> ModelRecord:
    """What the journal knows of a version. Raises NotFoundError for one that was not made here."""
    record = find_record(project, version)
    if record is None:
        raise NotFoundError(
            f"{version.uri} was not trained by this project's journal",
            subject=version.uri,
            hint="its tags in MLflow name the snapshots and settings",
        )
    return record


@verb("lineage.show", of="uri")
def lineage(project: Project, uri: str, *, principal: Principal) -> Lineage:
    """Where a version comes from. Raises NotFoundError."""
    version = project.registry().resolve(uri)
    record = record_of(project, version)
    servable = describe_row_servable(project, version)
    return Lineage(
        model=version,
        run=record.run,
        created=record.created,
        sources=tuple(_source(project, name, identity) for name, identity in record.snapshots.items()),
        features=servable.plan.names,
        plan=record.lineage["features"],
        target=record.training.target,
        as_of=record.as_of,
        learned=learned_rows(record.fitted),
        training=msgspec.to_builtins(record.training),
        evaluation=msgspec.to_builtins(record.evaluation),
        code=record.lineage["code"],
        python=record.python,
        packages=record.packages,
        environment=record.lineage["environment"],
        servable=record.servable.key,
        files=servable.files,
    )


def _source(project: Project, name: str, identity: str) -> SourceLineage:
    snapshot = load_snapshot(project, identity)
    return SourceLineage(
        source=name,
        snapshot=identity,
        accepted=snapshot.accepted,
        rows=snapshot.rows_passed,
        files=snapshot.files,
    )


@verb("model.reproduce")
def reproduce(project: Project, uri: str, *, principal: Principal, progress: Progress = silent) -> Reproduction:
    """Train a version again from its recorded snapshots, plan and settings, and compare every file of the servable.

    Recorded trials and boosters are taken as chosen; features, their fits and packaging are done again.
    """
    with open_run(
        project, "reproduce", writes=False, principal=principal, progress=progress, settings={"model": uri}
    ) as context:
        begun = context.now()
        version = project.registry().resolve(uri)
        record = record_of(project, version)
        before = describe_row_servable(project, version)
        snapshots = {name: load_snapshot(project, identity) for name, identity in record.snapshots.items()}
        with tempfile.TemporaryDirectory(dir=project.state) as scratch:
            folder, work = _repeat(context, record, before, snapshots, Path(scratch))
            files = {name: file_digest(folder / name) for name in before.files}
            differences = (*_differences(before.files, files), *_causes(record, before, work))
        return Reproduction(
            model=version,
            identical=files == before.files,
            differences=() if files == before.files else differences,
            files=files,
            seconds=round((context.now() - begun).total_seconds(), 1),
        )


def _repeat(
    context: Context,
    record: ModelRecord,
    before: Servable,
    snapshots: Mapping[str, Snapshot],
    scratch: Path,
) -> tuple[Path, TrainingWork]:
    project, plan = context.project, before.plan
    context.progress("features", 0.0)
    frames = scans(project, snapshots, record.snapshots, as_of=record.as_of)
    table = store_features(project, f"reproductions/{context.run}", plan, frames)
    try:
        from cumulant.packaging.builder import build
        from cumulant.training.search.refit import refit

        work = recorded_work(project, record, plan, snapshots[plan.entity], table)
        split = rows_of(context, work)
        fitted = record.fitted
        best = refit(
            sample_training_rows(split.train, work),
            training_policy(record.training),
            fitted.summary,
            fitted.trials,
            root=project.root,
            progress=context.progress,
        )
        if fitted.final is not None:
            best = fit_on_all_rows(context, work, fitted, best, all_rows(context, work))
        folder = scratch / "servable"
        build(
            best,
            plan,
            name=before.name,
            sample=split.test.features,
            out=folder,
            lineage=before.lineage,
            example=before.example,
            target=record.training.target,
        )
        return folder, work
    finally:
        project.tables().delete(table.key)


def recorded_work(
    project: Project, record: ModelRecord, plan: FeaturePlan, snapshot: Snapshot, table: TableRef
) -> TrainingWork:
    target = target_of(record.training, {field.name for field in snapshot.fields})
    return TrainingWork(
        task=Task(entity=plan.entity, target=target, predict_at=plan.predict_at, plan=plan),
        snapshot=snapshot,
        table=table,
        training_spec=record.training,
        evaluation_spec=record.evaluation,
        as_of=record.as_of,
        sample=record.sample,
        reviewed=None if record.reviewed is None else project.tables().find(record.reviewed),
        trainers=trainer_code(project, record.training.trainers),
        change=record.change,
        by_hash=record.fitted.split.rule is not None,
    )


def trained_version(
    project: Project, uri: str, *, hint: str | None = None
) -> tuple[ModelVersion, ModelRecord, Servable]:
    """A version that was trained here, what the journal knows of it, and its servable.

    Raises:
        NotFoundError: there is no such version, or it was not trained here; `hint` says what to do then.
    """
    version = project.registry().resolve(uri)
    record = find_record(project, version)
    described = describe_servable(project, version)
    if record is None or not isinstance(described, Servable):
        raise NotFoundError(f"{uri} has no record of its training here", subject=uri, hint=hint)
    return version, record, described


def work_again(context: Context, record: ModelRecord, plan: FeaturePlan) -> TrainingWork:
    """The work that made a version; its features are found, or computed again and kept.

    Raises:
        NotFoundError: a snapshot that it was made of was removed.
    """
    project = context.project
    snapshots = {name: load_snapshot(project, identity) for name, identity in record.snapshots.items()}
    table = project.tables().find(record.table)
    if table is None:
        table = store_features(
            project, record.table, plan, scans(project, snapshots, record.snapshots, as_of=record.as_of)
        )
    return recorded_work(project, record, plan, snapshots[plan.entity], table)


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    pairs = {name: (before[name], after.get(name, "nothing")) for name in before}
    return tuple(f"{name}: {a[:12]} was recorded, {b[:12]} was made" for name, (a, b) in pairs.items() if a != b)


def _causes(record: ModelRecord, before: Servable, work: TrainingWork) -> tuple[str, ...]:
    causes = [
        f"the code of {name} is another now"
        for name, code in work.trainers.items()
        if code != record.trainers.get(name, code)
    ]
    recorded = before.lineage.get("settings", work.settings)
    if work.settings != recorded:
        causes.append(f"settings: {recorded[:12]} in the servable, {work.settings[:12]} in the journal's record")
    now = python_environment()
    then, here = {"Python": record.python, **record.packages}, {"Python": now.python, **now.packages}
    changed = [
        f"{name} {then.get(name, 'absent')} then, {here.get(name, 'absent')} now"
        for name in sorted({*then, *here})
        if then.get(name) != here.get(name)
    ]
    return (*causes, *changed)
