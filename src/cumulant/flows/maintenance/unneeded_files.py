"""What no version in use or server needs: online tables, local copies of servables, references, drafts."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from cumulant.core.errors import IntegrityError
from cumulant.core.ids import digest, folder_size
from cumulant.core.plan import read_plan
from cumulant.core.system.temporary_folders import DAY
from cumulant.flows.data.validate import newest_snapshot
from cumulant.flows.deployment.versions import find_references
from cumulant.flows.features.backfill_record import backfilled_plan
from cumulant.flows.ledger.ledger_records import STEP, StepRecord, read_step
from cumulant.flows.registry.model_record import MODEL, ModelRecord
from cumulant.flows.registry.version_servable import FETCHED, copy_name
from cumulant.flows.review.reference_key import key_of
from cumulant.flows.serving.servable_copies import SERVING
from cumulant.flows.serving.serve import ONLINE_STATE, USES, state_table
from cumulant.flows.serving.services import list_uses, shared_tables
from cumulant.review.queue import ReviewQueue

if TYPE_CHECKING:
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project


#: a file in the making, before it is renamed to NAME: `.NAME.THREAD`
_DRAFT = re.compile(r"\..+\.\d+")
#: folders of the state whose content has names of its makers, and whose stores remove their own drafts
_OF_STORES = frozenset({"mlartifacts", "mlruns", "objects", "tables", FETCHED, SERVING})


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """One stored thing that nothing needs. `state`: a table of the online store; `file`: a draft."""

    key: str
    kind: Literal["table", "object", "folder", "state", "file"]
    bytes: int


def unneeded_states(project: Project) -> Iterator[Removed]:
    """Tables that this project filled and that no version in use needs; tables of others in the store stay.

    Of each plan of such a version, and of the definition that was backfilled last, stay what was filled from the newest
    snapshots, and what was filled last.
    """
    steps = [record for record in map(read_step, project.journal().rows(STEP)) if record.name == ONLINE_STATE]
    if not steps:
        return
    filled = {state_table(step.inputs): step for step in sorted(steps, key=lambda step: step.started)}
    last = {_plan(step): table for table, step in filled.items()}
    plans = {version.tags.get("cumulant.features") for version in _in_use(project)}
    plans |= {backfilled_plan(project)}
    used = {use.table for use in list_uses(project.state / USES)} | find_references(project)[1]
    used |= shared_tables(project)
    store = project.online()
    for table in store.tables():
        step = filled.get(table)
        if step is None or table in used:
            continue
        plan = _plan(step)
        if plan not in plans or (table != last[plan] and not _is_newest(project, step)):
            yield Removed(key=table, kind="state", bytes=int(store.meta(table).get("bytes", 0)))


def unneeded_copies(project: Project) -> Iterator[Removed]:
    """Copies of servables, made to be served or fetched from the registry, and drafts that a kill left."""
    in_use = {f"{version.name}/{copy_name(version)}" for version in _in_use(project)}
    used = {Path(use.folder) for use in list_uses(project.state / USES)}
    used |= set(map(Path, find_references(project)[0]))
    for place in (SERVING, FETCHED):
        for path in sorted((project.state / place).glob("*/*")):
            if f"{path.parent.name}/{path.name}" not in in_use and not _holds(path, used):
                yield Removed(key=path.relative_to(project.state).as_posix(), kind="folder", bytes=folder_size(path))


def unneeded_references(project: Project) -> Iterator[Removed]:
    """What drift is measured against and what the review queue compares with, of versions that are no longer in use.

    Of the first only the last one that was made is looked at; of the second also those of cases that wait.
    """
    objects = project.objects()
    reference_steps = [
        record for record in map(read_step, project.journal().rows(STEP)) if record.name == "monitoring reference"
    ]
    needed = (
        {str(_inputs(max(reference_steps, key=lambda step: step.started)).get("key"))}
        if reference_steps
        else set[str]()
    )
    queue = project.policies.monitoring.review
    waiting = [] if queue is None else ReviewQueue(project.journal(), project.name, queue).open()
    versions = {f"{version.name}/{version.version}" for version in _in_use(project)}
    versions |= {f"{case.model}/{case.version}" for case in waiting}
    records = [row for row in project.journal().rows(MODEL) if row.key in versions]
    needed |= {key_of(msgspec.convert(row.value, ModelRecord)) for row in records}
    for prefix in ("monitoring/", "review/"):
        for key in objects.keys(prefix):
            if key not in needed:
                ref = objects.find(key)
                yield Removed(key=key, kind="object", bytes=ref.bytes if ref else 0)


def abandoned_drafts(state: Path) -> Iterator[Removed]:
    """Files that a killed process was about to rename into place: no process writes one for a day."""
    oldest = time.time() - DAY
    for folder, inner, names in os.walk(state):
        if Path(folder) == state:
            inner[:] = (name for name in inner if name not in _OF_STORES)
        for name in filter(_DRAFT.fullmatch, names):
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):  # it was renamed meanwhile
                status = path.stat()
                if status.st_mtime < oldest:
                    yield Removed(key=path.relative_to(state).as_posix(), kind="file", bytes=status.st_size)


def _in_use(project: Project) -> Iterator[ModelVersion]:
    """Versions that have an alias, and the newest of each model."""
    registry = project.registry()
    for name in registry.models():
        for number, version in enumerate(registry.versions(name)):
            if number == 0 or version.aliases:
                yield version


def _plan(step: StepRecord) -> str:
    """The plan's digest as versions carry it; "" for a plan of a format that no version here can read."""
    try:
        return digest(read_plan(_inputs(step).get("plan")))
    except (msgspec.ValidationError, IntegrityError):
        return ""


def _is_newest(project: Project, step: StepRecord) -> bool:
    """Whether the state was filled from the sources' newest accepted snapshots."""
    snapshots = _inputs(step).get("snapshots")
    if not isinstance(snapshots, dict):
        return False
    present = {source: newest_snapshot(project, source) for source in snapshots}
    return all(snapshot is not None and snapshot.id == snapshots[source] for source, snapshot in present.items())


def _inputs(step: StepRecord) -> dict[str, object]:
    return step.inputs if isinstance(step.inputs, dict) else {}


def _holds(folder: Path, used: set[Path]) -> bool:
    return any(path == folder or folder in path.parents for path in used)
