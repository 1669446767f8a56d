"""`features jobs`: the jobs that compute features of streams, by the engine and by the record."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import NotFoundError
from cumulant.flows.features.jobs.job_record import (
    FeatureJobRecord,
    job_records,
    newest_record,
    own_jobs,
    stream_engine,
)
from cumulant.flows.ledger.actions import verb
from cumulant.ports.compute import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cumulant.ports.access import Principal
    from cumulant.ports.compute import StreamEngine, StreamJob
    from cumulant.project.project import Project


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A definition's newest job, or one of several that run. `state`: the engine's name of its state, `stopped` by
    `stop_jobs` or for another definition, `not started`: its submission failed, or `lost`: it ran, and the engine does
    not know it. `checkpoint`: the newest checkpoint or savepoint, null where nothing says; `age`: of it, in seconds.
    `faulty`: it is the definition that was started last, and does not run; or it fails, or runs twice. `definition` is
    null where the job is not recorded.
    """

    name: str
    job: str
    state: str
    definition: str | None
    fingerprint: str | None
    topic: str
    started: datetime | None
    checkpoint: str | None
    checkpoint_at: datetime | None
    age: float | None
    who: str | None
    faulty: bool


@verb("features.status")
def job_status(project: Project, *, principal: Principal, clock: Clock | None = None) -> list[JobStatus]:
    """The jobs of the project, those that run first.

    Raises:
        UsageError: the environment has no engine.
        EngineUnavailableError: the engine does not answer.
    """
    del principal
    engine = stream_engine(project)
    records, jobs = job_records(project), own_jobs(project, engine)
    now = (clock or SystemClock()).now()
    names = sorted({*records, *(job.name for job in jobs)})
    newest = newest_record(records)
    statuses = [
        status
        for name in names
        for status in job_statuses(
            engine,
            name,
            records.get(name),
            [job for job in jobs if job.name == name],
            now,
            current=newest is None or newest.name == name,
        )
    ]
    return sorted(statuses, key=lambda status: (status.state != "RUNNING", not status.faulty, status.name))


def job_statuses(
    engine: StreamEngine,
    name: str,
    record: FeatureJobRecord | None,
    jobs: Sequence[StreamJob],
    now: datetime,
    *,
    current: bool,
) -> list[JobStatus]:
    """Of one definition, which has a record or at least one job. `current`: it was started last."""
    running = [job for job in jobs if not job.ended]
    if running:
        return [
            _status(engine, name, record, job, now, word=job.state, faulty=len(running) > 1 or not job.running)
            for job in running
        ]
    known = [job for job in jobs if record is None or record.is_newest(job.id)]
    newest = known[-1] if known else None
    if record is not None and record.stopped:
        word = "stopped"
    elif newest is not None:
        word = newest.state
    else:
        word = "not started" if record is not None and record.state == "starting" else "lost"
    return [_status(engine, name, record, newest, now, word=word, faulty=current and word != "stopped")]


def _status(
    engine: StreamEngine,
    name: str,
    record: FeatureJobRecord | None,
    job: StreamJob | None,
    now: datetime,
    *,
    word: str,
    faulty: bool,
) -> JobStatus:
    id_ = job.id if job is not None else record.job if record is not None else ""
    state = _checkpoint(engine, record, id_, ended=job is None or job.ended)
    return JobStatus(
        name=name,
        job=id_,
        state=word,
        definition=None if record is None else record.definition or None,
        fingerprint=None if record is None else record.fingerprint or None,
        topic=name,
        started=None if job is None else job.started,
        checkpoint=state.path,
        checkpoint_at=state.at,
        age=None if state.at is None else (now - state.at).total_seconds(),
        who=None if record is None else record.who,
        faulty=faulty,
    )


def _checkpoint(engine: StreamEngine, record: FeatureJobRecord | None, job: str, *, ended: bool) -> JobState:
    """Of a job that was stopped what is recorded, with the moment of the stop."""
    if record is not None and record.stopped and ended:
        return JobState() if record.place is None else JobState(path=record.place.path, at=record.at)
    try:
        return engine.job_state(job) if job else JobState()
    except NotFoundError:
        return JobState()
