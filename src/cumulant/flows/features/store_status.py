"""Stored features as they are: which versions read which table, how fresh it is, and whether it fits them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import IntegrityError
from cumulant.core.ids import digest, short
from cumulant.core.units import from_micros
from cumulant.features.offline.groups import groups_of
from cumulant.features.online.state import FORMAT, TableState
from cumulant.flows.features.stored_tables import (
    FilledTable,
    TableReader,
    filled_tables,
    read_state,
    state_fingerprint,
    table_readers,
)
from cumulant.flows.ledger.actions import verb
from cumulant.flows.serving.serve import FILLED

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.data.policy import SourcePolicy
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


class StoredSource(msgspec.Struct, frozen=True, kw_only=True):
    """The events of a source in a table: time and age in seconds of the newest, null where the table does not say it.

    `objective`: the most that the age may be, in seconds; null: none is declared. `stale`: it is more.
    """

    source: str
    owner: str
    newest: datetime | None
    staleness: float | None
    objective: float | None
    stale: bool


class TableFault(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a table that is served, and the command to run next."""

    sentence: str
    next: str


class StoredTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table of stored features.

    `versions`: registered versions of the same definition; `served`: those that are served from it; `fingerprint`: of
    the definition that it was filled by, as the prediction log has it; `generation`: of its content when it was filled;
    `keys`, `events`: stored then. What the store says is null where it does not have the table.
    """

    table: str
    versions: tuple[str, ...]
    served: tuple[str, ...]
    fingerprint: str | None
    generation: str | None
    filled: datetime | None
    as_of: datetime | None
    keys: int | None
    events: int | None
    sources: tuple[StoredSource, ...]
    faults: tuple[TableFault, ...]

    @property
    def lost(self) -> bool:
        """Whether it is served and the store does not have it, or not in a form that can be read."""
        return bool(self.served) and self.generation is None


class FeatureStoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All tables of a project's stored features at a moment, those that are served first."""

    model: str
    at: datetime
    tables: tuple[StoredTable, ...]

    @property
    def faulty(self) -> bool:
        """Whether a table that is served does not fit its version, or is older than its objective."""
        return any(table.faults or (table.served and _stale(table)) for table in self.tables)


@verb("features.status")
def feature_status(project: Project, *, principal: Principal, clock: Clock | None = None) -> FeatureStoreStatus:
    """The stored features of the project.

    Raises:
        EngineUnavailableError: the online store does not answer.
        CumulantError: the journal, or the desired state, cannot be read.
    """
    return read_status(project, (clock or SystemClock()).now(), registered=_registered(project))


def read_status(
    project: Project, now: datetime, *, registered: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> FeatureStoreStatus:
    """As `feature_status`, for flows that were allowed. `registered`: versions by the digest of their definition."""
    readers, filled = table_readers(project), {table.name: table for table in filled_tables(project)}
    by_table: dict[str, list[TableReader]] = {}
    for reader in readers:
        by_table.setdefault(reader.table, []).append(reader)
    present = set(project.online().tables())
    names = [*by_table, *(name for name in filled if name in present and name not in by_table)]
    tables = tuple(
        _table(project, _TableUses(name, filled.get(name), by_table.get(name, [])), now, registered) for name in names
    )
    return FeatureStoreStatus(model=project.name, at=now, tables=tables)


class _TableUses(NamedTuple):
    """A table, how it was filled (None: by another project, or lost), and what is served from it."""

    name: str
    filled: FilledTable | None
    readers: Sequence[TableReader]


def _registered(project: Project) -> Mapping[str, Sequence[str]]:
    """Registered versions, as `NAME/VERSION`, by the digest of their definition."""
    registry, versions = project.registry(), dict[str, list[str]]()
    for name in registry.models():
        for version in registry.versions(name):
            definition = version.tags.get("cumulant.features", "")
            versions.setdefault(definition, []).append(f"{name}/{version.version}")
    return versions


def _table(project: Project, uses: _TableUses, now: datetime, registered: Mapping[str, Sequence[str]]) -> StoredTable:
    name, filled, readers = uses
    plan = filled.plan if filled is not None else next((each.plan for each in readers if each.plan), None)
    faults, state = list[TableFault](), None
    try:
        state = read_state(project.online(), name)
    except IntegrityError as error:
        faults.append(TableFault(sentence=error.message, next="cumulant tick"))
    else:
        faults += _faults(project, name, state, readers)
    table = StoredTable(
        table=name,
        versions=() if plan is None else tuple(registered.get(digest(plan), ())),
        served=tuple(reader.version for reader in readers),
        fingerprint=None if plan is None else short(digest(plan)),
        generation=None,
        filled=None,
        as_of=None,
        keys=None,
        events=None,
        sources=tuple(_sources(project, plan, {}, now)) if readers else (),
        faults=tuple(faults),
    )
    if state is None:
        return table
    return msgspec.structs.replace(
        table,
        generation=state.generation,
        filled=_filled(project, name),
        as_of=None if state.as_of_us is None else from_micros(state.as_of_us),
        keys=state.entities,
        events=state.rows,
        sources=tuple(_sources(project, plan, state.newest, now)),
    )


def _faults(
    project: Project, name: str, state: TableState | None, readers: Sequence[TableReader]
) -> Iterator[TableFault]:
    """Why the servers of a table cannot read it."""
    if not readers:
        return
    versions = ", ".join(reader.version for reader in readers)
    if state is None:
        sentence = f"the online store does not have the table {name}, which {versions} reads"
        yield TableFault(sentence=sentence, next="cumulant tick")
        return
    if state.format != FORMAT:
        sentence = f"the table has format {state.format}, and this version of Cumulant reads {FORMAT}"
        yield TableFault(sentence=sentence, next="cumulant tick")
        return
    for reader in readers:
        if reader.plan is not None and state_fingerprint(project, reader.plan) != state.fingerprint:
            sentence = f"{reader.version} has other windows and lookups than the table was filled for"
            yield TableFault(sentence=sentence, next=f"cumulant features backfill {reader.version}")


def _filled(project: Project, table: str) -> datetime | None:
    text = project.online().meta(table).get(FILLED, "")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _sources(
    project: Project, plan: FeaturePlan | None, newest: Mapping[str, int], now: datetime
) -> Iterator[StoredSource]:
    names = newest.keys() if plan is None else {group.source for group in groups_of(plan)}
    policies, owner = project.policies.sources, project.policies.model.owner
    for name in sorted(names):
        at = newest.get(name)
        yield judge_source(name, None if at is None else from_micros(at), policies.get(name), now, owner=owner)


def judge_source(
    name: str, newest: datetime | None, policy: SourcePolicy | None, now: datetime, *, owner: str
) -> StoredSource:
    """The freshness of a source's events. An age that is not known misses no objective."""
    objective = None if policy is None else policy.freshness
    age = None if newest is None else max(now - newest, timedelta())
    return StoredSource(
        source=name,
        owner=owner if policy is None else policy.spec.owner or owner,
        newest=newest,
        staleness=None if age is None else age.total_seconds(),
        objective=None if objective is None else objective.total_seconds(),
        stale=objective is not None and age is not None and age > objective,
    )


def _stale(table: StoredTable) -> bool:
    return any(source.stale for source in table.sources)
