"""Direct reads of stored features: of entities at a moment, for a version of a model or the project's definition."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cumulant.core.clock import SystemClock
from cumulant.core.errors import (
    ConflictError,
    CumulantError,
    NotFoundError,
    RequestError,
    UsageError,
)
from cumulant.core.ids import digest, short
from cumulant.core.masking import mask
from cumulant.core.servable import Servable
from cumulant.features.definition.personal_features import personal_features
from cumulant.features.online.direct_reads import MOST_KEYS, EntityFeatures, ReadPlan, TimeToLive, read_entities
from cumulant.features.online.hashed_keys import HashedKeys
from cumulant.features.online.state import CacheBusyError
from cumulant.flows.deployment.versions import champion_uri
from cumulant.flows.features.stored_tables import filled_tables, newest_filling, table_readers
from cumulant.flows.ledger.actions import check, permits, verb
from cumulant.flows.registry.version_servable import describe_servable

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.features.online.online import OnlineFeatures
    from cumulant.ports.access import Principal
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project

#: seconds for which a server knows which table a model reads, and definitions of which it keeps entities
_KNOWN_SECONDS, _DEFINITIONS = 5.0, 4
#: seconds after which it reads that again, while requests go on with what is known
_RENEWED_SECONDS = 2.5
#: kinds of reads of a definition of which it keeps what they have in common
_READS = 32
#: seconds after a failure until it tries again
_RETRY_SECONDS = 1.0
#: keys that an event loop reads itself: 16 that are not cached, of 1,000 events each, take it some 4 ms
_KEYS_AT_ONCE = 16
#: bytes of decoded entities that are kept of a definition
_CACHE_BYTES = 32 * 2**20


class OnlineRead(msgspec.Struct, frozen=True, kw_only=True):
    """Features of entities: each of `rows` for the key at its place. `model`: the version whose they are, null for the
    project's definition; `fingerprint`: of the definition; `missing`: features that need further fields, by name. `at`:
    the moment; null where the keys name several, each of which is in its row.
    """

    model: str | None
    fingerprint: str
    table: str
    at: datetime | None
    rows: tuple[EntityFeatures, ...]
    missing: dict[str, tuple[str, ...]] = {}


class OnlineReadRequest(NamedTuple):
    """What is read. `keys`: fields of a request by name, the same for each; `at`: None for now; `fingerprint`: that the
    definition must have, or the beginning of it; `definition`: the project's, whatever is served; `own_rows`: as rows
    of predictions, which count in their own windows.
    """

    keys: Sequence[Mapping[str, Any]]
    at: datetime | None = None
    fingerprint: str = ""
    definition: bool = False
    own_rows: bool = False


class StoredDefinition(msgspec.Struct, frozen=True, dict=True):
    """A definition with the table of its stored features."""

    model: str | None
    plan: FeaturePlan
    table: str

    @cached_property
    def fingerprint(self) -> str:
        return short(digest(self.plan))

    @cached_property
    def personal(self) -> bool:
        """Whether a column is personal, so that each read is an event."""
        return any(field.personal for source in self.plan.sources.values() for field in source.fields)


class _PreparedRead(NamedTuple):
    """What all reads of a definition by the same fields have in common. `masked`: features that are shown as hashes."""

    reading: ReadPlan
    hashed: HashedKeys
    masked: frozenset[str]


class _KnownDefinition:
    """A definition as it was read at a moment, and reads of it by their fields and `own_rows`."""

    def __init__(self, definition: StoredDefinition, at: float) -> None:
        self.definition, self.at = definition, at
        self.reads: dict[tuple[tuple[str, ...], bool], _PreparedRead] = {}


class FeatureReaders:
    """What a server keeps between reads of a project: the tables of models, for seconds, and entities. Thread-safe.

    With a definition goes what follows from it: which features the fields of a key give, and the salt of hashed keys.
    """

    def __init__(self, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady, self._lock = steady, threading.Lock()
        self._definitions: dict[tuple[str, bool], _KnownDefinition] = {}
        #: from when on a definition may be renewed, where another thread does it or it failed
        self._renewals: dict[tuple[str, bool], float] = {}
        self._readers: OrderedDict[tuple[str, str, bool], OnlineFeatures] = OrderedDict()

    def knows(self, model: str, *, own: bool) -> StoredDefinition | None:
        """The definition that a read is of, where nothing has to be read for it."""
        known = self._definitions.get((model, own))
        return None if known is None or self._age(known) >= _KNOWN_SECONDS else known.definition

    def takes_renewal(self, model: str, *, own: bool) -> bool:
        """Whether the caller is to call `renew`: the definition is known, but soon no more, and no other thread reads
        it, or has failed to a moment ago.
        """
        known = self._definitions.get((model, own))
        if known is None or not _RENEWED_SECONDS <= self._age(known) < _KNOWN_SECONDS:
            return False
        with self._lock:
            due = self._renewals.get((model, own), 0.0) <= self._steady()
            if due:
                self._renewals[model, own] = math.inf
        return due

    def renew(self, project: Project, model: str, *, own: bool) -> None:
        """Read a definition again, so that no request waits for it. Where that fails, the next request does it."""
        try:
            with suppress(CumulantError):
                self._read(project, model, own=own)
        finally:
            self._renewals[model, own] = self._steady() + _RETRY_SECONDS

    def definition(self, project: Project, model: str, *, own: bool) -> StoredDefinition:
        """The definition that a read is of. Raises: as `read_features`."""
        return self.knows(model, own=own) or self._read(project, model, own=own)

    def _read(self, project: Project, model: str, *, own: bool) -> StoredDefinition:
        begun = self._steady()  # what changes while it is read may be missing from it
        definition = _project_definition(project) if own else stored_definition(project, model)
        with self._lock:
            known = {key: each for key, each in self._definitions.items() if self._age(each) < _KNOWN_SECONDS}
            latest = known.get((model, own))
            if latest is None or latest.at <= begun:  # a slow read does not undo a later one
                known[model, own] = _KnownDefinition(definition, begun)
            self._definitions = known
        return definition

    def _age(self, known: _KnownDefinition) -> float:
        return self._steady() - known.at

    def prepared(
        self, project: Project, definition: StoredDefinition, read: OnlineReadRequest, model: str
    ) -> _PreparedRead:
        """What the read has in common with others. Raises RequestError."""
        known = self._definitions.get((model, read.definition))
        key = (_fields(read.keys), read.own_rows)
        prepared = None if known is None or known.definition is not definition else known.reads.get(key)
        if prepared is None:
            plan = definition.plan
            reading = ReadPlan(plan, key[0], own_rows=read.own_rows)
            hashed = HashedKeys.of(plan, project.salt)
            prepared = _PreparedRead(reading, hashed, personal_features(plan) & {*reading.features})
            if known is not None and known.definition is definition:
                if len(known.reads) >= _READS:  # callers choose the fields
                    known.reads.clear()
                known.reads[key] = prepared
        return prepared

    def reader(
        self, project: Project, definition: StoredDefinition, plan: FeaturePlan, *, own_rows: bool
    ) -> OnlineFeatures:
        """The reader of a table; `plan`: with hashes in place of personal keys."""
        from cumulant.features.online.online import OnlineFeatures  # numpy, which other commands do not load

        key = (definition.fingerprint, definition.table, own_rows)
        with self._lock:
            reader = self._readers.get(key)
            if reader is None:
                reader = OnlineFeatures(
                    plan, project.online(), definition.table, cache_bytes=_CACHE_BYTES, own_rows=own_rows
                )
                self._readers[key] = reader
            self._readers.move_to_end(key)
            while len(self._readers) > _DEFINITIONS:
                self._readers.popitem(last=False)
            return reader


@verb("features.read", of="model")
def read_features(
    project: Project,
    read: OnlineReadRequest,
    *,
    principal: Principal,
    model: str = "",
    readers: FeatureReaders | None = None,
) -> OnlineRead:
    """Features of entities from the online store, as of a moment, by default now: windows end there to the microsecond.

    Of a model that is served, from the table that its servers read. Features at a moment before what is stored of a key
    begins are null, and in `incomplete`: rows were corrected since (`on_repeat: latest`), or are dropped. A read of a
    definition with personal columns is an event. Features that would show a personal value are keyed hashes. `model`:
    as `read.model`, whose use is checked.

    Raises:
        NotFoundError: no such model.
        ConflictError: the definition has another fingerprint than the caller expects, or nothing is stored of it yet.
        RequestError: a field has no such name, a value does not fit it, the moment is before the table begins, or a key
            names another moment than `read.at`.
        RefusedError: an entity is older than its `ttl`, which refuses.
        UsageError: the model has no stored features; or both a model and the project's definition are named.
        EngineUnavailableError: the online store does not answer.
    """
    if model and read.definition:
        raise UsageError(
            f"a read is of the features of {model} or of the project's definition, not of both",
            subject=model,
            hint="leave out the model (`--model`), or `--definition`",
        )
    readers = readers or FeatureReaders()
    definition = readers.definition(project, model, own=read.definition)
    if definition.personal:
        check(project, principal, "features.read", model=model, personal=True)
    return _read(project, read, definition, model, readers)


def read_at_once(
    project: Project, read: OnlineReadRequest, *, principal: Principal, model: str, readers: FeatureReaders
) -> OnlineRead | None:
    """As `read_features`, for an event loop: None where something has to be waited for: a definition that is not known,
    an event to write (of personal columns, of a refusal), a store over a network, another thread that reads entities,
    many keys.
    """
    definition = readers.knows(model, own=read.definition)
    if definition is None or definition.personal or project.online().remote or len(read.keys) > _KEYS_AT_ONCE:
        return None
    if not permits(project, principal, "features.read", model=model):
        return None
    with suppress(CacheBusyError):
        return _read(project, read, definition, model, readers, wait=False)
    return None


def _read(
    project: Project,
    read: OnlineReadRequest,
    definition: StoredDefinition,
    model: str,
    readers: FeatureReaders,
    *,
    wait: bool = True,
) -> OnlineRead:
    if read.fingerprint and not definition.fingerprint.startswith(read.fingerprint[: len(definition.fingerprint)]):
        raise ConflictError(
            f"the definition of {definition.model or 'the project'} has the fingerprint {definition.fingerprint}, not "
            f"{read.fingerprint}",
            subject=read.fingerprint,
            hint="its features are others than those that the caller was made for; cumulant features status",
        )
    reading, hashed, masked = readers.prepared(project, definition, read, model)
    online = readers.reader(project, definition, hashed.plan, own_rows=read.own_rows)
    at = read.at or SystemClock().now()
    requests = hashed.requests(reading.rows(read.keys, at))
    rows = read_entities(reading, online, requests, _lives(project), read.at, wait=wait)
    return OnlineRead(
        model=definition.model,
        fingerprint=definition.fingerprint,
        table=definition.table,
        at=at if reading.dated_by is None else _common_moment(rows),
        rows=_masked(rows, masked, project.salt),
        missing=reading.missing,
    )


def _common_moment(rows: tuple[EntityFeatures, ...]) -> datetime | None:
    """The moment that all rows name; None where they name several, or some none."""
    moments = {row.at for row in rows}
    return moments.pop() if len(moments) == 1 else None


def _fields(keys: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of the fields of keys."""
    if not 0 < len(keys) <= MOST_KEYS:
        raise RequestError(f"a read is of 1 to {MOST_KEYS:,} keys, not {len(keys):,}", subject="keys")
    if len(set(map(frozenset, keys))) > 1:
        raise RequestError("the keys of one read have the same fields", subject="keys", hint="read others apart")
    return tuple(keys[0])


def _lives(project: Project) -> dict[str, TimeToLive]:
    return {
        name: TimeToLive(policy.ttl, policy.spec.on_expired == "refuse")
        for name, policy in project.policies.sources.items()
        if policy.ttl is not None
    }


def _masked(
    rows: tuple[EntityFeatures, ...], masked: frozenset[str], salt: Callable[[], bytes]
) -> tuple[EntityFeatures, ...]:
    if not masked:
        return rows
    key = salt()
    return tuple(
        msgspec.structs.replace(
            row,
            features={
                name: mask(value, key) if name in masked and value is not None else value
                for name, value in row.features.items()
            },
        )
        for row in rows
    )


def stored_definition(project: Project, uri: str) -> StoredDefinition:
    """The table that a model's servers read, else the one that was filled last with its definition.

    Raises:
        NotFoundError: no such model.
        UsageError: the model has no stored features.
        ConflictError: nothing is stored of it yet.
    """
    version = _resolve(project, uri)
    name = f"{version.name}/{version.version}"
    served = next((reader for reader in table_readers(project) if reader.version == name and reader.plan), None)
    if served is not None and served.plan is not None:
        return StoredDefinition(name, served.plan, served.table)
    described = describe_servable(project, version, verify=False)
    if not isinstance(described, Servable):
        raise UsageError(f"{name} reads tensors: it has no stored features", subject=name)
    return _filled(project, name, described.plan)


def _resolve(project: Project, uri: str) -> ModelVersion:
    """Raises NotFoundError: no such version, or without `uri` none that serves by default."""
    if uri:
        return project.registry().resolve(uri)
    try:
        return project.registry().resolve(champion_uri(project))
    except NotFoundError as error:
        hint = "`--model NAME/VERSION` reads a refused version's, `--definition` those of the features file"
        hint = f"`cumulant train` makes a version; {hint}"
        raise NotFoundError(error.message, subject=error.subject, hint=hint) from None


def _project_definition(project: Project) -> StoredDefinition:
    """Raises also DefinitionError, UserCodeError: of the features file."""
    return _filled(project, None, defined_plan(project))


def defined_plan(project: Project) -> FeaturePlan:
    """The project's definition over its newest accepted snapshots.

    Raises:
        NotFoundError: a source was not read yet.
        UsageError, DefinitionError, UserCodeError: as `resolve_task`.
    """
    from cumulant.flows.data.validate import required_snapshot
    from cumulant.flows.features.task import resolve_task

    sources = project.policies.sources
    snapshots = {name: required_snapshot(project, name, hint=project.line(f"data validate {name}")) for name in sources}
    return resolve_task(project, snapshots).plan


def _filled(project: Project, model: str | None, plan: FeaturePlan) -> StoredDefinition:
    if not plan.needs_state:
        raise UsageError("these features are all of the row itself: nothing is stored of them", subject=model)
    table = newest_filling(filled_tables(project), plan)
    if table is None:
        what, command = (model, f" {model}") if model else ("the project's definition", "")
        hint = f"fill it: {project.line(f'features backfill{command}')}"
        raise ConflictError(f"nothing is stored of {what} yet", subject=model, hint=hint)
    return StoredDefinition(model, plan, table.name)
