"""`features backfill`: stored features of a definition, filled beside those that are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.ids import digest, short
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Servable
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.backfill_record import BackfillRecord, record_backfill
from cumulant.flows.features.stored_tables import read_state, table_readers
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.registry.version_servable import describe_servable
from cumulant.flows.serving.serve import materialize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cumulant.core.plan import FeaturePlan
    from cumulant.data.snapshot import Snapshot
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


class Backfill(msgspec.Struct, frozen=True, kw_only=True):
    """The table of a definition. `model`: the version whose it is, null for the project's; `filled`: false where the
    table was there already; `served`: versions that are served, each with its own table.
    """

    run: str
    model: str | None
    table: str
    fingerprint: str
    filled: bool
    keys: int
    events: int
    served: dict[str, str]


@verb("features.materialize")
def backfill(project: Project, *, principal: Principal, model: str = "", progress: Progress = silent) -> Backfill:
    """Fill the stored features of a version, or of the project's definition as it is now, in a table of their own.

    What is served meanwhile keeps its table, which takes up posted rows as before. Where the table of the newest data
    is there, only what was posted since is added. A fill that was killed leaves nothing that is read; the next call
    begins it anew. A version that is trained by the same definition and data finds its table filled.

    Raises:
        NotFoundError: no such model.
        UsageError: the definition needs no stored features, or as `resolve_task`.
        DefinitionError, UserCodeError: of the features file.
        ContractBreachError: the newest data are refused.
    """
    from cumulant.features.online.entity_cache import is_filled  # numpy, which other commands do not load

    with open_run(project, "backfill", principal=principal, progress=progress) as context:
        name, plan, snapshots = _definition(context, model)
        if not plan.needs_state:
            raise UsageError("these features are all of the row itself: nothing is stored of them", subject=name)
        store = project.online()
        present = {table for table in store.tables() if is_filled(store, table)}
        table, _ = materialize(context, plan, snapshots, as_of=None)
        fingerprint = digest(plan)
        if name is None:
            with context.transaction() as transaction:
                record_backfill(transaction, BackfillRecord(plan=fingerprint, table=table, at=context.now()))
        state = read_state(store, table)
        assert state is not None, "the table was filled"
        return Backfill(
            run=context.run,
            model=name,
            table=table,
            fingerprint=short(fingerprint),
            filled=table not in present,
            keys=state.entities,
            events=state.rows,
            served={reader.version: reader.table for reader in table_readers(project)},
        )


def _definition(context: Context, model: str) -> tuple[str | None, FeaturePlan, Mapping[str, Snapshot]]:
    """The name of the version, its definition and the newest data."""
    project = context.project
    if not model:
        snapshots, _ = snapshots_of(context)
        return None, resolve_task(project, snapshots).plan, snapshots
    version = project.registry().resolve(model)
    name = f"{version.name}/{version.version}"
    described = describe_servable(project, version)
    if not isinstance(described, Servable):
        raise UsageError(f"{name} reads tensors: it has no stored features", subject=name)
    snapshots, _ = snapshots_of(context, described.plan.sources)
    return name, described.plan, snapshots
