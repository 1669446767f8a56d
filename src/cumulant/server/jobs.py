"""Long operations as jobs: each runs in a process of its own, and a row of the journal says what became of it.

A job's process ends with the server. What it had done is kept as for every interrupted command: the same operation
again continues after the last finished step.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import IO, TYPE_CHECKING, Any, Literal

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import ConflictError, OverloadedError
from cumulant.core.events import Actor, Fact
from cumulant.core.progress import begins_step
from cumulant.core.system.child_processes import start
from cumulant.flows.ledger.processes import Process, is_gone, process_of
from cumulant.ports.access import Principal
from cumulant.project.file.layers import Layers

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project

KIND = "api_job"
#: jobs that run at once
MOST = 4
#: how long the row of a job is kept, and how many older ones are removed with each write
KEPT, _REMOVED = timedelta(days=30), 20
#: names of a job's steps that are remembered while it runs
_STEPS = 50
JobStatus = Literal["running", "succeeded", "failed", "cancelled", "lost"]


class JobSubmitted(Fact, frozen=True, kw_only=True):
    """A long operation begins; what it does are events of its own."""

    kind = "api.job_submitted"
    job: str
    operation: str


class JobCancelled(Fact, frozen=True, kw_only=True):
    """The actor asked a job to end."""

    kind = "api.job_cancelled"
    job: str
    operation: str


class JobEnded(Fact, frozen=True, kw_only=True):
    """A job has ended so."""

    kind = "api.job_ended"
    job: str
    operation: str
    status: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A long operation under way or ended; `lost`: it ended with its server, before it was done.

    `step` and `share` (0 to 1, where known): what it does now, as far as this server knows; `steps`: the names of the
    newest ones that it has begun.
    """

    id: str
    operation: str
    action: str
    principal: str
    status: JobStatus
    started: datetime
    ended: datetime | None = None
    step: str = ""
    share: float | None = None
    steps: tuple[str, ...] = ()
    result: Any = None
    error: dict[str, Any] | None = None
    process: Process | None = None


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a job's process is given on its standard input. `layers`: the files of the project as the server has taken
    them, whatever they are now; `arguments`: JSON, whose numbers may be of any size; `memory`: bytes that the process
    may hold, None where it may hold as much as there is.
    """

    folder: str
    environment: str
    layers: Layers
    principal: Principal
    operation: str
    action: str
    arguments: bytes
    memory: int | None = None


def job_request(
    project: Project, principal: Principal, operation: str, action: str, arguments: Mapping[str, Any]
) -> JobRequest:
    return JobRequest(
        folder=str(project.root),
        environment=project.environment,
        layers=project.file.layers,
        principal=principal,
        operation=operation,
        action=action,
        arguments=msgspec.json.encode(dict(arguments), enc_hook=str),  # of paths
    )


def encode_request(request: JobRequest) -> bytes:
    return msgspec.msgpack.encode(request, enc_hook=str)  # of paths


def decode_request(content: bytes) -> JobRequest:
    return msgspec.msgpack.decode(content, type=JobRequest, dec_hook=lambda kind, value: kind(value))


def start_process(request: JobRequest, *, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """The process of a job. It ends with the thread that calls this."""
    return start(
        # Without the folder that the server was started in, whose modules are none of the program's.
        [sys.executable, "-P", "-m", "cumulant.server.job_process"],
        content=encode_request(request),
        stdout=subprocess.PIPE,
        env=env,
        death_signal=signal.SIGTERM,
    )


class JobMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of a job's process: progress, or how it ended."""

    step: str = ""
    share: float | None = None
    ended: bool = False
    result: Any = None
    error: dict[str, Any] | None = None


class _Running:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.step, self.cancelled, self.lost = process, "", False, False
        self.share: float | None = None
        self.steps: tuple[str, ...] = ()


class Jobs:
    """The jobs of a server, of all its projects."""

    def __init__(self, *, most: int = MOST, clock: Clock | None = None) -> None:
        self._most, self._clock = most, clock or SystemClock()
        self._running: dict[str, _Running] = {}
        self._starting, self._closed = 0, False
        self._lock = threading.Lock()

    def submit(
        self, project: Project, principal: Principal, operation: str, action: str, arguments: Mapping[str, Any]
    ) -> Job:
        """Start a process for the operation of that name, whose action was checked, and return its job.

        Raises:
            OverloadedError: as many jobs run as may at once.
        """
        journal = project.journal()
        request = job_request(project, principal, operation, action, arguments)
        begun: list[Job | BaseException] = []
        ready = threading.Event()
        # The thread that starts a process has to live as long as it: the system ends the process with its thread.
        threading.Thread(target=self._run, args=(request, journal, begun, ready), name="job", daemon=True).start()
        ready.wait()
        if isinstance(begun[0], BaseException):
            raise begun[0]
        return begun[0]

    def list_all(self, journal: Journal) -> list[Job]:
        return [self._as_now(journal, msgspec.convert(row.value, Job)) for row in journal.rows(KIND)]

    def find(self, journal: Journal, identity: str) -> Job | None:
        row = journal.get(KIND, identity)
        return None if row is None else self._as_now(journal, msgspec.convert(row.value, Job))

    def cancel(self, journal: Journal, job: Job, *, by: str) -> None:
        """Ask a running job to end; its finished steps are kept. `by`: whose event that is, before it is done.

        Raises:
            ConflictError: it does not run, or another server runs it.
        """
        with self._lock:
            running = self._running.get(job.id)
        if running is None or job.status != "running":
            where = "another server runs it" if job.status == "running" else f"it is {job.status}"
            raise ConflictError(f"job {job.id} cannot be cancelled: {where}", subject=job.id)
        with journal.transaction(actor=Actor(by)) as transaction:
            transaction.emit(JobCancelled(job=job.id, operation=job.operation))
        running.cancelled = True
        running.process.terminate()

    def close(self, patience: float = 10.0) -> None:
        """End all jobs; each is recorded as lost: nobody has cancelled it."""
        with self._lock:
            self._closed = True
            running = list(self._running.values())
            for each in running:
                each.lost = True
                each.process.terminate()
        for each in running:
            try:
                each.process.wait(patience)
            except subprocess.TimeoutExpired:
                each.process.kill()

    def _as_now(self, journal: Journal, job: Job) -> Job:
        """A job with what this server knows of it; one whose process is gone is `lost`."""
        if job.status != "running":
            return job
        running = self._running.get(job.id)
        if running is not None:
            return msgspec.structs.replace(job, step=running.step, share=running.share, steps=running.steps)
        if job.process is None or not is_gone(job.process):
            return job
        row = journal.get(KIND, job.id)  # it may have ended since it was read
        job = job if row is None else msgspec.convert(row.value, Job)
        return msgspec.structs.replace(job, status="lost") if job.status == "running" else job

    def _run(
        self, request: JobRequest, journal: Journal, begun: list[Job | BaseException], ready: threading.Event
    ) -> None:
        try:
            job = self._start(request, journal)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            begun.append(error)
            return
        else:
            begun.append(job)
        finally:
            ready.set()
        running, last = self._running[job.id], None
        assert running.process.stdout is not None
        try:
            last = _follow(running, running.process.stdout)
        finally:
            running.process.wait()
            self._end(job, last, running, journal)

    def _start(self, request: JobRequest, journal: Journal) -> Job:
        identity = f"{self._clock.now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        with self._lock:
            if len(self._running) + self._starting >= self._most:
                raise OverloadedError(
                    f"{self._most} jobs run at once", hint="wait until one has ended, or cancel one", retry_after=30
                )
            self._starting += 1
        try:
            # Outside the lock: a large request is written while the process begins, which takes a second.
            process = start_process(request)
        except BaseException:
            with self._lock:
                self._starting -= 1
            raise
        with self._lock:
            self._starting -= 1
            self._running[identity] = _Running(process)
            if self._closed:  # the server ended meanwhile
                self._running[identity].lost = True
                process.terminate()
        job = Job(
            id=identity,
            operation=request.operation,
            action=request.action,
            principal=request.principal.id,
            status="running",
            started=self._clock.now(),
            process=process_of(process.pid),
        )
        try:
            write_job(journal, job, JobSubmitted(job=job.id, operation=job.operation))
        except BaseException:
            process.kill()
            process.wait()
            self._running.pop(identity)
            raise
        return job

    def _end(self, job: Job, last: JobMessage | None, running: _Running, journal: Journal) -> None:
        status: JobStatus = "succeeded"
        result, error = (None, None) if last is None else (last.result, last.error)
        if running.cancelled or running.lost:
            status, result = "cancelled" if running.cancelled else "lost", None
        elif last is None:
            code = running.process.returncode
            status, error = (
                "failed",
                {"code": "unexpected", "error": f"its process ended with {code}", "retryable": True},
            )
        elif error is not None:
            status = "failed"
        ended = msgspec.structs.replace(
            job,
            status=status,
            ended=self._clock.now(),
            result=result,
            error=error,
            step=running.step,
            steps=running.steps,
        )
        try:
            write_job(journal, ended, JobEnded(job=job.id, operation=job.operation, status=status))
        finally:
            with self._lock:
                self._running.pop(job.id, None)


def _follow(running: _Running, stream: IO[bytes]) -> JobMessage | None:
    """Read what a job's process writes; how it ended, None where it did not say."""
    last = None
    with stream:
        for line in stream:
            try:
                message = msgspec.json.decode(line, type=JobMessage)
            except msgspec.DecodeError:  # its process was killed while it wrote
                continue
            if message.ended:
                last = message
            else:
                running.step, running.share = message.step, message.share
                if begins_step(message.step, message.share) and message.step not in running.steps:
                    running.steps = (*running.steps, message.step)[-_STEPS:]
    return last


def write_job(journal: Journal, job: Job, fact: Fact) -> None:
    """Write the row and its event; rows of jobs that ended long ago are removed, some at a time."""
    with journal.transaction(actor=Actor(job.principal)) as transaction:
        for row in transaction.rows(KIND, limit=_REMOVED):
            old = msgspec.convert(row.value, Job)
            if old.id != job.id and job.started - old.started > KEPT:
                transaction.delete(KIND, row.key)
        transaction.put(KIND, job.id, msgspec.to_builtins(job))
        transaction.emit(fact)
