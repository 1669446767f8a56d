"""Starts and stops jobs of another engine, each with its record: under a lease, and with the topics of results."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import (
    CumulantError,
    DataError,
    DeadlineError,
    NotFoundError,
    StorageError,
    UsageError,
)
from cumulant.features.events import FeatureJobStarted, FeatureJobStopped
from cumulant.flows.features.jobs.job_record import (
    BEGINNING,
    FeatureJobRecord,
    ResumePlace,
    check_sources,
    job_records,
    newest_record,
    next_number,
    own_jobs,
    place_to_resume,
    record_job,
)
from cumulant.flows.features.jobs.result_ends import ResultEnds
from cumulant.flows.features.jobs.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cumulant.features.flink.job import FeatureJob
    from cumulant.flows.features.jobs.result_ends import ResultTopics
    from cumulant.flows.ledger.lease import LeaseHandle
    from cumulant.flows.ledger.run_context import Context
    from cumulant.ports.compute import JobState, StreamEngine, StreamJob

#: seconds until a job that is ending has ended, and between two questions
_ENDING, _PAUSE = 120.0, 0.2
#: savepoints that are tried of a job that runs, or seems to between two failures, and seconds between them
_ATTEMPTS, _AGAIN = 4, 1.0


class StoppedJob(msgspec.Struct, frozen=True, kw_only=True):
    """`savepoint`: from which the same definition resumes; null: nothing says, and `start_job` decides by its topic.
    `cancelled`: the job could take no savepoint, and the place is its newest checkpoint; `ended`: it had ended before.
    """

    name: str
    job: str
    savepoint: str | None
    cancelled: bool = False
    ended: bool = False


class StartedJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of the definition, whose results go to `topic`. `state`: the engine's name of its state; `started`: false
    where it ran already; `resumed`: the savepoint or checkpoint that it goes on from, null: from the beginning of the
    topics, or of a job that ran already not known; `stopped`: of other definitions.
    """

    job: str
    topic: str
    definition: str
    fingerprint: str
    state: str
    started: bool
    resumed: str | None
    stopped: tuple[StoppedJob, ...] = ()


class JobControl:
    """Of one project, for one holder of the lease. `topics`: where the results are."""

    def __init__(
        self,
        context: Context,
        lease: LeaseHandle,
        engine: StreamEngine,
        topics: ResultTopics,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._context, self._lease, self._engine, self._topics = context, lease, engine, topics
        self._results, self._sleep = ResultEnds(topics, sleep), sleep
        self._submission = Submission(context.project, engine, sleep)

    def is_newest(self, record: FeatureJobRecord) -> bool:
        """Whether nobody has started or stopped a job since the newest record was read."""
        return newest_record(job_records(self._context.project)) == record

    def start(self, job: FeatureJob, *, sources: str, partitions: int, resume: str = "") -> StartedJob:
        """Start the job where it does not run. `sources`: what tells the topics that it reads from others of their
        names; `partitions`: of a topic of results that is new; `resume`: where to go on, or `beginning`.

        Raises:
            UsageError: the job runs, and is to go on from somewhere else.
            StorageError: nothing says how far the job came that has ended, or it runs twice.
            DeadlineError: it is ending, and has not ended in time.
        """
        jobs = self._awaited(lambda each: each.name == job.name)
        record = self._record(job.name)
        running = self._only(job.name, jobs)
        if running is None and self._submission.earlier(record, self._context.now()) is not None:
            jobs = self._awaited(lambda each: each.name == job.name)
            running = self._only(job.name, jobs)
        if running is not None:
            return self._running(job, record, running, sources=sources, resume=resume)
        self._context.progress(f"job: {job.name} is submitted", None)
        ends = self._results.ends(job.name)
        place = resume or self._place(job.name, record, jobs, ends, sources)
        place = None if place == BEGINNING else place
        starting = self._starting(job, record, jobs, sources=sources, resumed=place, begun=ends)
        self._write(starting)
        if not ends:
            self._topics.create_topic(job.name, partitions)
        try:
            id_ = self._submission.submit(job, starting, place)
        except DataError:
            self._write(msgspec.structs.replace(starting, refused=True))
            raise
        self._write_started(starting, id_, adopted=False)
        running = self._only(job.name, own_jobs(self._context.project, self._engine))
        return StartedJob(
            job=id_,
            topic=job.name,
            definition=job.definition,
            fingerprint=job.fingerprint,
            state="ENDED" if running is None else running.state,
            started=True,
            resumed=place,
        )

    def stop_all(self, *, besides: str | None = None) -> list[StoppedJob]:
        """Stop every job, but those named `besides`, with a savepoint each. What can take none is cancelled.

        Raises:
            DataError: the engine refuses the savepoint of a job that runs on; the others are stopped.
        """
        jobs = own_jobs(self._context.project, self._engine)
        stopped: list[StoppedJob] = []
        failed: list[tuple[StreamJob, CumulantError]] = []
        for job in jobs:
            if job.ended or job.name == besides:
                continue
            try:
                stopped.append(self._stop(job))
            except (DataError, DeadlineError, StorageError) as error:
                failed.append((job, error))
        for job, reason in failed:
            hint = "when its cause is fixed run it again, or cancel the job by Flink's own tools"
            raise DataError(f"{job.name} is not stopped: {reason.message}", subject=job.name, hint=hint) from reason
        return stopped

    def note_ended(self, *, besides: str | None = None) -> list[StoppedJob]:
        """Record of jobs, but those named `besides`, that have ended, and nobody stopped, how far they came: their
        engine forgets them.
        """
        noted: list[StoppedJob] = []
        jobs = own_jobs(self._context.project, self._engine)
        for record in job_records(self._context.project).values():
            own = [job for job in jobs if job.name == record.name]
            if record.name == besides or record.stopped or any(not job.ended for job in own):
                continue
            newest = next((job.id for job in reversed(own) if record.is_newest(job.id)), record.job)
            place = self._newest_place(record, record.name, newest)
            self._write_stopped(record, record.name, newest, place)
            path = None if place is None else place.path
            noted.append(StoppedJob(name=record.name, job=newest, savepoint=path, ended=True))
        return noted

    def _running(
        self, job: FeatureJob, record: FeatureJobRecord | None, running: StreamJob, *, sources: str, resume: str
    ) -> StartedJob:
        """The job runs. One whose command ended before it had recorded it is recorded."""
        if resume:
            raise UsageError(
                f"the job {running.id} of this definition runs, and cannot go on from {resume}",
                subject=job.name,
                hint="stop it first: cumulant features stop-job",
            )
        if record is None:
            record = self._starting(job, None, (), sources=sources, resumed=None, begun={})
        check_sources(record, record.sources, sources)
        if record.state != "starting" and record.job != running.id:
            record = msgspec.structs.replace(record, resumed=None)
        records = job_records(self._context.project)
        newest = newest_record(records)
        if newest is not None and newest.name != record.name:  # the definition was changed back
            record = msgspec.structs.replace(record, number=next_number(records))
            self._write(record)
        if record.state != "started" or record.job != running.id:
            self._write_started(record, running.id, adopted=True)
        return StartedJob(
            job=running.id,
            topic=job.name,
            definition=job.definition,
            fingerprint=record.fingerprint,
            state=running.state,
            started=False,
            resumed=record.resumed,
        )

    def _place(
        self,
        name: str,
        record: FeatureJobRecord | None,
        jobs: Sequence[StreamJob],
        ends: dict[int, int],
        sources: str,
    ) -> str | None:
        newest = jobs[-1].id if jobs else None
        state = None if newest is None else self._state(newest)
        place = place_to_resume(name, record, newest, state, ends)
        if record is not None and place is not None:
            recorded = record.place is not None and record.place.path == place
            check_sources(record, record.place.sources if record.place and recorded else record.sources, sources)
        return place

    def _starting(
        self,
        job: FeatureJob,
        record: FeatureJobRecord | None,
        jobs: Sequence[StreamJob],
        *,
        sources: str,
        resumed: str | None,
        begun: dict[int, int],
    ) -> FeatureJobRecord:
        """What is recorded before the job is submitted: the place of the start before stays."""
        now = self._context.now()
        return FeatureJobRecord(
            name=job.name,
            definition=job.definition,
            fingerprint=job.fingerprint,
            state="starting",
            job="" if record is None else record.job,
            earlier=(*(each.id for each in jobs), *(() if record is None else (record.job,))),
            sources=sources,
            place=None if record is None else record.place,
            resumed=resumed,
            begun=begun,
            started=now,
            at=now,
            who=self._context.principal.id,
            reads=job.reads,
            span=job.span,
            number=next_number(job_records(self._context.project)),
        )

    def _stop(self, job: StreamJob) -> StoppedJob:
        self._context.progress(f"job: {job.name} is stopped with a savepoint", None)
        record = self._record(job.name)
        savepoint = self._savepoint(job)
        if savepoint is not None:
            ends, exact = self._results.last_ends(job.name, record, committed=True)
            sources = "" if record is None else record.sources
            place: ResumePlace | None = ResumePlace(path=savepoint, sources=sources, ends=ends, exact=exact)
        else:
            self._context.progress(f"job: {job.name} can take no savepoint, and is cancelled", None)
            with suppress(DataError):  # it may have ended by itself
                self._engine.cancel(job.id)
            self._awaited(lambda each: each.id == job.id, until=lambda each: each.ended)
            place = self._newest_place(record, job.name, job.id)
        self._write_stopped(record, job.name, job.id, place)
        path = None if place is None else place.path
        return StoppedJob(name=job.name, job=job.id, savepoint=path, cancelled=savepoint is None)

    def _savepoint(self, job: StreamJob) -> str | None:
        """The path of a savepoint with which the job has ended; None where it does not run.

        Raises:
            DataError: it runs, and the engine refuses.
        """
        refused: DataError | None = None
        for _ in range(_ATTEMPTS):
            now = [each for each in self._engine.jobs() if each.id == job.id]
            if not now or not now[0].running:
                return None
            try:
                return self._engine.stop(job.id)
            except DataError as error:
                refused = error
                self._sleep(_AGAIN)
        assert refused is not None
        raise refused

    def _newest_place(self, record: FeatureJobRecord | None, name: str, job: str) -> ResumePlace | None:
        """Of a job that has ended without a savepoint: its newest checkpoint; else that of the start before, which
        counts where nothing was written since.
        """
        state = self._state(job) if job else None
        if (record is None or record.is_newest(job)) and state is not None and state.path is not None:
            sources = "" if record is None else record.sources
            ends, exact = self._results.last_ends(name, record, committed=False)
            return ResumePlace(path=state.path, sources=sources, ends=ends, exact=exact)
        if record is None or record.place is None:
            return None
        return msgspec.structs.replace(record.place, exact=True)

    def _awaited(
        self, which: Callable[[StreamJob], bool], *, until: Callable[[StreamJob], bool] = lambda job: not job.ending
    ) -> list[StreamJob]:
        """The jobs, the newest last, once each is as it is waited for.

        Raises:
            DeadlineError: that took too long.
        """
        deadline = time.monotonic() + _ENDING
        while True:
            jobs = [job for job in own_jobs(self._context.project, self._engine) if which(job)]
            pending = [job for job in jobs if not until(job)]
            if not pending:
                return jobs
            if time.monotonic() > deadline:
                text = f"the job {pending[0].id} has not ended after {_ENDING:.0f} s: {pending[0].state}"
                raise DeadlineError(text, subject=pending[0].name, hint="see the log of Flink, and run it again")
            self._sleep(_PAUSE)

    @staticmethod
    def _only(name: str, jobs: Sequence[StreamJob]) -> StreamJob | None:
        running = [job for job in jobs if job.name == name and not job.ended]
        if len(running) > 1:
            raise StorageError(
                f"{len(running)} jobs of one definition run, and may write each result more than once:"
                f" {', '.join(job.id for job in running)}",
                subject=name,
                hint="stop them, cumulant features stop-job, delete the topic, and start again from the beginning:"
                f" start-job --from {BEGINNING}",
            )
        return running[0] if running else None

    def _state(self, job: str) -> JobState | None:
        try:
            return self._engine.job_state(job)
        except NotFoundError:
            return None

    def _record(self, name: str) -> FeatureJobRecord | None:
        return job_records(self._context.project).get(name)

    def _write(self, record: FeatureJobRecord) -> None:
        with self._context.transaction() as transaction:
            self._lease.confirm(transaction)
            record_job(transaction, record)

    def _write_started(self, record: FeatureJobRecord, job: str, *, adopted: bool) -> None:
        """The place of the start before stays where it is that of the topic as it was at this start."""
        place = record.place
        if record.state == "starting" and (place is None or not place.fits(record.begun)):
            own = ResumePlace(path=record.resumed or "", sources=record.sources, ends=record.begun)
            place = None if record.resumed is None else own
        started = msgspec.structs.replace(
            record, state="started", job=job, earlier=(), place=place, at=self._context.now()
        )
        with self._context.transaction() as transaction:
            self._lease.confirm(transaction)
            record_job(transaction, started)
            transaction.emit(
                FeatureJobStarted(
                    job=job,
                    name=record.name,
                    definition=record.definition,
                    fingerprint=record.fingerprint,
                    resumed=record.resumed,
                    adopted=adopted,
                )
            )

    def _write_stopped(self, record: FeatureJobRecord | None, name: str, job: str, place: ResumePlace | None) -> None:
        now, who = self._context.now(), self._context.principal.id
        stopped = FeatureJobRecord(
            name=name,
            definition="" if record is None else record.definition,
            fingerprint="" if record is None else record.fingerprint,
            state="stopped",
            job=job,
            sources="" if record is None else record.sources,
            place=place,
            resumed=None if record is None else record.resumed,
            begun={} if record is None else record.begun,
            started=now if record is None else record.started,
            at=now,
            who=who,
            reads=() if record is None else record.reads,
            span=None if record is None else record.span,
            number=0 if record is None else record.number,
        )
        with self._context.transaction() as transaction:
            self._lease.confirm(transaction)
            record_job(transaction, stopped)
            path = None if place is None else place.path
            transaction.emit(FeatureJobStopped(job=job, name=name, savepoint=path))
