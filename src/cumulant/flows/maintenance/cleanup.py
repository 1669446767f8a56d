"""What can be removed: stored tables and objects that no kept snapshot, registered model or recent run needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import msgspec

from cumulant.core.clock import SystemClock
from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import Fact
from cumulant.core.ids import digest, folder_size
from cumulant.core.progress import Progress, silent
from cumulant.flows.data.validate import NEWEST, REFUSED, SNAPSHOT
from cumulant.flows.features.stored_tables import filled_tables, table_readers
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.cleanup_lock import CLEAN
from cumulant.flows.ledger.code_bundle import CODE
from cumulant.flows.ledger.ledger_records import STEP, is_under_way, read_step, runs
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.ledger.stored_overrides import OVERRIDES
from cumulant.flows.maintenance.unneeded_files import (
    Removed,
    abandoned_drafts,
    unneeded_copies,
    unneeded_references,
    unneeded_states,
)
from cumulant.flows.registry.model_record import MODEL, ModelRecord
from cumulant.flows.training.chosen_rows import CHOSEN
from cumulant.flows.training.search_step import SEARCH
from cumulant.ports.step_queue import QUEUED_STEP, is_settled, readable

if TYPE_CHECKING:
    from cumulant.data.snapshot import Snapshot
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project

_RECENT_TABLES = 3


class StorageCleaned(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "storage.cleaned"
    things: int
    bytes: int


@verb("project.clean")
def clean(
    project: Project,
    *,
    principal: Principal,
    dry_run: bool = True,
    expired_only: bool = False,
    progress: Progress = silent,
) -> list[Removed]:
    """What nothing needs, and unless `dry_run` it is removed; `expired_only`: of it, tables of sources with a `keep`.

    Kept are: each source's snapshots by its `keep` (default: all), those that a registered model was trained on or a
    served table of stored features was filled from, the three newest feature tables, every servable and model of a
    registered version; of the stored state and the copies that servers read, what belongs to versions with an alias
    and each model's newest, what a server of this machine uses, and what served here before and may come back; what
    drift and the review queue compare with, of the same versions; the code of steps that wait for a worker, those that
    another version of Cumulant has queued too.
    Drafts that a killed process left go after a day. What is removed and needed again is made again.

    Runs that begin while things are removed wait for the end of it.

    Raises:
        LeaseHeldError: a run is in progress, which may need what no version names yet.
        CumulantError: the desired state cannot be read: which tables are served is not known.
    """
    listed = expired_tables if expired_only else unneeded
    removable = listed(project)
    _report_unreadable_steps(project, progress)
    if dry_run or not removable:
        return removable
    removed: list[Removed] = []

    def remove() -> dict[str, object]:
        _refuse_beside_a_run(project)
        # Again, now that nothing new can come to be needed.
        for item in listed(project):
            _remove(project, item)
            removed.append(item)
        return {"things": len(removed), "bytes": sum(item.bytes for item in removed)}

    def emit(transaction: Transaction, result: dict[str, object]) -> None:
        transaction.emit(msgspec.convert(result, StorageCleaned))

    # In this process: it also removes folders of this machine.
    with open_run(project, CLEAN, principal=principal, progress=progress) as context:
        context.ledger.step(CLEAN, {}, remove, verify=lambda _: False, write=emit, progress=progress)
    return removed


def expired_tables(project: Project) -> list[Removed]:
    """Stored tables of sources with a `keep` that no kept snapshot needs now."""
    return list(_data_tables(project, expiring_only=True))


def unneeded(project: Project) -> list[Removed]:
    """What no kept snapshot, model, running server or recent run needs now."""
    return [
        *_data_tables(project),
        *_stream_tables(project),
        *_feature_tables(project),
        *_objects(project),
        *_searches(project),
        *_code(project),
        *unneeded_states(project),
        *unneeded_copies(project),
        *unneeded_references(project),
        *abandoned_drafts(project.state),
    ]


def _refuse_beside_a_run(project: Project) -> None:
    for run in runs(project.journal()):
        if run.status == "running" and run.flow != CLEAN and is_under_way(project.journal(), run):
            raise LeaseHeldError(
                f"run {run.id} ({run.flow}) is in progress: what it has made so far would look as if nothing needed it",
                subject=run.id,
                hint="clean when it has ended",
            )


def _remove(project: Project, item: Removed) -> None:
    match item.kind:
        case "table":
            project.tables().delete(item.key)
        case "object":
            project.objects().delete(item.key)
        case "state":
            project.online().drop(item.key)
        case "folder":
            shutil.rmtree(project.state / item.key, ignore_errors=True)
        case "file":
            (project.state / item.key).unlink(missing_ok=True)


def _records(project: Project) -> list[ModelRecord]:
    return [msgspec.convert(row.value, ModelRecord) for row in project.journal().rows(MODEL)]


def _tags(project: Project) -> list[dict[str, str]]:
    """Those of all registered versions: one whose training was cut off has them, and no record yet."""
    registry = project.registry()
    return [version.tags for name in registry.models() for version in registry.versions(name)]


def _data_tables(project: Project, *, expiring_only: bool = False) -> Iterator[Removed]:
    from cumulant.data.retention import expired_snapshots, removable_keys
    from cumulant.data.snapshot import Snapshot

    journal, now = project.journal(), SystemClock().now()
    needed_by = {identity for record in _records(project) for identity in record.snapshots.values()}
    needed_by |= {tags[name] for tags in _tags(project) for name in tags if name.startswith("cumulant.snapshot.")}
    needed_by |= _served_from(project)
    snapshots = [msgspec.convert(row.value, Snapshot) for row in journal.rows(SNAPSHOT)]
    for source, declared in project.policies.sources.items():
        if expiring_only and declared.keep is None:
            continue
        own = [snapshot for snapshot in snapshots if snapshot.source == source]
        gone = {snapshot.id for snapshot in expired_snapshots(own, declared.keep, now)} - needed_by
        needed: list[Snapshot] = [snapshot for snapshot in own if snapshot.id not in gone]
        for kind in (NEWEST, REFUSED):
            row = journal.get(kind, source)
            if row is not None:
                needed.append(msgspec.convert(row.value, Snapshot))
        yield from (_table(project, key) for key in removable_keys(source, needed, project.tables()))


def _served_from(project: Project) -> set[str]:
    """Snapshots by which served tables of stored features were filled: served features are verified by them."""
    filled = filled_tables(project)
    served = {reader.table for reader in table_readers(project)} if filled else set()
    return {identity for table in filled if table.name in served for identity in table.snapshots.values()}


def _stream_tables(project: Project) -> Iterator[Removed]:
    """Tables of batches that a killed ingestion stored and nothing committed, and those that were replaced."""
    from cumulant.data.streams.records import STREAM, table_prefix, unneeded_keys
    from cumulant.flows.data.stream_compaction import replaced_keys
    from cumulant.flows.data.stream_membership import writers_of
    from cumulant.flows.data.stream_records import read_batches

    for row in project.journal().rows(STREAM):  # of sources that are no longer declared too
        source = row.key
        # in this order: what a writer that is gone by then has committed is in the batches, or was replaced since
        keys = project.tables().keys(table_prefix(source))
        writers = writers_of(project.journal(), source)
        unneeded = unneeded_keys(source, read_batches(project, source), writers, keys)
        replaced = replaced_keys(project, source, SystemClock().now())
        yield from (_table(project, key) for key in unneeded if key not in replaced)


def _feature_tables(project: Project) -> Iterator[Removed]:
    tables = project.tables()
    done = [read_step(row) for row in project.journal().rows(STEP)]
    computed = sorted((step for step in done if step.name == "features" and step.result), key=lambda step: step.started)
    recent = {_key(step.result) for step in computed[-_RECENT_TABLES:]}
    yield from (_table(project, key) for key in tables.keys("features/") if key not in recent)
    yield from (_table(project, key) for prefix in ("reproductions/", f"{CHOSEN}/") for key in tables.keys(prefix))


def _key(result: object) -> str:
    table = result["table"] if isinstance(result, dict) else {}
    return str(table["key"]) if isinstance(table, dict) else ""


def _table(project: Project, key: str) -> Removed:
    ref = project.tables().find(key)
    return Removed(key=key, kind="table", bytes=ref.bytes if ref else 0)


def _objects(project: Project) -> Iterator[Removed]:
    objects, needed = project.objects(), {tags.get("cumulant.servable", "") for tags in _tags(project)}
    for record in _records(project):
        needed |= {record.servable.key, record.fitted.model.key, record.fitted.served.key}
        needed.add(record.fitted.naive.key)
    for prefix in ("models/", "servables/"):
        for key in objects.keys(prefix):
            ref = objects.find(key)
            if key not in needed:
                yield Removed(key=key, kind="object", bytes=ref.bytes if ref else 0)


def _searches(project: Project) -> Iterator[Removed]:
    """Trials of searches that ended: their result is stored, so the trials are not needed to go on."""
    folder, objects = project.state / SEARCH, project.objects()
    copies = [ref for key in objects.keys(f"{SEARCH}/") if (ref := objects.find(key))]
    if not folder.is_dir() and not copies:
        return
    steps = [read_step(row) for row in project.journal().rows(STEP)]
    done = {digest(step.inputs) for step in steps if step.name == "search" and step.status == "done"}
    for path in sorted(path for path in (folder.iterdir() if folder.is_dir() else ()) if path.name in done):
        yield Removed(key=f"{SEARCH}/{path.name}", kind="folder", bytes=folder_size(path))
    yield from (Removed(key=ref.key, kind="object", bytes=ref.bytes) for ref in copies if ref.key.split("/")[1] in done)


def _code(project: Project) -> Iterator[Removed]:
    """Code and overrides that went to workers: of no step that waits for one. Commands store them again.

    A step that this version cannot read may still be run by a worker of its own.
    """
    objects, rows = project.objects(), project.journal().rows(QUEUED_STEP)
    settled = {row.key for row, step in readable(rows) if is_settled(step)}
    needed = " ".join(msgspec.json.encode(row.value).decode() for row in rows if row.key not in settled)
    for prefix in (CODE, OVERRIDES):
        for key in objects.keys(f"{prefix}/"):
            if key not in needed and (ref := objects.find(key)):
                yield Removed(key=key, kind="object", bytes=ref.bytes)


def _report_unreadable_steps(project: Project, progress: Progress) -> None:
    rows = project.journal().rows(QUEUED_STEP)
    if unreadable := len(rows) - len(readable(rows)):
        progress(f"{unreadable} queued steps are of another version of Cumulant: their code is kept")
