"""Rows of the journal with the jobs that compute features of streams, one a definition."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from cumulant.core.errors import StorageError, UsageError
from cumulant.features.flink.job import job_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cumulant.ports.compute import JobState, StreamEngine, StreamJob
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project

_JOB = "feature_job"
#: as a place to resume from: the oldest message of the topics
BEGINNING = "beginning"
#: in hints, a checkpoint whose folder is not known
UNKNOWN_CHECKPOINT = "s3://.../chk-N"


class ResumeRefusedError(StorageError):
    """Where a job goes on cannot be decided, and an operator names the place."""


class ResumePlace(msgspec.Struct, frozen=True, kw_only=True):
    """`path`: of a checkpoint or savepoint. `sources`: what tells the topics that were read from others of their names;
    empty: not known. `ends`: how far the topic of results went with it, by partition; `exact`: whether it can go no
    further unless somebody writes to it. It can where transactions are still to be aborted.
    """

    path: str
    sources: str
    ends: dict[int, int]
    exact: bool = True

    def fits(self, ends: Mapping[int, int]) -> bool:
        """Whether nothing was written to the topic since."""
        return all(ends.get(number, 0) == self.ends.get(number, 0) for number in {*ends, *self.ends})

    def lacks(self, ends: Mapping[int, int]) -> bool:
        """Whether the topic has less than it had: it is another one."""
        return any(ends.get(number, 0) < end for number, end in self.ends.items())


class FeatureJobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The newest job of a definition.

    Attributes:
        name: of the job and of the topic of its results.
        state: `starting` is recorded before the job is submitted, `started` once the engine has given its id.
        job: the newest id that is known; empty before the first.
        earlier: of `starting`, the ids of this name that the engine knew before.
        sources: what tells the topics that the job reads from others of their names; empty: not known.
        place: from which the definition resumes as long as nothing has written to the topic since.
        resumed: the checkpoint or savepoint that the newest start goes on from; None: from the beginning.
        begun: how far the topic of results went at that start.
        refused: of `starting`, whether the engine has refused the submission, so that no job comes of it later.
        reads: the sources that it reads; empty: not known.
        span: seconds of its longest window; None: one has no end, or it is not known.
        started: when that was; `at`, `who`: of the newest start or stop.
        number: of the newest start among those of all definitions, since clocks of several hosts differ.
    """

    name: str
    definition: str
    fingerprint: str
    state: Literal["starting", "started", "stopped"]
    job: str
    earlier: tuple[str, ...] = ()
    sources: str
    place: ResumePlace | None
    resumed: str | None
    begun: dict[int, int]
    started: datetime
    at: datetime
    who: str
    refused: bool = False
    reads: tuple[str, ...] = ()
    span: float | None = None
    number: int = 0

    @property
    def stopped(self) -> bool:
        return self.state == "stopped"

    def is_newest(self, job: str) -> bool:
        """Whether a job that the engine knows by this name is that of the newest start."""
        return job not in self.earlier if self.state == "starting" else job == self.job


def job_records(project: Project) -> dict[str, FeatureJobRecord]:
    """By the name of the job."""
    rows = project.journal().rows(_JOB)
    return {row.key: msgspec.convert(row.value, FeatureJobRecord, str_keys=True) for row in rows}


def newest_record(records: Mapping[str, FeatureJobRecord]) -> FeatureJobRecord | None:
    """That of the definition that was started last and is not stopped."""
    started = [record for record in records.values() if not record.stopped]
    return max(started, key=lambda record: (record.number, record.started), default=None)


def next_number(records: Mapping[str, FeatureJobRecord]) -> int:
    """Of a start that comes after those of the records."""
    return 1 + max((record.number for record in records.values()), default=0)


def record_job(transaction: Transaction, record: FeatureJobRecord) -> None:
    transaction.put(_JOB, record.name, msgspec.to_builtins(record, str_keys=True))


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


def check_sources(record: FeatureJobRecord, read: str, sources: str) -> None:
    """Raises ResumeRefusedError: the topics of `read` are not those of `sources`, by what tells them from others."""
    if read not in {"", sources}:
        place = "PATH" if record.place is None else record.place.path
        raise ResumeRefusedError(
            "the topics that the job has read are not those of now: they were made again, or are of other brokers",
            subject=record.name,
            hint="if it runs, stop it: cumulant features stop-job. Then begin with the topics of now,"
            f" start-job --from {BEGINNING}, or, if they go on where those ended, --from {place}",
        )


def place_to_resume(
    name: str, record: FeatureJobRecord | None, newest: str | None, state: JobState | None, ends: Mapping[int, int]
) -> str | None:
    """The checkpoint or savepoint from which a definition goes on; None: from the beginning of the topics.

    Args:
        name: of the job and of the topic of its results.
        record: of its newest start or stop.
        newest: the newest job of this name that the engine knows, which has ended.
        state: what the engine has of that; None where it cannot say.
        ends: how far the topic goes, by partition; empty where there is none.

    Raises:
        ResumeRefusedError: nothing says how far it came, so that results would be missing or come twice.
    """
    place = None if record is None else record.place
    if place is not None and place.fits(ends):
        return place.path
    if place is not None and place.lacks(ends):
        raise ResumeRefusedError(
            f"the topic {name} was deleted or made again since the savepoint: it lacks the results before",
            subject=name,
            hint=f"write all results again, --from {BEGINNING}, or go on without those before, --from {place.path}",
        )
    if place is None and not any(ends.values()):
        return None
    trusted = newest is not None and (record is None or (record.is_newest(newest) and not (record.stopped and place)))
    if trusted and state is not None and state.path:
        return state.path
    if place is not None and record is not None and record.stopped and not place.exact:
        return place.path
    known = f"the newest checkpoint of its folder, --from {UNKNOWN_CHECKPOINT}"
    if place is not None:
        known = f"{known}, or the savepoint before, --from {place.path}, which repeats what came since"
    since = "" if place is None else " since the savepoint"
    raise ResumeRefusedError(
        f"the topic {name} has results of a job{since}, and nothing says how far it came",
        subject=name,
        hint=f"name {known}, or write every result again, --from {BEGINNING}",
    )
