"""The tables of stored features of a project: what each was filled from, and which servers read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.errors import CumulantError, IntegrityError
from cumulant.core.ids import digest, short
from cumulant.core.plan import FeaturePlan, read_plan
from cumulant.core.servable import Servable
from cumulant.features.offline.groups import fingerprint
from cumulant.features.online.hashed_keys import HashedKeys
from cumulant.features.online.state import STATE_KEY, TableState, decode_state
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.ledger.ledger_records import STEP, StepRecord, read_step
from cumulant.flows.registry.version_servable import open_servable
from cumulant.flows.serving.serve import ONLINE_STATE, USES, state_table
from cumulant.flows.serving.services import list_uses, shared_tables
from cumulant.flows.stack.served_versions import folder_of, stored_table
from cumulant.ports.registry import ModelVersion

if TYPE_CHECKING:
    from cumulant.flows.stack.desired_state import ServedVersion
    from cumulant.ports.online import OnlineStore
    from cumulant.project.project import Project

#: in place of a version that only another machine knows
ELSEWHERE = "a server of another machine"


class FilledTable(NamedTuple):
    """A table that the project filled: of which definition and snapshots (by source), and when that began."""

    name: str
    plan: FeaturePlan
    begun: datetime
    snapshots: dict[str, str]

    @property
    def fingerprint(self) -> str:
        return short(digest(self.plan))


class TableReader(NamedTuple):
    """A version of a model, as `NAME/VERSION`, that reads a table; its definition, None where that cannot be read."""

    version: str
    table: str
    plan: FeaturePlan | None


class Filling(msgspec.Struct, frozen=True, kw_only=True):
    """A filling of a table as the journal has it. `plan` is not read yet: it may be of a newer version of Cumulant.
    `as_of`: the moment whose state it is; None: all that was known.
    """

    table: str = ""
    plan: object
    snapshots: dict[str, str] = {}
    as_of: str | None = None
    begun: datetime | None = None


def fillings(project: Project) -> list[Filling]:
    """What this project filled whole, in the order of time; the store may have lost it since."""
    steps = [read_step(row) for row in project.journal().rows(STEP)]
    filled = [step for step in steps if step.name == ONLINE_STATE and step.status == "done"]
    return [_filling(step) for step in sorted(filled, key=lambda step: step.started)]


def _filling(step: StepRecord) -> Filling:
    inputs = msgspec.convert(step.inputs, Filling)
    return msgspec.structs.replace(inputs, table=inputs.table or state_table(step.inputs), begun=step.started)


def filled_tables(project: Project, *, every: bool = False) -> list[FilledTable]:
    """What this project filled whole, the newest first, each table once; the store may have lost it since. `every`:
    each filling.
    """
    tables = list[FilledTable]()
    names = set[str]()
    for filling in reversed(fillings(project)):
        if filling.table in names and not every:
            continue
        names.add(filling.table)
        try:
            plan = read_plan(filling.plan)
        except (msgspec.ValidationError, IntegrityError):  # of a version of Cumulant that this one cannot read
            continue
        assert filling.begun is not None
        tables.append(FilledTable(filling.table, plan, filling.begun, filling.snapshots))
    return tables


def table_readers(project: Project) -> list[TableReader]:
    """Versions that are served with stored features: those of the desired state, and those of `cumulant serve`.

    Raises:
        CumulantError: the desired state cannot be read.
    """
    readers = {reader.version: reader for reader in _deployed(project)}
    for use in list_uses(project.state / USES):
        folder = Path(use.folder)
        version = f"{folder.parent.name}/{folder.name.rpartition('-')[0]}"
        if use.table is not None and version not in readers:
            readers[version] = TableReader(version, use.table, _plan_of(folder))
    known = {reader.table for reader in readers.values()}
    elsewhere = [TableReader(ELSEWHERE, table, None) for table in sorted(shared_tables(project) - known)]
    return [*readers.values(), *elsewhere]


def state_fingerprint(project: Project, plan: FeaturePlan) -> str:
    """Of the windows and lookups, as the state of a table has it."""
    return fingerprint(HashedKeys.of(plan, project.salt).plan)


def read_state(store: OnlineStore, table: str) -> TableState | None:
    """The state of a table; None where there is none.

    Raises:
        IntegrityError: it cannot be read.
    """
    (blob,) = store.get(table, [STATE_KEY])
    try:
        return None if blob is None else decode_state(blob)
    except msgspec.MsgspecError as error:
        raise IntegrityError(f'the online state in "{table}" cannot be read', subject=table) from error


def newest_filling(tables: Iterable[FilledTable], plan: FeaturePlan) -> FilledTable | None:
    """The table that was filled last with the same definition."""
    return next((table for table in tables if table.fingerprint == short(digest(plan))), None)


def _deployed(project: Project) -> Iterator[TableReader]:
    for served in deployment_of(project).read(project.name).versions.values():
        if (table := stored_table(served)) is not None:
            yield TableReader(f"{project.name}/{served.version}", table, _deployed_plan(project, served))


def _deployed_plan(project: Project, served: ServedVersion) -> FeaturePlan | None:
    if served.command and (folder := Path(folder_of(served.command))).is_dir():
        return _plan_of(folder)
    if served.spec is None or not served.spec.servable:
        return None
    tags = {"cumulant.servable": served.spec.servable}
    uri = f"{project.name}/{served.version}"
    version = ModelVersion(
        name=project.name, version=served.version, uri=uri, run_id=None, created=datetime.now(UTC), tags=tags
    )
    try:
        with open_servable(project, version) as opened:
            return _plan_of(opened)
    except CumulantError:
        return None


def _plan_of(folder: Path) -> FeaturePlan | None:
    from cumulant.servable.folder import load_description

    try:
        described = load_description(folder, verify=False)
    except CumulantError:
        return None
    return described.plan if isinstance(described, Servable) else None
