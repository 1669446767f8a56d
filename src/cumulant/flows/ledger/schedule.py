"""What is to be done from time to time, each by whoever comes first: `cumulant tick`, from cron or any scheduler.

A job is claimed in the journal before it runs, so that of several ticks at once one does it; a claim whose process
has gone is taken over. Every job may be cut off and run again.
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
from cumulant.flows.ledger.actions import check
from cumulant.flows.ledger.processes import Process, is_gone, this_process
from cumulant.flows.release.controller.rollback_outbox import owing
from cumulant.flows.release.store import models
from cumulant.flows.stack.programs import controller

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal, Row
    from cumulant.project.project import Project

DUE = "due"
#: a claim of a process on another machine is good for so long
_CLAIM = timedelta(hours=6)
_ROUND_SECONDS = 600.0

Outcome = Literal["done", "not_due", "elsewhere", "failed"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`run` does it and says in one sentence what it did; it may be cut off and run again."""

    name: str
    #: at least so long between two runs
    every: timedelta
    run: Callable[[Project], str]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A job's row in the journal."""

    begun: datetime
    ended: datetime | None = None
    holder: Process
    said: str = ""


class Ticked(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job in one tick. `elsewhere`: another process is doing it."""

    job: str
    outcome: Outcome
    said: str = ""
    last: datetime | None = None


def tick(
    project: Project,
    *,
    principal: Principal,
    jobs: Sequence[Job] | None = None,
    clock: Clock | None = None,
    progress: Progress = silent,
) -> tuple[list[Ticked], CumulantError | None]:
    """Do once whatever is due; what became of each job, and the first error of those that failed.

    Raises:
        EngineUnavailableError: the journal does not answer.
    """
    check(project.access(), principal, "project.tick", project.name)
    found, first = [], None
    for job in JOBS if jobs is None else jobs:
        progress(job.name)
        ticked, error = _tick(project, job, principal, clock or SystemClock())
        found.append(ticked)
        first = first or error
    return found, first


def _tick(project: Project, job: Job, principal: Principal, clock: Clock) -> tuple[Ticked, CumulantError | None]:
    journal, actor, now = project.journal(), Actor(str(principal.name)), clock.now()
    row = journal.get(DUE, job.name)
    record = None if row is None else msgspec.convert(row.value, Record)
    if record is not None:
        if record.ended is None and not _given_up(record, now):
            return Ticked(job=job.name, outcome="elsewhere", said=f"{record.holder} does it", last=record.begun), None
        # A clock that was set back does not hold a job up for longer than its pause.
        if record.ended is not None and timedelta() <= now - record.begun < job.every:
            return Ticked(job=job.name, outcome="not_due", said=record.said, last=record.begun), None
    claim = Record(begun=now, holder=this_process())
    try:
        version = _write(journal, job, claim, row, actor)
    except LeaseHeldError:
        return Ticked(job=job.name, outcome="elsewhere", last=now), None
    said, error = _run(project, job)
    done = msgspec.structs.replace(claim, ended=clock.now(), said=said)
    _finish(journal, job, done, version, actor)
    return Ticked(job=job.name, outcome="failed" if error else "done", said=said, last=now), error


def _given_up(record: Record, now: datetime) -> bool:
    return is_gone(record.holder) or abs(now - record.begun) > _CLAIM


def _run(project: Project, job: Job) -> tuple[str, CumulantError | None]:
    try:
        return job.run(project), None
    except CumulantError as error:
        return error.message, error


def _write(journal: Journal, job: Job, record: Record, row: Row | None, actor: Actor) -> int:
    with journal.transaction(actor=actor) as transaction:
        put = transaction.put(DUE, job.name, msgspec.to_builtins(record), expect=row.version if row else 0)
    return put.version


def _finish(journal: Journal, job: Job, record: Record, version: int, actor: Actor) -> None:
    try:
        with journal.transaction(actor=actor) as transaction:
            transaction.put(DUE, job.name, msgspec.to_builtins(record), expect=version)
    except LeaseHeldError:
        return  # it took so long that another took it over, whose record counts


def _release_round(project: Project) -> str:
    """A look of the release controller at each release, in a process of its own as under `cumulant up`."""
    if not models(project.journal()) and not owing(project):
        return "there is no release"
    line = [*controller(project), "--once"]
    try:
        found = subprocess.run(line, capture_output=True, text=True, timeout=_ROUND_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EngineUnavailableError(f"a round of the release took more than {_ROUND_SECONDS:g} s") from None
    if found.returncode != 0:
        raise EngineUnavailableError(f"the round of the release failed: {_last(found.stderr)}", subject=project.name)
    return _last(found.stdout) or "one look at the release"


def _monitoring_round(project: Project) -> str:
    """A look at the served model, if anything was served."""
    # NumPy, Polars and what trains are imported by those who look only.
    from cumulant.flows.monitoring.run import watch_round
    from cumulant.flows.serving.predictions import log_folder

    who = project.principal()
    if not log_folder(project, principal=who).is_dir():
        return "nothing was served yet"
    try:
        found = watch_round(project, principal=who)
    except UsageError as error:
        # Faults of the project file or the definitions, and what was lost, are told as failures.
        if type(error) not in (UsageError, DataError):
            raise
        return f"nothing to watch: {error.message}"
    active = sum(one.active for one in found.findings)
    return f"{active} finding{'' if active == 1 else 's'} in version {found.version}; {found.action.sentence}"


def _retraining_round(project: Project) -> str:
    """The training that monitoring asked for, as far as it goes now."""
    from cumulant.flows.monitoring.state import read_wanted

    wanted, _ = read_wanted(project.journal(), project.name)
    if wanted is None or not wanted.open:
        return "no training is asked for"
    from cumulant.flows.monitoring.retraining import go_on

    done = go_on(project, principal=project.principal())
    return "no training is asked for" if done is None else f"{done.stage}: {done.said or done.sentence}"


def _review_round(project: Project) -> str:
    """A draw for the review queue, where enough of its budget is due, and what deadlines ask for."""
    if project.policies.monitoring.review is None:
        return "there is no review queue"
    # Polars is imported by those who draw only.
    from cumulant.flows.review.fill_queue import fill
    from cumulant.flows.review.service import tell

    tell(project, principal=project.principal())
    return fill(project, principal=project.principal()).said


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


#: in the order in which they run, messages last
JOBS: tuple[Job, ...] = (
    Job(name="release", every=timedelta(), run=_release_round),
    Job(name="monitoring", every=timedelta(minutes=10), run=_monitoring_round),
    Job(name="retraining", every=timedelta(), run=_retraining_round),
    Job(name="review", every=timedelta(minutes=10), run=_review_round),
    Job(name="alerts", every=timedelta(), run=deliver),
)
