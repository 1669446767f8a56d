"""The job that was started last: observed from time to time, an alert where it does not run, and started again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.alert_state import Finding
from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import ConflictError, CumulantError, EngineUnavailableError
from cumulant.core.events import Actor
from cumulant.features.events import FeatureJobFault, FeatureJobRecovered
from cumulant.features.flink.job_watch import (
    MOST_TRIES,
    MOST_WITHOUT_PROGRESS,
    JobCondition,
    JobObservation,
    JobWatch,
    evaluate,
    note_failed_start,
    note_start,
    note_unreachable,
)
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.alerting.store import read
from cumulant.flows.features.jobs.job_record import (
    UNKNOWN_CHECKPOINT,
    FeatureJobRecord,
    ResumeRefusedError,
    job_records,
    newest_record,
    own_jobs,
)
from cumulant.flows.features.jobs.run_job import LEASE, LEASE_SECONDS, restart_job
from cumulant.flows.ledger.lease import await_lease
from cumulant.flows.maintenance.rounds import repeat_in_background
from cumulant.flows.reports.wording import instant
from cumulant.ports.compute import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cumulant.ports.access import Principal
    from cumulant.ports.compute import StreamEngine
    from cumulant.ports.journal import Row
    from cumulant.project.project import Project

#: the rule of the alerts on jobs
FEATURE_JOB = "feature_job"
#: the subject of the alert on an engine that does not answer
ENGINE = "stream_engine"
_WATCH = "feature_job_watch"
#: seconds between two evaluations
_ROUND = 30.0
#: words of the engine for jobs that have ended
_ENDED: Mapping[str, JobCondition] = {"CANCELED": "cancelled", "FINISHED": "stopped"}
_SENTENCES: Mapping[JobCondition, str] = {
    "restarting": "restarts again and again",
    "stuck": "has been ending for more than 10 minutes",
    "several": "runs more than once, and may write each result more than once",
    "cancelled": "was cancelled in Flink",
    "stopped": "was stopped in Flink",
    "failed": "has failed",
    "lost": "is not known to Flink any more",
    "not started": "did not start",
}
_START, _STOP = "cumulant features start-job", "cumulant features stop-job"
_IN_PROGRESS = "a command starts or stops the job, or has stopped it"
#: what an operator does about it, where the supervision does nothing
_NEXT: Mapping[JobCondition, str] = {
    "restarting": f"see the log of Flink; `{_STOP}` ends it",
    "stuck": "see the log of Flink; if it does not end, cancel it by Flink's own tools",
    "several": f"stop them, `{_STOP}`, delete the topic of results, and start again: `{_START} --from beginning`",
    "cancelled": f"start it again, `{_START}`, or record that it is stopped: `{_STOP}`",
    "stopped": f"start it again, `{_START}`, or record that it is stopped: `{_STOP}`",
}


def supervise_job(project: Project, *, principal: Principal, clock: Clock | None = None) -> str:
    """Observe the job of the definition that was started last, and start it again where it failed, is lost or did not
    start; the result in a sentence. It writes nothing while the job runs as before, and asks nothing where none was
    started or all were stopped.

    A start is that of `start_job`, with pauses that grow, a bounded number of times an hour, and of times without
    progress. Where that says that an operator decides, it is tried again each hour. What an operator ended by tools of
    the engine is an alert only.

    Raises:
        EngineUnavailableError: the journal does not answer.
    """
    clock = clock or SystemClock()
    engine, record = project.stream_engine(), _newest(project)
    if engine is None or record is None:
        _alert(project, (), principal, clock)
        return "no job is to run"
    try:
        observed, before = _observe(project, engine, record), _watch(project)
        runs = observed.condition in {"running", "restarting", "ending"}
        if not runs and evaluate(before, observed, clock.now())[0] != before:
            # a command may start or stop it at this moment
            settled = _settled(project, principal)
            if settled is None:
                return _IN_PROGRESS
            record = settled
            observed = _observe(project, engine, record)
    except CumulantError as error:
        watch = _unreachable(project, record, error.message, principal, clock)
    else:
        watch, due = _remember(project, lambda before: evaluate(before, observed, clock.now()), principal)
        if due:
            restarted = _start(project, watch, record, principal, clock)
            if restarted is None:
                return _IN_PROGRESS
            watch = restarted
    now = clock.now()
    findings = list(_findings(project, watch, now))
    _alert(project, findings, principal, clock)
    if watch.unreachable_since is not None and not findings:
        return f"Flink does not answer: {watch.unreachable_reason}"
    return "; ".join(f"{finding.moved}: {finding.next}" for finding in findings) or f"the job {watch.job} runs"


def is_supervised(project: Project) -> bool:
    """Whether a job may have to run, or have an alert of when the environment named an engine."""
    return project.endpoints.stream_engine is not None or _watch(project) is not None


def _newest(project: Project) -> FeatureJobRecord | None:
    return newest_record(job_records(project))


def _observe(project: Project, engine: StreamEngine, record: FeatureJobRecord) -> JobObservation:
    jobs = [job for job in own_jobs(project, engine) if job.name == record.name]
    if running := [job for job in jobs if not job.ended]:
        job = running[-1]
        condition: JobCondition = "running" if job.running else "ending" if job.ending else "restarting"
        return _observed(engine, record, job.id, condition if len(running) == 1 else "several")
    known = [job for job in jobs if record.is_newest(job.id)]
    if known:
        return _observed(engine, record, known[-1].id, _ENDED.get(known[-1].state, "failed"))
    condition = "not started" if record.state == "starting" else "lost"
    return JobObservation(name=record.name, job=record.job, condition=condition, results=sum(record.begun.values()))


def _observed(engine: StreamEngine, record: FeatureJobRecord, job: str, condition: JobCondition) -> JobObservation:
    try:
        state = engine.job_state(job)
    except CumulantError:  # the JobManager does not answer, or the engine is not asked for checkpoints
        state = JobState()
    path = state.path
    return JobObservation(
        name=record.name,
        job=job,
        condition=condition,
        restores=state.restores if condition == "running" else None,
        progressed=None if path is None else _last_parts(path) != _last_parts(record.resumed or ""),
        results=sum(record.begun.values()),
        folder=path.rpartition("/")[0] if path is not None and "/chk-" in path else None,
    )


def _last_parts(path: str) -> list[str]:
    """What names a checkpoint also where its URL is written in another way: that of its job, and its own."""
    return path.rstrip("/").split("/")[-2:]


def _watch(project: Project) -> JobWatch | None:
    return _parsed(project.journal().get(_WATCH, _WATCH))


def _parsed(row: Row | None) -> JobWatch | None:
    return None if row is None else msgspec.convert(row.value, JobWatch)


def _settled(project: Project, principal: Principal) -> FeatureJobRecord | None:
    """The record once no command starts or stops the job; None where one does, or has stopped it. One that was killed
    holds the lease no longer than that lasts.
    """
    lease = await_lease(project.journal(), LEASE, ttl=LEASE_SECONDS, actor=Actor(str(principal.id)))
    if lease is None:
        return None
    with lease.renewed():
        return _newest(project)


def _remember(
    project: Project, how: Callable[[JobWatch | None], tuple[JobWatch, bool]], principal: Principal
) -> tuple[JobWatch, bool]:
    """Write what is remembered after `how`, with the event of a change, and give its answer."""
    with project.journal().transaction(actor=Actor(str(principal.id))) as transaction:
        before = _parsed(transaction.get(_WATCH, _WATCH))
        after, due = how(before)
        if after != before:
            transaction.put(_WATCH, _WATCH, msgspec.to_builtins(after))
        known = before is not None and before.name == after.name
        was, faulty = (before.condition, before.faulty) if before is not None and known else ("running", False)
        if after.faulty and (not faulty or (after.condition != was and not after.looping)):
            condition = "looping" if after.looping else after.condition
            transaction.emit(FeatureJobFault(job=after.job, name=after.name, condition=condition))
        elif faulty and not after.faulty:
            transaction.emit(FeatureJobRecovered(job=after.job, name=after.name))
    return after, due


def _unreachable(
    project: Project, record: FeatureJobRecord, reason: str, principal: Principal, clock: Clock
) -> JobWatch:
    def how(before: JobWatch | None) -> tuple[JobWatch, bool]:
        return note_unreachable(before, record.name, record.job, reason, clock.now()), False

    return _remember(project, how, principal)[0]


def _start(
    project: Project, watch: JobWatch, record: FeatureJobRecord, principal: Principal, clock: Clock
) -> JobWatch | None:
    """Start the job again, and remember what came of it; None: a command has started or stopped it since."""
    try:
        started = restart_job(project, principal=principal, record=record)
    except CumulantError as error:
        text = error.full_text
        if watch.folder is not None:
            text = text.replace(UNKNOWN_CHECKPOINT, f"{watch.folder}/chk-N")
        # anything else may be over by itself
        refused = isinstance(error, ResumeRefusedError | ConflictError)
        after = note_failed_start(watch, text, refused=refused)
    else:
        if started is None:
            return None
        after = note_start(watch, started.job, clock.now())
    return _remember(project, lambda _: (after, False), principal)[0]


def _findings(project: Project, watch: JobWatch, now: datetime) -> Iterator[Finding]:
    if watch.faulty:
        yield Finding(
            model=project.name,
            rule=FEATURE_JOB,
            subject=watch.name,
            kind="feed",
            moved=f"the job {watch.job or watch.name} of features {_sentence(watch)}",
            since=watch.since,
            next=_next(watch, now),
        )
    if watch.unreachable_since is not None and watch.unreachable(now):
        yield Finding(
            model=project.name,
            rule=FEATURE_JOB,
            subject=ENGINE,
            kind="feed",
            moved=f"Flink does not answer, and the state of the job of features is unknown: {watch.unreachable_reason}",
            since=watch.unreachable_since,
            next="start its gateway, or check the URL of stream_engine; meanwhile nothing is started again",
        )


def _sentence(watch: JobWatch) -> str:
    return "starts and fails again and again" if watch.looping else _SENTENCES[watch.condition]


def _next(watch: JobWatch, now: datetime) -> str:
    if watch.given_up:
        return (
            f"it was started {MOST_WITHOUT_PROGRESS} times without a new checkpoint or result, and is not started again"
            f" by itself: see the log of Flink, and when its cause is fixed, `{_START}`"
        )
    if watch.refused:
        return f"it is not started again by itself, but examined each hour: {watch.failure}"
    due = watch.next_try(now)
    if due is None:
        return _NEXT.get(watch.condition, f"see the log of Flink; `{_STOP}` ends it")
    failure = f"; the last start failed: {watch.failure}" if watch.failure else ""
    limit = f", {MOST_TRIES} times an hour at most" if len(watch.tries) >= MOST_TRIES else ""
    return f"it is started again, and if it does not run then, at {instant(due)}{limit}{failure}"


def _alert(project: Project, findings: list[Finding] | tuple[()], principal: Principal, clock: Clock) -> None:
    """Evaluate the alerts. One of a job stays while the engine does not answer, since its condition is remembered."""
    active = [alert for alert in read(project.journal())[0].alerts.values() if alert.finding.rule == FEATURE_JOB]
    if findings or active:
        observe(project, findings, principal=principal, examined=[(project.name, FEATURE_JOB)], clock=clock)


def watch_jobs(
    project: Project, report: Callable[[str], object], *, pause: float = _ROUND
) -> AbstractContextManager[None]:
    """Supervise the job each `pause` seconds while the block lasts. Errors go to `report`."""
    # without an engine there is at most an alert to end, which is no reason to report that the journal is away
    quiet = () if project.endpoints.stream_engine is not None else (EngineUnavailableError,)

    def supervise() -> None:
        with suppress(*quiet):
            if is_supervised(project):
                supervise_job(project, principal=project.principal())

    return repeat_in_background(
        project, supervise, report, failure="the job of features is not supervised", pause=pause
    )
