"""The stored state of one key of a model: shown and repaired."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.errors import RefusedError, UsageError
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Servable
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.features.feature_table import deletions, scans, used_sources
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.registry.version_servable import describe_servable
from cumulant.flows.serving.servable_copies import served_folder
from cumulant.flows.serving.serve import USES, materialize
from cumulant.flows.serving.services import list_uses
from cumulant.ports.deploy import STATE_TABLE

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.data.snapshot import Snapshot
    from cumulant.features.online.repair import StoredKey
    from cumulant.ports.access import Principal
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project


class RepairedKey(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted, and what is stored of the key now."""

    rows: int
    entities: int
    stored: tuple[StoredKey, ...]


@verb("features.show_key", of="uri", personal=True)
def show_key(
    project: Project,
    uri: str,
    key: Mapping[str, object],
    *,
    principal: Principal,
    newest: int = 10,
    progress: Progress = silent,
) -> tuple[StoredKey, ...]:
    """What is stored of the key for the windows and lookups of a model, in the table that its servers read.

    Raises:
        NotFoundError: no such model.
        UsageError: no window or lookup is by these columns.
        ConflictError: nothing is stored of the model yet.
    """
    with open_run(project, "stored key", writes=False, principal=principal, progress=progress):
        from cumulant.features.online.hashed_keys import HashedKeys
        from cumulant.features.online.online import OnlineFeatures
        from cumulant.features.online.repair import read_key
        from cumulant.flows.features.online_read import stored_definition

        stored = stored_definition(project, uri)
        hashed = HashedKeys.of(stored.plan, project.salt)
        OnlineFeatures(hashed.plan, project.online(), stored.table).catch_up()  # what was posted, as a server sees it
        return read_key(
            hashed.plan, project.online(), stored.table, hashed.key(key), now=datetime.now(UTC), newest=newest
        )


@verb("features.forget", of="uri", personal=True)
def forget_key(
    project: Project,
    uri: str,
    key: Mapping[str, object],
    *,
    principal: Principal,
    after: datetime | None = None,
    progress: Progress = silent,
) -> RepairedKey:
    """Delete what was posted of the key (`after`: what of it is dated later), and make its state again from the data.

    A server that runs reads the new state with its next request. Tables of other versions keep what they took in.

    Raises:
        NotFoundError, UsageError: as `show_key`.
        RefusedError: a server reads another state of the model, which was made from earlier data.
    """
    with open_run(project, "forget key", principal=principal, progress=progress) as context:
        from cumulant.features.events import KeyForgotten
        from cumulant.features.online.hashed_keys import HashedKeys
        from cumulant.features.online.repair import forget_key, read_key

        state = _state(context, uri)
        plan, table, store = state.plan, state.table, project.online()
        check_served(project, state.version, table)
        frames = scans(project, state.snapshots, used_sources(plan, state.snapshots), as_of=None)
        gone = deletions(project, plan, state.snapshots, as_of=None)
        hashed = HashedKeys.of(plan, project.salt)
        plan, key = hashed.plan, hashed.key(key)
        done = forget_key(plan, hashed.frames(frames), store, table, key, after=after, deletions=hashed.frames(gone))
        context.emit(KeyForgotten(table=table, by=tuple(key), rows=done.rows, entities=done.entities))
        stored = read_key(plan, store, table, key, now=datetime.now(UTC))
        return RepairedKey(rows=done.rows, entities=done.entities, stored=stored)


def check_served(project: Project, version: ModelVersion, table: str) -> None:
    """Rows that are gone from the log could not be taken out of a state that still holds them any more."""
    folder = served_folder(project, version)
    served = {use.table for use in list_uses(project.state / USES) if Path(use.folder) == folder}
    servers = deployment_of(project).present(project.name) if version.name == project.name else ()
    served |= {server.arguments.get(STATE_TABLE) for server in servers if server.version == version.version}
    if other := sorted(str(served_table) for served_table in served - {None, table}):
        raise RefusedError(
            f"a server reads the state {', '.join(other)}, which was made from earlier data than that of now",
            subject=table,
            hint="release a version that was trained since, or serve the model anew, and then repair the key",
        )


class _State(NamedTuple):
    """A version and its plan, the table of its state, and the snapshots that this is of."""

    version: ModelVersion
    plan: FeaturePlan
    table: str
    snapshots: Mapping[str, Snapshot]


def _state(context: Context, uri: str) -> _State:
    """The state of a model, filled where it is not yet."""
    project = context.project
    version = project.registry().resolve(uri)
    described = describe_servable(project, version)
    if not isinstance(described, Servable) or not described.plan.needs_state:
        raise UsageError(f"{uri} has no stored state: its features are all of the row itself", subject=uri)
    snapshots, _ = snapshots_of(context, described.plan.sources)
    table, _ = materialize(context, described.plan, snapshots, as_of=None)
    return _State(version, described.plan, table, snapshots)
