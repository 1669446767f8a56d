"""`features start-job` and `stop-job`: the job of another engine that computes features of streams."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import ConflictError, LeaseHeldError, UsageError
from cumulant.core.events import Actor
from cumulant.core.ids import digest
from cumulant.core.progress import Progress, silent
from cumulant.features.flink.job import FeatureJob, feature_job
from cumulant.features.flink.refusals import sources_read
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.jobs.job_control import JobControl, StartedJob, StoppedJob
from cumulant.flows.features.jobs.job_record import BEGINNING, FeatureJobRecord, stream_engine
from cumulant.flows.features.stream_query import check_broker, job_connection, stream_query
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.lease import await_lease, holder_of
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.ports.streams import JobTopics

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.ports.access import Principal
    from cumulant.ports.compute import StreamEngine
    from cumulant.project.project import Project

#: of whoever starts or stops jobs
LEASE = "feature-job"
#: seconds after which a command that was killed holds up no other, on any machine
LEASE_SECONDS = 20.0
_PLACE = re.compile(r"[a-z][a-z0-9+.-]*:/\S+")


@verb("features.run_job")
def start_job(project: Project, *, principal: Principal, resume: str = "", progress: Progress = silent) -> StartedJob:
    """Start the job of the project's definition as it is now, where it does not run, and stop those of others.

    A job that was stopped, or that failed, goes on from its savepoint or its newest checkpoint; a new definition begins
    at the beginning of the topics. A job that was started by a command that was killed is recorded. `resume`: where to
    go on in place of that, or `beginning`.

    Raises:
        UsageError: the environment has no engine, or its streams are not on Kafka; `resume` is no URL, or the job runs;
            or as `resolve_task`.
        DefinitionError: the engine cannot compute the definition, or its results would show personal values.
        StorageError: nothing says how far the job came that has ended, or it runs twice.
        DataError: the job of another definition cannot be stopped: this one is started.
        LeaseHeldError: another process starts or stops jobs at this moment.
        EngineUnavailableError: the engine or the brokers do not answer.
    """
    engine = _checked_engine(project)
    check_place(resume)
    with open_run(project, "job", principal=principal, progress=progress) as context:
        started = _start(context, engine, resume=resume, record=None)
    assert started is not None, "only a restart is left to another"
    return started


@verb("features.run_job")
def restart_job(project: Project, *, principal: Principal, record: FeatureJobRecord) -> StartedJob | None:
    """As `start_job`, for the job of the newest `record` only. None where a command has started or stopped a job since
    that was read: nothing is done then.

    Raises:
        ConflictError: the definition is not that of the job any more; otherwise as `start_job`.
    """
    engine = _checked_engine(project)
    with open_run(project, "job", principal=principal, progress=silent) as context:
        return _start(context, engine, resume="", record=record)


@verb("features.run_job")
def stop_jobs(project: Project, *, principal: Principal, progress: Progress = silent) -> list[StoppedJob]:
    """Stop the jobs of the project with a savepoint each, from which `start_job` goes on. None may run. One that fails
    again and again can take none: it is cancelled, and its newest checkpoint recorded. So is that of a job that has
    ended, which is then not supervised any more.

    Raises:
        UsageError: the environment has no engine, or its streams are not on Kafka.
        LeaseHeldError: another process starts or stops jobs at this moment.
        DataError: the engine cannot take the savepoint of a job that runs: it goes on; others are stopped.
        EngineUnavailableError: the engine does not answer.
    """
    engine = _checked_engine(project)
    with (
        open_run(project, "job", principal=principal, progress=progress) as context,
        _control(context, engine) as control,
    ):
        return [*control.stop_all(), *control.note_ended()]


def run_job(
    control: JobControl,
    job: FeatureJob,
    *,
    sources: str,
    partitions: int,
    resume: str = "",
    record: FeatureJobRecord | None = None,
) -> StartedJob | None:
    """Start the job, and stop those of others. None where `record` is not the newest any more: nothing is done then."""
    if record is not None and not control.is_newest(record):
        return None
    started = control.start(job, sources=sources, partitions=partitions, resume=resume)
    control.note_ended(besides=job.name)
    return msgspec.structs.replace(started, stopped=tuple(control.stop_all(besides=job.name)))


def check_place(resume: str) -> None:
    """Raises UsageError: it is neither empty, nor `beginning`, nor a URL."""
    if resume not in {"", BEGINNING} and not _PLACE.fullmatch(resume):
        raise UsageError(
            f'"{resume[:200]}" is no checkpoint or savepoint',
            subject="from",
            hint=f"name it by its URL, --from s3://BUCKET/FOLDER/chk-42, or write --from {BEGINNING}",
        )


def _checked_engine(project: Project) -> StreamEngine:
    engine = stream_engine(project)
    check_broker(project)
    return engine


def _start(
    context: Context, engine: StreamEngine, *, resume: str, record: FeatureJobRecord | None
) -> StartedJob | None:
    project = context.project
    snapshots, _ = snapshots_of(context)
    plan = resolve_task(project, snapshots).plan
    job = _job_of(project, plan, encrypted=engine.encrypted)
    if record is not None and record.name != job.name:
        hint = "start the job of the definition of now: cumulant features start-job"
        raise ConflictError("the features were changed since the job was started", subject=record.name, hint=hint)
    sources, partitions = _sources(project, plan)
    with _control(context, engine) as control:
        return run_job(control, job, sources=sources, partitions=partitions, resume=resume, record=record)


def _job_of(project: Project, plan: FeaturePlan, *, encrypted: bool) -> FeatureJob:
    connection = job_connection(project, encrypted=encrypted)
    query = stream_query(project, plan, connection)
    return feature_job(plan, query, project.scope, unconnected=stream_query(project, plan, {}), options=connection)


def _sources(project: Project, plan: FeaturePlan) -> tuple[str, int]:
    """What tells the topics that the job reads from others of their names, and the partitions of the entity's."""
    streams = project.streams()
    topics = {name: project.spec.data[name].stream or "" for name in sources_read(plan)}
    identities = {topic: streams.identity(topic) for topic in topics.values()}
    return digest(identities), len(streams.partitions(topics[plan.entity]))


@contextmanager
def _control(context: Context, engine: StreamEngine) -> Iterator[JobControl]:
    """Nobody else starts or stops jobs of the project while the block runs."""
    journal, streams = context.project.journal(), context.project.streams()
    assert isinstance(streams, JobTopics), "streams are on Kafka"
    lease = await_lease(journal, LEASE, ttl=LEASE_SECONDS, actor=Actor(context.principal.id))
    if lease is None:
        raise LeaseHeldError(
            f"{holder_of(journal, LEASE) or 'another process'} starts or stops jobs of this project",
            subject=LEASE,
            hint="run it again when that has ended",
        )
    with lease.renewed():
        yield JobControl(context, lease, engine, streams)
