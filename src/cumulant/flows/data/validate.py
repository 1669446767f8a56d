"""The flow `validate`: update the snapshots of the sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import NotFoundError, UsageError, not_found
from cumulant.core.ids import digest
from cumulant.core.progress import Progress, silent
from cumulant.flows.data.column_usage import used_columns
from cumulant.flows.data.erasures import erased_subjects
from cumulant.flows.data.memory_budget import memory_budget
from cumulant.flows.data.stream_records import list_ingested
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.ledger.step_function import StepFunction, can_reach
from cumulant.ports.driver import Need
from cumulant.project.sources import files_base

if TYPE_CHECKING:
    from cumulant.data.files.listing import FileListing
    from cumulant.data.policy import SourcePolicy
    from cumulant.data.snapshot import Snapshot
    from cumulant.ports.access import Principal
    from cumulant.ports.files import FileInfo
    from cumulant.ports.journal import Row, Transaction
    from cumulant.project.project import Project

#: characters that make a path a pattern
WILDCARDS = frozenset("*?[")
#: journal rows: the newest accepted snapshot of a source, each snapshot by its id, the last refused one
NEWEST, SNAPSHOT, REFUSED = "newest_snapshot", "snapshot", "refused_snapshot"


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """The accepted snapshots by source, and the sources for which nothing had changed."""

    run: str
    snapshots: dict[str, Snapshot]
    reused: tuple[str, ...]


def driver_needs(project: Project) -> list[Need]:
    """What reading the sources needs of the drivers of their files."""
    reason = "the source {} has a pattern as path"
    return [
        Need("files", "glob", reason.format(name), url=files_base(spec.path, project.root))
        for name, spec in project.spec.data.items()
        if spec.path and WILDCARDS & set(spec.path)
    ]


@verb("data.validate")
def validate(
    project: Project,
    *,
    principal: Principal,
    sources: Iterable[str] = (),
    force: bool = False,
    progress: Progress = silent,
) -> Validation:
    """Read, check and store what is new of the named sources (default: all); `force` compares all contents.

    Raises:
        ContractBreachError: a source has more refused rows than it allows; these can be inspected.
        DataError: a source cannot be read.
    """
    with open_run(project, "validate", principal=principal, progress=progress) as context:
        snapshots, reused = snapshots_of(context, sources, force=force)
        return Validation(run=context.run, snapshots=snapshots, reused=reused)


def snapshots_of(
    context: Context, names: Iterable[str] = (), *, force: bool = False
) -> tuple[dict[str, Snapshot], tuple[str, ...]]:
    """The snapshots of the sources (default: all), and the names of those that were up to date."""
    declared = context.project.policies.sources
    if not declared:
        raise UsageError("the project declares no source", hint="name one under `data:` in cumulant.yaml")
    for name in names:
        if name not in declared:
            raise not_found("source", name, declared)
    snapshots: dict[str, Snapshot] = {}
    reused = []
    for name in in_order(declared):
        if names and name not in set(names) and not needed_by(declared, name, set(names)):
            continue
        snapshots[name], fresh = _snapshot(context, name, snapshots, force=force)
        if not fresh:
            reused.append(name)
    return snapshots, tuple(reused)


def _snapshot(context: Context, name: str, others: Mapping[str, Snapshot], *, force: bool) -> tuple[Snapshot, bool]:
    from cumulant.data.code_hash import prepare_digest
    from cumulant.data.files.listing import display_path, list_files
    from cumulant.data.snapshot import READING
    from cumulant.data.streams.records import content_of_stamp

    project = context.project
    policy = project.policies.source(name)
    spec = policy.spec
    if spec.stream is None:
        listing = list_files(spec, source=name, root=project.root, files=project.files())
    else:
        listing = list_ingested(project, name)
    inputs = {
        "reading": READING,
        # Not in full: a rule's set of allowed values may be personal.
        "declaration": digest(spec.plain()),
        "prepare": prepare_digest(spec.prepare, project.root),
        # Not in full: each run has a row of its own in the journal.
        "files": digest(
            [
                [
                    display_path(file.url, project.root),
                    file.bytes,
                    file.stamp if spec.stream is None else content_of_stamp(file.stamp),
                ]
                for file in listing.files
            ]
        ),
        "skipped": [display_path(file.url, project.root) for file in listing.skipped],
        # Files as they were once are no news, but the loss of what came after is.
        "gone": _gone(project, name, listing.files),
        "others": {other: others[other].id for other in sorted(references(policy) - {name})},
        "forced": context.run if force else None,
        # A rule on freshness has another answer every hour.
        "hour": f"{context.now():%Y-%m-%dT%H}" if policy.fresh is not None else None,
    }

    erased = erased_subjects(project, name)
    if erased is not None:
        inputs["erased"] = erased.digest
    snapshots: list[Snapshot] = []
    records: list[Snapshot] = []

    def ingest() -> dict[str, object]:
        from cumulant.data.parts.file_lists import store_file_lists

        # Files of this machine are read here, whatever runs the other steps.
        if context.isolated and can_reach(project, "files", files_base(spec.path, project.root)):
            snapshots.append(_ingest_isolated(context, name, others, listing, inputs=inputs, force=force))
        else:
            snapshots.append(_ingest(context, name, policy, others, listing, force=force))
        records.append(store_file_lists(snapshots[-1], project.tables()))
        return {"snapshot": snapshots[-1].id}

    outcome = context.step(
        f"data {name}",
        inputs,
        ingest,
        verify=lambda result: _stands(context, result),
        write=lambda transaction, _: _store(transaction, NEWEST, snapshots[-1], records[-1]),
    )
    snapshot = load_snapshot(project, str(outcome.result["snapshot"]))
    if outcome.reused:
        _be_newest(context, name, snapshot)
    return snapshot, not outcome.reused


def _ingest_isolated(
    context: Context,
    name: str,
    others: Mapping[str, Snapshot],
    listing: FileListing,
    *,
    inputs: dict[str, object],
    force: bool,
) -> Snapshot:
    from cumulant.data.checks.verdict import SourceBreachError
    from cumulant.data.snapshot import Snapshot

    arguments = {
        "name": name,
        "others": {other: snapshot.id for other, snapshot in others.items()},
        "listing": msgspec.to_builtins(listing),
        "force": force,
    }
    function = StepFunction(f"{__name__}:{run_ingest.__name__}", arguments)
    result = context.run_isolated(f"data {name}", function, inputs=inputs)
    snapshot = msgspec.convert(result["snapshot"], Snapshot)
    if "breach" in result:
        raise SourceBreachError(str(result["breach"]), snapshot=snapshot, hint=str(result["hint"]))
    return snapshot


def run_ingest(
    context: Context, *, name: str, others: dict[str, str], listing: object, force: bool
) -> dict[str, object]:
    """The reading of a source in a process of its own: its snapshot, and where that is refused, why."""
    from cumulant.data.checks.verdict import SourceBreachError
    from cumulant.data.files.listing import FileListing

    project = context.project
    snapshots = {other: load_snapshot(project, identity) for other, identity in others.items()}
    files = msgspec.convert(listing, FileListing)
    try:
        snapshot = _ingest(context, name, project.policies.source(name), snapshots, files, force=force)
    except SourceBreachError as breach:
        return {"snapshot": msgspec.to_builtins(breach.snapshot), "breach": breach.message, "hint": breach.hint}
    return {"snapshot": msgspec.to_builtins(snapshot)}


def _gone(project: Project, name: str, files: Iterable[FileInfo]) -> list[str]:
    from cumulant.data.files.listing import display_path

    previous, present = newest_snapshot(project, name), {display_path(file.url, project.root) for file in files}
    return [] if previous is None else [file.url for file in previous.files if file.url not in present]


def _ingest(
    context: Context,
    name: str,
    policy: SourcePolicy,
    others: Mapping[str, Snapshot],
    listing: FileListing,
    *,
    force: bool,
) -> Snapshot:
    from cumulant.data.checks.verdict import SourceBreachError

    project = context.project
    previous = newest_snapshot(project, name)
    project.salt_source.ensure()  # what is stored now may be read later on a read-only disk
    used = None if previous is None else used_columns(project)  # there is nothing to lose the first time
    try:
        from cumulant.data.ingestion import ingest

        return ingest(
            name,
            policy,
            root=project.root,
            files=project.files(),
            tables=project.tables(),
            previous=previous,
            others=others,
            now=context.now(),
            used=None if used is None else used.get(name, {}),
            progress=context.progress,
            force=force,
            listing=listing,
            budget=memory_budget(project),
            erased=erased_subjects(project, name),
        )
    except SourceBreachError as breach:
        from cumulant.data.parts.file_lists import store_file_lists

        record = store_file_lists(breach.snapshot, project.tables())
        with context.transaction() as transaction:
            _store(transaction, REFUSED, breach.snapshot, record)
        raise


def _store(transaction: Transaction, kind: str, snapshot: Snapshot, record: Snapshot) -> None:
    """Record a snapshot and report it; an accepted one also under its id, in place of a refused one."""
    from cumulant.data.events import facts_of

    transaction.put(kind, snapshot.source, msgspec.to_builtins(record))
    if kind == NEWEST:
        transaction.put(SNAPSHOT, snapshot.id, msgspec.to_builtins(record))
        transaction.delete(REFUSED, snapshot.source)
    for fact in facts_of(snapshot):
        transaction.emit(fact)


def _be_newest(context: Context, name: str, snapshot: Snapshot) -> None:
    """A snapshot that is found again, after another or a refused one, is the present one again."""
    current = newest_snapshot(context.project, name)
    if current is not None and current.id == snapshot.id and refused_snapshot(context.project, name) is None:
        return
    from cumulant.data.parts.file_lists import store_file_lists

    record = store_file_lists(snapshot, context.project.tables())
    with context.transaction() as transaction:
        transaction.put(NEWEST, name, msgspec.to_builtins(record))
        transaction.delete(REFUSED, name)


def _stands(context: Context, result: dict[str, object]) -> bool:
    """Whether the snapshot's rows are still stored: a user may have removed them."""
    row = context.project.journal().get(SNAPSHOT, str(result["snapshot"]))
    if row is None:
        return False
    from cumulant.data.snapshot import Snapshot

    snapshot = msgspec.convert(row.value, Snapshot)
    tables = context.project.tables()
    keys = [*(part.key for part in snapshot.parts), *(ref.key for ref in snapshot.file_lists)]
    keys += [] if snapshot.versions is None else [snapshot.versions.key]
    return all(tables.find(key) is not None for key in keys)


def load_snapshot(project: Project, identity: str) -> Snapshot:
    """An accepted snapshot by its id. Raises NotFoundError."""
    row = project.journal().get(SNAPSHOT, identity)
    if row is None:
        raise not_found("snapshot", identity, ())
    return _read(project, row)


def newest_snapshot(project: Project, name: str) -> Snapshot | None:
    """The last accepted snapshot of a source."""
    row = project.journal().get(NEWEST, name)
    return None if row is None else _read(project, row)


def refused_snapshot(project: Project, name: str) -> Snapshot | None:
    """The snapshot that was refused since the last accepted one."""
    row = project.journal().get(REFUSED, name)
    return None if row is None else _read(project, row)


def required_snapshot(project: Project, name: str, *, hint: str, refused: bool = False) -> Snapshot:
    """The last accepted snapshot of a declared source; with `refused` one that was refused since comes first.

    Raises:
        NotFoundError: no such source is declared, or it has no snapshot yet; `hint` says what makes one.
    """
    project.file.source(name)
    snapshot = (refused_snapshot(project, name) if refused else None) or newest_snapshot(project, name)
    if snapshot is None:
        raise NotFoundError(f"there is no snapshot of {name} yet", subject=name, hint=hint)
    return snapshot


def _read(project: Project, row: Row) -> Snapshot:
    from cumulant.data.parts.file_lists import load_file_lists
    from cumulant.data.snapshot import Snapshot

    return load_file_lists(msgspec.convert(row.value, Snapshot), project.tables())


def references(policy: SourcePolicy) -> set[str]:
    """Names of the other sources that a source's rules refer to."""
    return {rule.references.split(".", 1)[0] for rule in policy.spec.rules.values() if rule.references}


def needed_by(declared: Mapping[str, SourcePolicy], name: str, wanted: set[str]) -> bool:
    return any(name in references(declared[other]) for other in wanted)


def in_order(declared: Mapping[str, SourcePolicy]) -> list[str]:
    """Source names such that each comes after the sources its rules refer to.

    Raises:
        UsageError: sources refer to each other in a circle, or to one that is not declared.
    """
    graph = {name: references(policy) - {name} for name, policy in declared.items()}
    for other in sorted(set().union(*graph.values()) - declared.keys()):
        raise not_found("source", other, declared)
    try:
        return [*TopologicalSorter(graph).static_order()]
    except CycleError as error:
        raise UsageError(f"the rules of {', '.join(error.args[1][1:])} refer to each other in a circle") from None
