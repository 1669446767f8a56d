"""The step ledger: what is done is found, what is in progress is leased, what was cut off is taken over.

A step's identity is the hash of its name, inputs and code. Its row in the journal says whether it is running
(and in which process), done (with the result) or failed. The row's version is the fencing token: every write
names the version that the writer holds, so a process that slept through its lease changes nothing.

A holder raises the version again and again. Whoever waits takes the step over when the version has stood still
for the lease's length *on the waiter's own clock*, so clocks are never compared; a process of the same machine
that is gone is noticed at once.
"""

from __future__ import annotations

import secrets
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError, DefinitionError, causes, is_interrupt
from cumulant.core.events import Actor, Event, Fact
from cumulant.core.ids import canonical, digest
from cumulant.core.progress import Progress, silent
from cumulant.flows.ledger.lease import BEATS, LeaseRenewal
from cumulant.flows.ledger.ledger_records import (
    RUN,
    STEP,
    Json,
    RunRecord,
    RunVerdict,
    StepRecord,
    StepUse,
    describe,
    ending,
    read_step,
)
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.ledger.run_events import RunStarted, StepFailed, StepFinished, StepReused, end_of
from cumulant.flows.ledger.step_lease import OVERTAKEN, StepHeartbeat, StepWatch, raise_failure, take_step
from cumulant.ports.journal import Journal, Row, Transaction

LEASE = timedelta(seconds=60)

Call = Callable[[], Mapping[str, object]]
Verify = Callable[[Json], bool]
Write = Callable[[Transaction, Json], None]


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """A step's result. `seconds` is what the work took, also where it was done before."""

    name: str
    identity: str
    result: Json
    reused: bool
    seconds: float


class _Work(msgspec.Struct, frozen=True, kw_only=True):
    """One demand for a step."""

    name: str
    inputs: object
    code: str
    identity: str
    call: Call
    write: Write | None
    cancel: threading.Event


def identity_of(name: str, inputs: object, code: str = "") -> str:
    """The key of a step's row."""
    return digest({"name": name, "inputs": inputs, "code": code})


class Ledger:
    """The steps of one run; threads may share it. Made by `Ledger.open`, which keeps the run's own row.

    Args:
        journal: where rows and events are.
        actor: who acts, for the events.
        run: the run's id.
        lease: how long a holder may be silent before others take over; it speaks six times in that span.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        actor: Actor,
        run: str,
        clock: Clock | None = None,
        lease: timedelta = LEASE,
        cause: str | None = None,
    ) -> None:
        self.journal = journal
        self.actor = actor
        self.run = run
        #: what the model's gate said in this run, set by the flow that evaluated it
        self.verdict: RunVerdict | None = None
        self._cause = cause
        #: of a quiet run that has reported nothing yet: what it reports first
        self._unreported: list[Fact] = []
        self._clock = clock or SystemClock()
        self._lease = lease.total_seconds()
        self._entered = threading.local()

    @classmethod
    @contextmanager
    def open(
        cls,
        journal: Journal,
        *,
        flow: str,
        actor: Actor,
        settings: Mapping[str, object] | None = None,
        clock: Clock | None = None,
        lease: timedelta = LEASE,
        quiet: bool = False,
    ) -> Iterator[Ledger]:
        """A run of `flow`, with its row and its events; it ends with the block, as its exception says.

        `settings` is JSON without secrets: it is stored. A `quiet` run that finds every step done, and neither writes
        nor fails, leaves neither: it has a row while it runs, for `clean` to see, and reports nothing.
        """
        clock = clock or SystemClock()
        started = clock.now()
        run = f"{started:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        record = RunRecord(
            id=run,
            flow=flow,
            status="running",
            principal=actor.name,
            settings=msgspec.json.decode(canonical(settings or {})),
            process=this_process(),
            lease=lease.total_seconds(),
            started=started,
        )
        ledger = cls(journal, actor=actor, run=run, clock=clock, lease=lease)
        ledger._unreported = [RunStarted(flow=flow)]
        begun, written = time.monotonic(), False
        try:
            with ledger._transaction(report=not quiet) as tx:
                tx.put(RUN, run, msgspec.to_builtins(record), expect=0)
            written = True
            with LeaseRenewal(ledger._renew_run, every=lease.total_seconds() / BEATS):
                yield ledger
            ledger._end(begun, None)
        except BaseException as error:
            if written or is_interrupt(error):
                _release(error)
                # A disk that is full for the step is full for this too; the step's error is the one to report.
                with suppress(CumulantError):
                    ledger._end(begun, error)
            raise

    @property
    def cause(self) -> str | None:
        return self._cause  # the id of the run's first event; None before it is reported

    def step(
        self,
        name: str,
        inputs: object,
        call: Call,
        *,
        code: str = "",
        verify: Verify | None = None,
        write: Write | None = None,
        cancel: threading.Event | None = None,
        progress: Progress = silent,
    ) -> StepResult:
        """The result of the step, found or worked out, by one process at a time and no more often than needed.

        Args:
            name: what the step does, such as `features.compute`.
            inputs: JSON: everything that the result depends on, artefacts by their content names.
            call: does the work and gives a JSON object. Artefacts that it names must be stored when it returns.
            code: the version of the code that does it.
            verify: says whether a found result still holds (its artefacts exist); if not, the step is done again.
            write: state rows and facts that become visible together with the result; not called for a found one.
            cancel: set once the lease is lost, after which the work is in vain.
            progress: reported while another process works on the step.

        Raises:
            CumulantError: the step's own, recorded first; another process's, where that failed while this waited.
        """
        key, cancel = identity_of(name, inputs, code), cancel or threading.Event()
        work = _Work(name=name, inputs=inputs, code=code, identity=key, call=call, write=write, cancel=cancel)
        watch = StepWatch(name, clock=self._clock, progress=progress)
        with self._once(work):
            while True:
                row = self.journal.get(STEP, work.identity)
                record = read_step(row) if row else None
                if row and record:
                    if record.result is not None and (verify is None or verify(record.result)):
                        return self._reuse(work, record, record.result)
                    if record.status == "running" and not watch.may_take(row, record):
                        watch.pause(record)
                        continue
                    raise_failure(record, watch)
                if done := self._attempt(work, row, record):
                    return done

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A write transaction of the journal in this run's name."""
        with self._transaction(report=True) as tx:
            yield tx

    @contextmanager
    def _transaction(self, *, report: bool) -> Iterator[Transaction]:
        with self.journal.transaction(actor=self.actor, run=self.run) as tx:
            if report and self._unreported:
                first, *others = self._unreported
                self._cause = tx.emit(first).id
                for fact in others:
                    tx.emit(fact, cause=self._cause)
            yield tx
            if report:
                self._unreported = []

    def emit(self, fact: Fact) -> Event:
        """Report a fact by itself. What belongs to a state row goes into that row's transaction instead."""
        with self.transaction() as tx:
            return tx.emit(fact, cause=self._cause)

    def _attempt(self, work: _Work, row: Row | None, previous: StepRecord | None) -> StepResult | None:
        """Take the step and do it; None where another process has it, before or after the work."""
        record = StepRecord(
            name=work.name,
            status="running",
            inputs=msgspec.json.decode(canonical(work.inputs)),
            code=work.code,
            attempt=previous.attempt + 1 if previous else 1,
            run=self.run,
            holder=this_process(),
            lease=self._lease,
            started=self._clock.now(),
        )
        begun, cause = time.monotonic(), self._cause
        heart: StepHeartbeat | None = None
        try:
            version, cause = self._take(work, record, row, previous)
            begun = time.monotonic()
            heart = StepHeartbeat(partial(self._beat, work, record), version, lost=work.cancel)
            with LeaseRenewal(heart.beat, every=self._lease / BEATS):
                result = self._run(work)
            done = msgspec.structs.replace(record, status="done", seconds=_since(begun), result=result)
            self._finish(work, done, result, heart.version, cause)
        except BaseException as error:
            if isinstance(error, OVERTAKEN) and (heart is None or self._lost(work, heart.version)):
                return None
            if heart is not None or is_interrupt(error):
                self._give_up(work, record, begun=begun, error=error, cause=cause)
            raise
        return StepResult(name=work.name, identity=work.identity, result=result, reused=False, seconds=done.seconds)

    def _take(self, work: _Work, record: StepRecord, row: Row | None, previous: StepRecord | None) -> tuple[int, str]:
        with self.transaction() as tx:
            return take_step(tx, work.identity, record, row, previous, cause=self._cause)

    def _run(self, work: _Work) -> Json:
        """Do the work. The result is what JSON makes of it, as it will be when it is found again."""
        result = work.call()
        try:
            return msgspec.json.decode(msgspec.json.encode(result), type=Json)
        except (TypeError, msgspec.MsgspecError) as error:
            raise DefinitionError(
                f"the result of step {work.name} is not a JSON object: {error}", subject=work.name
            ) from error

    def _finish(self, work: _Work, done: StepRecord, result: Json, version: int, cause: str) -> None:
        fact = StepFinished(step=work.identity, name=work.name, attempt=done.attempt, seconds=done.seconds)
        with self.transaction() as tx:
            tx.put(STEP, work.identity, msgspec.to_builtins(done), expect=version)
            if work.write is not None:
                work.write(tx, result)
            self._note(tx, StepUse(work.name, work.identity, reused=False, seconds=done.seconds))
            tx.emit(fact, cause=cause)

    def _reuse(self, work: _Work, record: StepRecord, result: Json) -> StepResult:
        with self._transaction(report=False) as tx:
            if self._note(tx, StepUse(work.name, work.identity, reused=True)):
                fact = StepReused(step=work.identity, name=work.name)
                if self._unreported:
                    self._unreported.append(fact)
                else:
                    tx.emit(fact, cause=self._cause)
        return StepResult(name=work.name, identity=work.identity, result=result, reused=True, seconds=record.seconds)

    def _give_up(
        self, work: _Work, record: StepRecord, *, begun: float, error: BaseException, cause: str | None
    ) -> None:
        """Record the failure and release the lease, if this attempt still has it."""
        _release(error)
        interrupted = is_interrupt(error)
        failed = msgspec.structs.replace(
            record, status="interrupted" if interrupted else "failed", seconds=_since(begun), error=describe(error)
        )
        fact = StepFailed(
            step=work.identity,
            name=work.name,
            attempt=record.attempt,
            seconds=failed.seconds,
            error=describe(error),
            interrupted=interrupted,
        )
        # What cannot be recorded (a full disk, a lost lease) must not hide the error itself; the lease ends by itself.
        with suppress(CumulantError), self.transaction() as tx:
            row = tx.get(STEP, work.identity)
            step = read_step(row) if row else None
            if row and step and (step.run, step.attempt, step.status) == (self.run, record.attempt, "running"):
                tx.put(STEP, work.identity, msgspec.to_builtins(failed), expect=row.version)
                tx.emit(fact, cause=cause)

    def _beat(self, work: _Work, record: StepRecord, version: int) -> int:
        with self.transaction() as tx:
            return tx.put(STEP, work.identity, msgspec.to_builtins(record), expect=version).version

    def _renew_run(self) -> None:
        """Raise the version of the run's row, which shows others that the run goes on."""
        with self._transaction(report=False) as tx:
            if row := tx.get(RUN, self.run):
                tx.put(RUN, self.run, row.value)

    def _lost(self, work: _Work, version: int) -> bool:
        row = self.journal.get(STEP, work.identity)
        return row is None or row.version != version

    def _note(self, tx: Transaction, use: StepUse) -> bool:
        """Add the step to the run's row, once. False where it stands there already."""
        row = tx.get(RUN, self.run)
        if row is None:
            return True
        run = msgspec.convert(row.value, RunRecord)
        if use in run.steps:
            return False
        tx.put(RUN, self.run, msgspec.to_builtins(msgspec.structs.replace(run, steps=(*run.steps, use))))
        return True

    def _end(self, begun: float, error: BaseException | None) -> None:
        seconds = _since(begun)
        quiet = bool(self._unreported) and error is None
        with self._transaction(report=not quiet) as tx:
            if quiet:
                tx.delete(RUN, self.run)
                return
            row = tx.get(RUN, self.run)
            if row is None:
                return
            run = msgspec.convert(row.value, RunRecord)
            if run.finished:  # an interrupt came after the end was written
                return
            run = msgspec.structs.replace(
                run,
                status=ending(error) if error else "done",
                finished=self._clock.now(),
                seconds=seconds,
                error=describe(error) if error else None,
                verdict=self.verdict,
            )
            tx.put(RUN, self.run, msgspec.to_builtins(run))
            tx.emit(end_of(run), cause=self._cause)

    @contextmanager
    def _once(self, work: _Work) -> Iterator[None]:
        """Refuse a step inside itself, which would wait for itself for ever."""
        entered: set[str] = self._entered.__dict__.setdefault("steps", set())
        if work.identity in entered:
            raise DefinitionError(f"step {work.name} needs its own result", subject=work.name)
        entered.add(work.identity)
        try:
            yield
        finally:
            entered.discard(work.identity)


def _release(error: BaseException) -> None:
    """Let go of what the frames of an interrupt hold: a connection amid a transaction locks the journal as long."""
    if is_interrupt(error):
        for below in causes(error):
            traceback.clear_frames(below.__traceback__)


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)
