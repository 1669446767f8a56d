"""What is to be done from time to time, each by whoever comes first: `cumulant tick`, from cron or any scheduler.

A job is done under a lease, so that of several ticks at once one does it; the lease of a process that is gone is taken
over. Every job may be cut off and run again.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError, DataError, EngineUnavailableError, LeaseHeldError, UsageError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.flows.alerting.alerts import deliver
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.lease import LeaseHandle, await_lease, holder_of
from cumulant.flows.ledger.refusals import ingest_refusals
from cumulant.flows.release.controller.rollback_outbox import undelivered_rollbacks
from cumulant.flows.release.store import list_models
from cumulant.flows.stack.stack_processes import program

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project

#: rows of jobs that were done
DUE = "job"
#: the lease of whoever does a job, and its length in seconds
_LEASE, LEASE_SECONDS = "job/{job}", 30.0
_ROUND_SECONDS = 600.0

Outcome = Literal["done", "not_due", "elsewhere", "failed"]


class ScheduledJob(msgspec.Struct, frozen=True, kw_only=True):
    """`run` does it and says in one sentence what it did; it may be cut off and run again."""

    name: str
    #: at least so long between two runs
    every: timedelta
    run: Callable[[Project], str]


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A job's row in the journal."""

    begun: datetime
    ended: datetime
    sentence: str = ""


class TickResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job in one tick. `elsewhere`: another process is doing it."""

    job: str
    outcome: Outcome
    sentence: str = ""
    last: datetime | None = None


@verb("project.tick")
def tick(
    project: Project,
    *,
    principal: Principal,
    jobs: Sequence[ScheduledJob] | None = None,
    clock: Clock | None = None,
    progress: Progress = silent,
    lease: float = LEASE_SECONDS,
) -> tuple[list[TickResult], CumulantError | None]:
    """Do once whatever is due; what became of each job, and the first error of those that failed.

    Raises:
        EngineUnavailableError: the journal does not answer.
    """
    results, first = [], None
    for job in JOBS if jobs is None else jobs:
        progress(job.name)
        ticked, error = _tick(project, job, Actor(str(principal.id)), clock or SystemClock(), ttl=lease)
        results.append(ticked)
        first = first or error
    return results, first


def _tick(
    project: Project, job: ScheduledJob, actor: Actor, clock: Clock, *, ttl: float
) -> tuple[TickResult, CumulantError | None]:
    journal, name = project.journal(), _LEASE.format(job=job.name)
    if (last := _last_run(journal, job, clock.now())) is not None:
        return last, None
    lease = await_lease(journal, name, ttl=ttl, actor=actor)
    if lease is None:
        holder = holder_of(journal, name) or "another process"
        return TickResult(job=job.name, outcome="elsewhere", sentence=f"{holder} does it"), None
    with lease.renewed():
        begun = clock.now()
        if (last := _last_run(journal, job, begun)) is not None:  # done while this process waited
            return last, None
        sentence, error = _run(project, job)
        _finish(journal, lease, job, JobRecord(begun=begun, ended=clock.now(), sentence=sentence), actor)
    return TickResult(job=job.name, outcome="failed" if error else "done", sentence=sentence, last=begun), error


def _last_run(journal: Journal, job: ScheduledJob, now: datetime) -> TickResult | None:
    """The result of a job that is not due yet."""
    row = journal.get(DUE, job.name)
    if row is None:
        return None
    record = msgspec.convert(row.value, JobRecord)
    # A clock that was set back does not hold a job up for longer than its pause.
    if timedelta() <= now - record.begun < job.every:
        return TickResult(job=job.name, outcome="not_due", sentence=record.sentence, last=record.begun)
    return None


def _run(project: Project, job: ScheduledJob) -> tuple[str, CumulantError | None]:
    try:
        return job.run(project), None
    except CumulantError as error:
        return error.message, error


def _finish(journal: Journal, lease: LeaseHandle, job: ScheduledJob, record: JobRecord, actor: Actor) -> None:
    try:
        with journal.transaction(actor=actor) as transaction:
            lease.confirm(transaction)
            transaction.put(DUE, job.name, msgspec.to_builtins(record))
    except LeaseHeldError:
        return  # it took so long that another took it over, whose record counts


def _scheduler(project: Project) -> Principal:
    """Who does the jobs: whoever runs `tick`, but by the schedule."""
    return msgspec.structs.replace(project.principal(), via="service")


def _run_release(project: Project) -> str:
    """A look of the release controller at each release, in a process of its own as under `cumulant up`."""
    if not list_models(project.journal()) and not undelivered_rollbacks(project):
        return "there is no release"
    line = [*program(project, "release"), "--once"]
    try:
        completed = subprocess.run(line, capture_output=True, text=True, timeout=_ROUND_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EngineUnavailableError(f"a round of the release took more than {_ROUND_SECONDS:g} s") from None
    if completed.returncode != 0:
        raise EngineUnavailableError(
            f"the round of the release failed: {_last(completed.stderr)}", subject=project.name
        )
    return _last(completed.stdout) or "one look at the release"


def _run_stored_features(project: Project) -> str:
    """Stored features that served versions read and the online store lost are filled again."""
    from cumulant.flows.maintenance.refill import describe, lost_tables, refill

    if not lost_tables(project):
        return "the online store has all that is served"
    return "; ".join(map(describe, refill(project, principal=_scheduler(project))))


def _run_monitoring(project: Project) -> str:
    """An evaluation of the served model, if anything was served."""
    # NumPy, Polars and what trains are imported by those who look only.
    from cumulant.flows.monitoring.run import run_monitoring
    from cumulant.flows.serving.predictions import prediction_log

    who = _scheduler(project)
    if not prediction_log(project, principal=who).days():
        return "nothing was served yet"
    try:
        run = run_monitoring(project, principal=who)
    except UsageError as error:
        # Faults of the project file or the definitions, and what was lost, are reported as failures.
        if type(error) not in (UsageError, DataError):
            raise
        return f"nothing to watch: {error.message}"
    active = sum(finding.active for finding in run.findings)
    return f"{active} finding{'' if active == 1 else 's'} in version {run.version}; {run.action.sentence}"


def _run_retraining(project: Project) -> str:
    """The training that monitoring started, as far as it gets now."""
    from cumulant.flows.monitoring.state import read_request

    wanted, _ = read_request(project.journal(), project.name)
    if wanted is None or not wanted.open:
        return "no retraining is requested"
    from cumulant.flows.monitoring.retraining import continue_retraining

    done = continue_retraining(project, principal=_scheduler(project))
    return "no retraining is requested" if done is None else f"{done.stage}: {done.message or done.sentence}"


def _run_review(project: Project) -> str:
    """A draw for the review queue, where enough of its budget is due, and what deadlines require."""
    if project.policies.monitoring.review is None:
        return "there is no review queue"
    # Polars is imported by those who draw only.
    from cumulant.flows.review.fill_queue import fill
    from cumulant.flows.review.service import ingest_decisions

    ingest_decisions(project, principal=_scheduler(project))
    return fill(project, principal=_scheduler(project)).sentence


def _run_objectives(project: Project) -> str:
    """Alerts on the objectives of the served model, by the log of the gateways."""
    from cumulant.flows.observe.objective_alerts import evaluate_objectives

    return evaluate_objectives(project, principal=_scheduler(project))


def _run_freshness(project: Project) -> str:
    """Alerts on the freshness objectives of stored features."""
    from cumulant.flows.features.freshness import evaluate_freshness

    return evaluate_freshness(project, principal=_scheduler(project))


def _run_feature_job(project: Project) -> str:
    """The job of another engine that computes features of streams, started again where it is lost."""
    from cumulant.flows.features.jobs.supervise_job import is_supervised, supervise_job

    if not is_supervised(project):
        return "the environment names no engine that runs jobs over streams"
    return supervise_job(project, principal=_scheduler(project))


def _run_verification(project: Project) -> str:
    """Served features against the history."""
    # Polars is imported by those who serve stored features only.
    from cumulant.flows.features.stored_tables import table_readers

    if not table_readers(project):
        return "no server reads stored features"
    from cumulant.flows.features.verify import verification_sentence, verify_features

    return verification_sentence(verify_features(project, principal=_scheduler(project)))


def _run_refusals(project: Project) -> str:
    """Events of the requests that prediction servers refused."""
    count = ingest_refusals(project)
    return f"refused requests that became events: {count}" if count else "no server refused a request"


def _run_checkpoint(project: Project) -> str:
    """A signed checkpoint of the event chain, where the environment has a place for them."""
    if project.endpoints.audit is None:
        return "the environment names no place for checkpoints"
    # The package that signs is imported by those who sign only.
    from cumulant.flows.governance.checkpoints import write_checkpoint

    written = write_checkpoint(project, principal=_scheduler(project))
    return f"checkpoint {written.key}" if written.new else "no new event"


def _run_retention(project: Project) -> str:
    """Tables of snapshots that expired by the `keep` of their source. Logs expire where they are written."""
    if all(source.keep is None for source in project.policies.sources.values()):
        return "no source has a keep"
    from cumulant.flows.maintenance.cleanup import clean

    try:
        removed = clean(project, principal=_scheduler(project), dry_run=False, expired_only=True)
    except LeaseHeldError as error:
        return f"nothing is removed beside a run: {error.message}"
    size = sum(item.bytes for item in removed)
    return f"removed {len(removed)} tables, {size:,} bytes" if removed else "no snapshot has expired"


def _run_streams(project: Project) -> str:
    """Small tables of streams put together; refused messages that are too old."""
    from cumulant.flows.data.stream_compaction import compact_streams

    done = compact_streams(project, principal=_scheduler(project))
    if not done.replaced and not done.removed:
        return "no table of a stream to put together"
    return f"tables of streams: {done.replaced} became {done.written}, {done.removed} removed"


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


#: a checkpoint is at most this old, as long as events come
CHECKPOINTS = ScheduledJob(name="checkpoints", every=timedelta(hours=1), run=_run_checkpoint)
#: in the order in which they run, messages last
JOBS: tuple[ScheduledJob, ...] = (
    ScheduledJob(name="release", every=timedelta(), run=_run_release),
    ScheduledJob(name="stored features", every=timedelta(), run=_run_stored_features),
    ScheduledJob(name="monitoring", every=timedelta(minutes=10), run=_run_monitoring),
    ScheduledJob(name="retraining", every=timedelta(), run=_run_retraining),
    ScheduledJob(name="review", every=timedelta(minutes=10), run=_run_review),
    ScheduledJob(name="objectives", every=timedelta(), run=_run_objectives),
    ScheduledJob(name="freshness", every=timedelta(), run=_run_freshness),
    ScheduledJob(name="feature job", every=timedelta(), run=_run_feature_job),
    ScheduledJob(name="feature verification", every=timedelta(hours=1), run=_run_verification),
    ScheduledJob(name="refusals", every=timedelta(), run=_run_refusals),
    ScheduledJob(name="streams", every=timedelta(minutes=10), run=_run_streams),
    CHECKPOINTS,
    ScheduledJob(name="retention", every=timedelta(hours=1), run=_run_retention),
    ScheduledJob(name="alerts", every=timedelta(), run=deliver),
)
