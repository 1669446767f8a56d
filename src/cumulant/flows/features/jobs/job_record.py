"""Rows of the journal with the jobs that compute features of streams, one a definition."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import StorageError, UsageError
from cumulant.features.flink.job import FeatureJob, job_prefix

if TYPE_CHECKING:
    from cumulant.ports.compute import JobState, StreamEngine, StreamJob
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project

_JOB = "feature_job"
#: as a place to resume from: the oldest message of the topics
BEGINNING = "beginning"


class FeatureJobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The newest job of a definition. `name`: of the job and of the topic of its results; `job`: its id at the engine;
    `savepoint`: where it was stopped; None: it was not. `at`, `who`: of the start or stop.
    """

    name: str
    definition: str
    fingerprint: str
    job: str
    savepoint: str | None
    at: datetime
    who: str


def job_records(project: Project) -> dict[str, FeatureJobRecord]:
    """By the name of the job."""
    rows = project.journal().rows(_JOB)
    return {row.key: msgspec.convert(row.value, FeatureJobRecord) for row in rows}


def record_job(transaction: Transaction, record: FeatureJobRecord) -> None:
    transaction.put(_JOB, record.name, msgspec.to_builtins(record))


def stream_engine(project: Project) -> StreamEngine:
    """Raises UsageError: the environment names none."""
    engine = project.stream_engine()
    if engine is None:
        raise UsageError(
            "this environment has no engine that runs jobs over streams",
            subject="stream_engine",
            hint="write `stream_engine: flink://GATEWAY:8083?checkpoints=URL` under the environment",
        )
    return engine


def own_jobs(project: Project, engine: StreamEngine) -> list[StreamJob]:
    """The jobs of this project and environment, the newest last."""
    prefix = job_prefix(project.scope)
    jobs = [job for job in engine.jobs() if job.name.startswith(prefix)]
    return sorted(jobs, key=lambda job: "" if job.started is None else job.started.isoformat())


def place_to_resume(
    job: FeatureJob, record: FeatureJobRecord | None, state: JobState | None, *, known: bool, filled: bool
) -> str | None:
    """The checkpoint or savepoint from which a job goes on; None: from the beginning of the topics.

    Args:
        job: what is to run.
        record: its newest job that is recorded.
        state: what the engine has of its newest job; None where it cannot say.
        known: whether there was a job of this definition, as far as the record or the engine knows.
        filled: whether the topic of its results has messages.

    Raises:
        StorageError: nothing says how far it came, so that results would be missing or come twice.
    """
    if record is not None and record.savepoint is not None:
        return record.savepoint
    if state is not None:  # nothing is committed before the first checkpoint
        return state.path
    if not known and not filled:
        return None
    what = "a job of this definition ended without a savepoint" if known else f"the topic {job.name} has results"
    raise StorageError(
        f"{what}, and nothing says how far it came",
        subject=job.name,
        hint="name the newest checkpoint of its folder, --from s3://.../chk-N, or write every result again,"
        f" --from {BEGINNING}",
    )
