"""The job that was started last: looked at from time to time, an alert where it does not run, and started again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.alert_state import Finding
from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError, DeadlineError, EngineUnavailableError, LeaseHeldError, NotFoundError
from cumulant.core.events import Actor
from cumulant.features.events import FeatureJobFault, FeatureJobRecovered
from cumulant.features.flink.job_watch import (
    MOST_TRIES,
    JobCondition,
    JobSight,
    JobWatch,
    failed_try,
    look,
    look_away,
)
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.alerting.store import read
from cumulant.flows.features.jobs.job_record import FeatureJobRecord, job_records, own_jobs
from cumulant.flows.features.jobs.run_job import LEASE, LEASE_SECONDS, start_job
from cumulant.flows.ledger.lease import await_lease
from cumulant.flows.maintenance.rounds import repeat_in_background
from cumulant.flows.reports.wording import instant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cumulant.ports.access import Principal
    from cumulant.ports.compute import StreamEngine, StreamJob
    from cumulant.ports.journal import Row
    from cumulant.project.project import Project

#: the rule of the alerts on jobs
FEATURE_JOB = "feature_job"
#: the subject of the alert on an engine that does not answer
ENGINE = "stream_engine"
_WATCH = "feature_job_watch"
#: seconds between two looks
_ROUND = 30.0
#: words of the engine for jobs that have ended
_ENDED: Mapping[str, JobCondition] = {"CANCELED": "cancelled", "FINISHED": "stopped"}
_SENTENCES: Mapping[JobCondition, str] = {
    "restarting": "restarts again and again",
    "several": "runs more than once, and may write each result more than once",
    "cancelled": "was cancelled in Flink",
    "stopped": "was stopped in Flink",
    "failed": "has failed",
    "lost": "is not known to Flink any more",
    "not started": "did not start",
}
_START, _STOP = "cumulant features start-job", "cumulant features stop-job"
#: what an operator does about it, where the supervision does nothing
_NEXT: Mapping[JobCondition, str] = {
    "restarting": f"see the log of Flink; `{_STOP}` ends it",
    "several": f"stop them, `{_STOP}`, delete the topic of results, and start again: `{_START} --from beginning`",
    "cancelled": f"start it again, `{_START}`, or record that it is stopped: `{_STOP}`",
    "stopped": f"start it again, `{_START}`, or record that it is stopped: `{_STOP}`",
}


def supervise_job(project: Project, *, principal: Principal, clock: Clock | None = None) -> str:
    """Look at the job of the definition that was started last, and start it again where it failed, is lost or did not
    start; the result in a sentence. It writes nothing while the job runs as before, and asks nothing where none was
    started or all were stopped.

    A start is that of `start_job`, with pauses that grow, a bounded number of times an hour. What that refuses, and
    what an operator ended by tools of the engine, is an alert until an operator does something.

    Raises:
        EngineUnavailableError: the journal does not answer.
    """
    clock = clock or SystemClock()
    engine, record = project.stream_engine(), _newest(project)
    if engine is None or record is None or record.stopped:
        _alert(project, (), principal, clock)
        return "no job is to run"
    try:
        sight = _sight(project, engine, record)
        before = _watch(project)
        if sight.condition not in {"running", "restarting", "ending"} and look(before, sight, clock.now())[0] != before:
            # a command may start or stop it at this moment
            settled = _settled(project, principal)
            if settled is None:
                return "a command starts or stops the job, or has stopped it"
            sight = _sight(project, engine, settled)
    except CumulantError as error:
        watch = _unseen(project, record, error.message, principal, clock)
    else:
        watch, due = _remember(project, lambda before: look(before, sight, clock.now()), principal)
        if due:
            watch = _start(project, watch, principal)
    now = clock.now()
    findings = list(_findings(project, watch, now))
    _alert(project, findings, principal, clock)
    if watch.silent is not None and not findings:
        return f"Flink does not answer: {watch.silence}"
    return "; ".join(f"{finding.moved}: {finding.next}" for finding in findings) or f"the job {watch.job} runs"


def _newest(project: Project) -> FeatureJobRecord | None:
    """The record of the definition that was started last."""
    return max(job_records(project).values(), key=lambda record: record.started, default=None)


def _sight(project: Project, engine: StreamEngine, record: FeatureJobRecord) -> JobSight:
    jobs = [job for job in own_jobs(project, engine) if job.name == record.name]
    if running := [job for job in jobs if not job.ended]:
        return _running(engine, record, running)
    known = [job for job in jobs if record.is_newest(job.id)]
    if known:
        return JobSight(name=record.name, job=known[-1].id, condition=_ENDED.get(known[-1].state, "failed"))
    return JobSight(name=record.name, job=record.job, condition="not started" if record.state == "starting" else "lost")


def _running(engine: StreamEngine, record: FeatureJobRecord, running: list[StreamJob]) -> JobSight:
    job, restores = running[-1], None
    condition: JobCondition = "running" if job.running else "ending" if job.ending else "restarting"
    if len(running) > 1:
        condition = "several"
    elif condition == "running":
        try:
            restores = engine.job_state(job.id).restores
        except NotFoundError:  # nobody can say
            restores = None
    return JobSight(name=record.name, job=job.id, condition=condition, restores=restores)


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
        record = _newest(project)
    return None if record is None or record.stopped else record


def _remember(
    project: Project, how: Callable[[JobWatch | None], tuple[JobWatch, bool]], principal: Principal
) -> tuple[JobWatch, bool]:
    """Write what is remembered after `how`, with the event of a change, and give its answer."""
    with project.journal().transaction(actor=Actor(str(principal.id))) as transaction:
        before = _parsed(transaction.get(_WATCH, _WATCH))
        after, due = how(before)
        if after != before:
            transaction.put(_WATCH, _WATCH, msgspec.to_builtins(after))
        was = "running" if before is None or before.name != after.name else before.condition
        if after.condition != was and after.faulty:
            transaction.emit(FeatureJobFault(job=after.job, name=after.name, condition=after.condition))
        elif after.condition != was:
            transaction.emit(FeatureJobRecovered(job=after.job, name=after.name))
    return after, due


def _unseen(project: Project, record: FeatureJobRecord, reason: str, principal: Principal, clock: Clock) -> JobWatch:
    def how(before: JobWatch | None) -> tuple[JobWatch, bool]:
        return look_away(before, record.name, record.job, reason, clock.now()), False

    return _remember(project, how, principal)[0]


def _start(project: Project, watch: JobWatch, principal: Principal) -> JobWatch:
    """Start the job again, and remember why that failed."""
    try:
        start_job(project, principal=principal, only=watch.name)
    except (EngineUnavailableError, DeadlineError, LeaseHeldError) as error:
        after = failed_try(watch, error.message, refused=False)
    except CumulantError as error:
        text = f"{error.message}; {error.hint}" if error.hint else error.message
        after = failed_try(watch, text, refused=True)
    else:
        return watch
    return _remember(project, lambda _: (after, False), principal)[0]


def _findings(project: Project, watch: JobWatch, now: datetime) -> Iterator[Finding]:
    if watch.faulty:
        yield Finding(
            model=project.name,
            rule=FEATURE_JOB,
            subject=watch.name,
            kind="feed",
            moved=f"the job {watch.job or watch.name} of features {_SENTENCES[watch.condition]}",
            since=watch.since,
            next=_next(watch, now),
        )
    if watch.silent is not None and watch.unreachable(now):
        yield Finding(
            model=project.name,
            rule=FEATURE_JOB,
            subject=ENGINE,
            kind="feed",
            moved=f"Flink does not answer, and nobody sees whether the job of features runs: {watch.silence}",
            since=watch.silent,
            next="start its gateway, or check the URL of stream_engine; meanwhile nothing is started again",
        )


def _next(watch: JobWatch, now: datetime) -> str:
    if watch.refused:
        return f"it is not started again by itself: {watch.failure}"
    due = watch.next_try(now)
    if due is None:
        return _NEXT[watch.condition]
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
    """Look at the job each `pause` seconds while the block lasts. Errors go to `report`."""

    def supervise() -> None:
        supervise_job(project, principal=project.principal())

    return repeat_in_background(
        project, supervise, report, failure="the job of features is not supervised", pause=pause
    )
