"""`features jobs`: the jobs that compute features of streams, by the engine and by the record."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import NotFoundError
from cumulant.flows.features.jobs.job_record import FeatureJobRecord, job_records, own_jobs, stream_engine
from cumulant.flows.ledger.actions import verb
from cumulant.ports.compute import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cumulant.ports.access import Principal
    from cumulant.ports.compute import StreamEngine, StreamJob
    from cumulant.project.project import Project


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A definition's newest job. `state`: the engine's word, `stopped` with a savepoint, or `lost`: it ran, and the
    engine does not know it. `checkpoint`: the newest checkpoint or savepoint, null where nothing says; `age`: of it, in
    seconds. `faulty`: it should run and does not. `definition` is null where the job is not recorded.
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
    statuses = [
        _status(engine, name, records.get(name), [job for job in jobs if job.name == name], now) for name in names
    ]
    return sorted(statuses, key=lambda status: (status.state != "RUNNING", not status.faulty, status.name))


def _status(
    engine: StreamEngine, name: str, record: FeatureJobRecord | None, jobs: Sequence[StreamJob], now: datetime
) -> JobStatus:
    """Of one definition, which has a record or at least one job."""
    newest = next((job for job in jobs if not job.ended), jobs[-1] if jobs else None)
    id_ = newest.id if newest is not None else record.job if record is not None else ""
    stopped = record is not None and record.savepoint is not None and record.job == id_
    state = _checkpoint(engine, record if stopped else None, id_)
    word = "lost" if newest is None else newest.state
    if stopped and (newest is None or newest.ended):
        word = "stopped"
    return JobStatus(
        name=name,
        job=id_,
        state=word,
        definition=None if record is None else record.definition or None,
        fingerprint=None if record is None else record.fingerprint or None,
        topic=name,
        started=None if newest is None else newest.started,
        checkpoint=state.path,
        checkpoint_at=state.at,
        age=None if state.at is None else (now - state.at).total_seconds(),
        who=None if record is None else record.who,
        faulty=word != "stopped" and (newest is None or newest.ended),
    )


def _checkpoint(engine: StreamEngine, stopped: FeatureJobRecord | None, job: str) -> JobState:
    if stopped is not None:
        return JobState(path=stopped.savepoint, at=stopped.at)
    try:
        return engine.job_state(job)
    except NotFoundError:
        return JobState()
