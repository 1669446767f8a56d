"""Features: what they are, their values, and what is stored of a key for serving."""

from __future__ import annotations

import asyncio
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

import msgspec

from cumulant.core.plan import Field
from cumulant.data.masking import mask_frame
from cumulant.features.definition.tiers import Tier
from cumulant.flows.features.backfill import Backfill
from cumulant.flows.features.backfill import backfill as run_backfill
from cumulant.flows.features.feature_table import featurize
from cumulant.flows.features.freshness import FreshnessReport, show_freshness
from cumulant.flows.features.jobs.job_control import StartedJob, StoppedJob
from cumulant.flows.features.jobs.job_status import JobStatus
from cumulant.flows.features.jobs.job_status import job_status as show_jobs
from cumulant.flows.features.jobs.run_job import start_job as run_job
from cumulant.flows.features.jobs.run_job import stop_jobs
from cumulant.flows.features.online_read import OnlineRead, OnlineReadRequest, read_at_once, read_features
from cumulant.flows.features.store_status import FeatureStoreStatus, feature_status
from cumulant.flows.features.verification_record import FeatureVerification
from cumulant.flows.project.planning import plan
from cumulant.flows.reports.feature_texts import definition, kind, personal
from cumulant.flows.serving.serve import prepare_service
from cumulant.flows.serving.stored_keys import forget_key, show_key
from cumulant.ports.registry import ModelVersion
from cumulant.server.operation import MOST_ITEMS, ApiCall, get, post
from cumulant.server.pages import check_limit


class FeatureSummary(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    dtype: str
    kind: str
    definition: str
    description: str | None
    owner: str | None
    tags: tuple[str, ...]
    #: what computes it from raw rows
    tier: Tier
    #: of the tier `batch`: the Python functions whose results it reads
    functions: tuple[str, ...]


class FeatureList(msgspec.Struct, frozen=True, kw_only=True):
    """`request`: what a prediction request carries."""

    entity: str
    predict_at: str | None
    features: list[FeatureSummary]
    request: list[Field]


@get("/features", action="features.show")
def list_(call: ApiCall) -> FeatureList:
    """Show every feature: its type, what it is, and what a request carries."""
    call.check()
    planned = plan(call.project, principal=call.principal, checks=False, progress=call.progress)
    summaries = [
        FeatureSummary(
            name=feature.name,
            dtype=str(feature.dtype),
            kind=kind(feature),
            definition=definition(feature),
            description=feature.description,
            owner=feature.owner,
            tags=tuple(feature.tags),
            tier="batch" if feature.name in planned.batch_only else "everywhere",
            functions=planned.batch_only.get(feature.name, ()),
        )
        for feature in planned.features.features
    ]
    return FeatureList(
        entity=planned.entity,
        predict_at=None if planned.predict_at is None else str(planned.predict_at),
        features=summaries,
        request=list(planned.features.request),
    )


class ValuesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rows`: how many rows to show; `as_of`: as it would have been at that moment; null: now."""

    rows: int = 10
    as_of: datetime | None = None


class FeatureValues(msgspec.Struct, frozen=True, kw_only=True):
    """The feature table, brought up to date: its first rows in `values`, personal values as keyed hashes.

    `reused`: nothing was computed; `computed_of`: in words, what was.
    """

    run: str
    rows: int
    rows_computed: int
    features: tuple[str, ...]
    table: str
    reused: bool
    computed_of: str | None
    columns: list[str]
    values: list[dict[str, Any]]


@post("/features/values", action="features.compute", long=True, personal=True)
def values(call: ApiCall, body: ValuesBody) -> FeatureValues:
    """Bring the feature table up to date, and show its first rows."""
    limit, project = check_limit(body.rows), call.project
    computed = featurize(project, principal=call.principal, as_of=body.as_of, progress=call.progress)
    frame = project.tables().scan(computed.table).head(limit).collect()
    shown = mask_frame(frame, personal(computed.plan), project.salt())
    return FeatureValues(
        run=computed.run,
        rows=computed.rows,
        rows_computed=computed.rows_computed,
        features=tuple(computed.plan.names),
        table=computed.table.key,
        reused=computed.reused,
        computed_of=computed.computed_of,
        columns=shown.columns,
        values=shown.to_dicts(),
    )


class KeyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`key`: values by column, in the body so that they are in no log of addresses; `model`: empty: the champion.
    `rows`: how many of the newest events.
    """

    key: dict[str, Any]
    model: str = ""
    rows: Annotated[int, msgspec.Meta(ge=1, le=MOST_ITEMS)] = 10


class StoredKeyEvent(msgspec.Struct, frozen=True, kw_only=True):
    """When an event became known, and the values that windows read of it."""

    known: datetime
    values: dict[str, Any]


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """Stored state of a key for some windows and lookups. `future`: of the `events`, those that become known after now;
    `since`: moments before it are answered from what remains.
    """

    source: str
    key: dict[str, Any]
    features: tuple[str, ...]
    events: int
    future: int
    since: datetime | None
    newest: tuple[StoredKeyEvent, ...]


@post("/features/stored", action="features.show_key", long=True, personal=True)
def stored(call: ApiCall, body: KeyBody) -> list[KeyState]:
    """Show what is stored of a key for the windows and lookups of a model, with the newest events and their moments."""
    states = show_key(
        call.project,
        _uri(call, body.model),
        body.key,
        principal=call.principal,
        newest=body.rows,
        progress=call.progress,
    )
    return [_state(state) for state in states]


class ForgetBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: only what is dated later; null: all that was posted."""

    key: dict[str, Any]
    model: str = ""
    after: datetime | None = None


class ForgottenKey(msgspec.Struct, frozen=True, kw_only=True):
    """`rows`: posted ones that were deleted; `entities`: whose state was made again; `stored`: of the key now."""

    rows: int
    entities: int
    stored: tuple[KeyState, ...]


@post("/features/forget", action="features.forget", long=True, personal=True)
def forget(call: ApiCall, body: ForgetBody) -> ForgottenKey:
    """Delete what was posted of a key, and make its stored state again from the data."""
    repaired = forget_key(
        call.project,
        _uri(call, body.model),
        body.key,
        principal=call.principal,
        after=body.after,
        progress=call.progress,
    )
    stored_now = tuple(_state(state) for state in repaired.stored)
    return ForgottenKey(rows=repaired.rows, entities=repaired.entities, stored=stored_now)


@get("/features/status", action="features.status")
def status(call: ApiCall) -> FeatureStoreStatus:
    """Show the tables of stored features: versions, keys and events, freshness, and whether they fit what is served."""
    return feature_status(call.project, principal=call.principal)


@get("/features/freshness", action="features.status")
def freshness(call: ApiCall) -> FreshnessReport:
    """Show how old the newest stored event of each source is, and whether its freshness objective is met."""
    return show_freshness(call.project, principal=call.principal)


class OnlineBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keys`: fields of a request by name, the same for each of at most 1,000 entities, in the body so that they are in
    no log of addresses. `at`: null: now. `model`: empty: the champion; `definition`: of the project in its place.
    `fingerprint`: that the definition must have; another one is a conflict. `own_rows`: the keys are whole rows of
    predictions, which count in their own windows.
    """

    keys: list[dict[str, Any]]
    at: datetime | None = None
    model: str = ""
    definition: bool = False
    fingerprint: str = ""
    own_rows: bool = False


def _online_at_once(call: ApiCall, body: OnlineBody) -> OnlineRead | None:
    """As `online`, where it waits for nothing. A definition that is soon read again is so by a thread, meanwhile."""
    if call.memory is None:
        return None
    readers = call.memory.features
    answer = read_at_once(call.project, _read(body), principal=call.principal, model=body.model, readers=readers)
    if answer is not None and readers.takes_renewal(body.model, own=body.definition):
        renew = partial(readers.renew, call.project, body.model, own=body.definition)
        asyncio.get_running_loop().run_in_executor(None, renew)
    return answer


@post("/features/online", action="features.read", personal=True, at_once=_online_at_once)
def online(call: ApiCall, body: OnlineBody) -> OnlineRead:
    """Read features of entities from the online store, as of a moment: values, staleness and fingerprint."""
    readers = None if call.memory is None else call.memory.features
    return read_features(call.project, _read(body), principal=call.principal, model=body.model, readers=readers)


def _read(body: OnlineBody) -> OnlineReadRequest:
    return OnlineReadRequest(
        body.keys, at=body.at, fingerprint=body.fingerprint, definition=body.definition, own_rows=body.own_rows
    )


class MaterializeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model`: empty: the project's; `as_of`: state as of that moment; null: all that is known."""

    model: str = ""
    as_of: datetime | None = None


class MaterializedState(msgspec.Struct, frozen=True, kw_only=True):
    """`table`: of the stored state; null where the model needs none."""

    model: ModelVersion
    table: str | None
    entities: int
    as_of: datetime | None


@post("/features/materialize", action="features.materialize", long=True)
def materialize(call: ApiCall, body: MaterializeBody) -> MaterializedState:
    """Fill the stored state that a server reads for a model's windows and lookups."""
    prepared = prepare_service(
        call.project,
        body.model or call.project.name,
        principal=call.principal,
        as_of=body.as_of,
        progress=call.progress,
    )
    return MaterializedState(
        model=prepared.model, table=prepared.table, entities=prepared.entities, as_of=prepared.as_of
    )


class FeatureQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Features as a job of SQL over streams, the settings that it is written for, and the statements before it."""

    text: str
    settings: dict[str, str]
    tables: tuple[str, ...] = ()


class SqlQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    engine: Literal["flink"] = "flink"


@get("/features/sql", action="features.show")
def sql(call: ApiCall, query: SqlQuery) -> FeatureQuery:  # noqa: ARG001 - Flink is the only engine of SQL
    """Show the features as SQL: a job of Flink over streams."""
    from cumulant.flows.features.stream_query import stream_query

    call.check()
    planned = plan(call.project, principal=call.principal, checks=False, progress=call.progress)
    job = stream_query(call.project, planned.features)
    return FeatureQuery(text=job.text, settings=dict(job.settings), tables=job.tables)


class BackfillBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model`: a version; empty: the project's definition as it is now."""

    model: str = ""


@post("/features/backfill", action="features.materialize", long=True)
def backfill(call: ApiCall, body: BackfillBody) -> Backfill:
    """Fill the stored features of a definition in a table of their own, beside what is served."""
    return run_backfill(call.project, principal=call.principal, model=body.model, progress=call.progress)


class StartJobBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`resume`: the checkpoint or savepoint to go on from, or `beginning`; empty: where the definition stopped."""

    resume: str = ""


@post("/features/jobs/start", action="features.run_job", long=True)
def start_job(call: ApiCall, body: StartJobBody) -> StartedJob:
    """Start the job that computes features of streams as they are defined now, and stop that of another definition."""
    return run_job(call.project, principal=call.principal, resume=body.resume, progress=call.progress)


@post("/features/jobs/stop", action="features.run_job", long=True)
def stop_job(call: ApiCall) -> list[StoppedJob]:
    """Stop the jobs that compute features of streams, with a savepoint each."""
    return stop_jobs(call.project, principal=call.principal, progress=call.progress)


@get("/features/jobs", action="features.status")
def jobs(call: ApiCall) -> list[JobStatus]:
    """Show the jobs that compute features of streams: state, definition, topic, newest checkpoint and its age."""
    return show_jobs(call.project, principal=call.principal)


class VerifyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`since`: of rows answered since then; null: a day ago; `rows`: at most."""

    since: datetime | None = None
    rows: Annotated[int, msgspec.Meta(ge=1, le=MOST_ITEMS)] = 1_000


@post("/features/verify", action="features.verify", long=True)
def verify(call: ApiCall, body: VerifyBody) -> FeatureVerification:
    """Recompute features of served rows from the history as of their moment, and report those that differ."""
    from cumulant.flows.features.verify import verify_features

    return verify_features(
        call.project,
        principal=call.principal,
        since=body.since,
        rows=body.rows,
        progress=call.progress,
    )


def _state(state: object) -> KeyState:
    return msgspec.convert(state, KeyState, from_attributes=True)


def _uri(call: ApiCall, model: str) -> str:
    return model or f"{call.project.name}@champion"


OPERATIONS = (
    list_,
    values,
    status,
    freshness,
    online,
    stored,
    forget,
    materialize,
    backfill,
    verify,
    sql,
    start_job,
    stop_job,
    jobs,
)
