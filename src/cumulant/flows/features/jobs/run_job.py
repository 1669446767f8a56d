"""`features start-job` and `stop-job`: the job of another engine that computes features of streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import LeaseHeldError, NotFoundError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.features.events import FeatureJobStarted, FeatureJobStopped
from cumulant.features.flink.job import FeatureJob, feature_job
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.jobs.job_record import (
    BEGINNING,
    FeatureJobRecord,
    job_records,
    own_jobs,
    place_to_resume,
    record_job,
    stream_engine,
)
from cumulant.flows.features.stream_query import check_broker, job_connection, stream_query
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.lease import LeaseHandle, await_lease, holder_of
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.ports.streams import JobTopics

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.ports.access import Principal
    from cumulant.ports.compute import JobState, StreamEngine, StreamJob
    from cumulant.project.project import Project

_LEASE = "feature-job"
#: seconds after which a command that was killed holds up no other, on any machine
_SECONDS = 20.0


class StoppedJob(msgspec.Struct, frozen=True, kw_only=True):
    """`savepoint`: from which the same definition resumes."""

    name: str
    job: str
    savepoint: str


class StartedJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of the definition, whose results go to `topic`. `started`: false where it ran already; `resumed`: the
    savepoint or checkpoint that it goes on from, null: from the beginning of the topics; `stopped`: of other
    definitions.
    """

    job: str
    topic: str
    definition: str
    fingerprint: str
    started: bool
    resumed: str | None
    stopped: tuple[StoppedJob, ...]


@verb("features.run_job")
def start_job(project: Project, *, principal: Principal, resume: str = "", progress: Progress = silent) -> StartedJob:
    """Start the job of the project's definition as it is now, where it does not run, and stop those of others.

    A job that was stopped, or that failed, goes on from its savepoint or its newest checkpoint; a new definition begins
    at the beginning of the topics. A job that was started and not recorded is recorded. `resume`: where to go on in
    place of that, or `beginning`.

    Raises:
        UsageError: the environment has no engine, or its streams are not on Kafka; or as `resolve_task`.
        DefinitionError: the engine cannot compute the definition.
        StorageError: nothing says how far the job came that has ended.
        LeaseHeldError: another process starts or stops jobs at this moment.
        EngineUnavailableError: the engine or the brokers do not answer.
    """
    engine = stream_engine(project)
    check_broker(project)
    with open_run(project, "job", principal=principal, progress=progress) as context:
        snapshots, _ = snapshots_of(context)
        plan = resolve_task(project, snapshots).plan
        job = _job_of(project, plan, encrypted=engine.encrypted)
        with _alone(context) as lease:
            jobs = own_jobs(project, engine)
            running = next((each for each in jobs if each.name == job.name and not each.ended), None)
            if running is not None:
                _record_running(context, lease, job, running)
                id_, resumed = running.id, None
            else:
                progress(f"job: {job.name} is submitted", None)
                created = _create_topic(project, plan, job)
                resumed = None if created and not resume else _place(project, engine, job, jobs, resume)
                id_ = engine.submit(job.name, job.statements, job.settings, resume=resumed)
                _record_start(context, lease, job, id_, resumed=resumed, adopted=False)
            stopped = [
                _stop(context, lease, engine, other) for other in jobs if other.name != job.name and not other.ended
            ]
    return StartedJob(
        job=id_,
        topic=job.name,
        definition=job.definition,
        fingerprint=job.fingerprint,
        started=running is None,
        resumed=resumed,
        stopped=tuple(stopped),
    )


@verb("features.run_job")
def stop_jobs(project: Project, *, principal: Principal, progress: Progress = silent) -> list[StoppedJob]:
    """Stop the jobs of the project with a savepoint each, from which `start_job` goes on. None may run.

    Raises:
        UsageError: the environment has no engine.
        LeaseHeldError: another process starts or stops jobs at this moment.
        DataError: the engine cannot take the savepoint: the job goes on.
        EngineUnavailableError: the engine does not answer.
    """
    engine = stream_engine(project)
    with open_run(project, "job", principal=principal, progress=progress) as context, _alone(context) as lease:
        running = [each for each in own_jobs(project, engine) if not each.ended]
        return [_stop(context, lease, engine, each) for each in running]


def _job_of(project: Project, plan: FeaturePlan, *, encrypted: bool) -> FeatureJob:
    connection = job_connection(project, encrypted=encrypted)
    query = stream_query(project, plan, connection)
    return feature_job(plan, query, project.scope, neutral=stream_query(project, plan, {}), options=connection)


@contextmanager
def _alone(context: Context) -> Iterator[LeaseHandle]:
    """Nobody else starts or stops jobs of the project while the block runs."""
    journal = context.project.journal()
    lease = await_lease(journal, _LEASE, ttl=_SECONDS, actor=Actor(context.principal.id))
    if lease is None:
        raise LeaseHeldError(
            f"{holder_of(journal, _LEASE) or 'another process'} starts or stops jobs of this project",
            subject=_LEASE,
            hint="run it again when that has ended",
        )
    with lease.renewed():
        yield lease


def _create_topic(project: Project, plan: FeaturePlan, job: FeatureJob) -> bool:
    streams, source = project.streams(), project.spec.data[plan.entity].stream
    assert isinstance(streams, JobTopics), "streams are on Kafka"
    assert source is not None, "the job reads it"
    return streams.create_topic(job.name, len(streams.partitions(source)))


def _place(project: Project, engine: StreamEngine, job: FeatureJob, jobs: list[StreamJob], resume: str) -> str | None:
    """Raises StorageError: as `place_to_resume`."""
    if resume:
        return None if resume == BEGINNING else resume
    record = job_records(project).get(job.name)
    ended = [each.id for each in jobs if each.name == job.name]
    newest = ended[-1] if ended else None if record is None else record.job
    if record is not None and newest != record.job:
        record = None  # another job of it ran since
    state = None if newest is None else _state(engine, newest)
    bounds = project.streams().bounds(job.name).values()
    filled = any(each.end > 0 for each in bounds)
    return place_to_resume(job, record, state, known=newest is not None, filled=filled)


def _state(engine: StreamEngine, job: str) -> JobState | None:
    try:
        return engine.job_state(job)
    except NotFoundError:
        return None


def _stop(context: Context, lease: LeaseHandle, engine: StreamEngine, job: StreamJob) -> StoppedJob:
    context.progress(f"job: {job.name} is stopped with a savepoint", None)
    savepoint = engine.stop(job.id)
    record = job_records(context.project).get(job.name)
    stopped = StoppedJob(name=job.name, job=job.id, savepoint=savepoint)
    with context.transaction() as transaction:
        lease.confirm(transaction)
        record_job(
            transaction,
            FeatureJobRecord(
                name=job.name,
                definition="" if record is None else record.definition,
                fingerprint="" if record is None else record.fingerprint,
                job=job.id,
                savepoint=savepoint,
                at=context.now(),
                who=context.principal.id,
            ),
        )
        transaction.emit(FeatureJobStopped(job=job.id, name=job.name, savepoint=savepoint))
    return stopped


def _record_running(context: Context, lease: LeaseHandle, job: FeatureJob, running: StreamJob) -> None:
    """Record a job that was submitted by a process that ended before it had recorded it."""
    record = job_records(context.project).get(job.name)
    if record is None or record.job != running.id:
        _record_start(context, lease, job, running.id, resumed=None, adopted=True)


def _record_start(
    context: Context, lease: LeaseHandle, job: FeatureJob, id_: str, *, resumed: str | None, adopted: bool
) -> None:
    with context.transaction() as transaction:
        lease.confirm(transaction)
        record_job(
            transaction,
            FeatureJobRecord(
                name=job.name,
                definition=job.definition,
                fingerprint=job.fingerprint,
                job=id_,
                savepoint=None,
                at=context.now(),
                who=context.principal.id,
            ),
        )
        transaction.emit(
            FeatureJobStarted(
                job=id_,
                name=job.name,
                definition=job.definition,
                fingerprint=job.fingerprint,
                resumed=resumed,
                adopted=adopted,
            )
        )
