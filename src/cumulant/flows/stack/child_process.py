"""One process under the supervisor and its log file. It never outlives the process that started it."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from cumulant.core.system.child_processes import RestartDelay, kill_group
from cumulant.flows.ledger.processes import Process, process_of
from cumulant.flows.serving.spawning import spawn
from cumulant.flows.stack.events import ProcessEnded, ProcessStarted, describe_exit, unreported
from cumulant.flows.stack.reconcile import Kind, PresentProcess, WantedProcess
from cumulant.flows.stack.status import ChildStatus, State

#: a life that has answered for so many seconds is no crash loop: the next start has no delay
LONG_LIFE = 5.0
#: seconds, at most, between the starts of a crash loop
LONGEST_DELAY = 10.0
#: seconds for which a process that was ready may give no sign before it is ended and started again
HANG = 30.0
#: seconds after whose start a process of a kind is not ready, where it has not answered; others may load for long
_STARTS: Mapping[Kind, float] = {"controller": 120.0}
#: what is not ended where it does not answer: a step of it may take long, and it would begin the same again
_NEVER_ENDED: frozenset[Kind] = frozenset({"controller"})
#: seconds between the polite request to end and the end
PATIENCE = 40.0
_MINUTE = 60.0
#: of a log file, from which it is set aside
MOST_BYTES = 8 * 1024 * 1024
_TAIL = 4096
_LONGEST = 300


class LogFile:
    """`NAME.log`, and `NAME.log.1` with what was written before."""

    def __init__(self, path: Path, *, most: int = MOST_BYTES) -> None:
        self.path = path
        self._most = most

    def open(self) -> IO[bytes]:
        """The file for a process; every write appends, also after `rotate`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.open("ab")

    def rotate(self) -> None:
        """Set aside what a file of too many bytes holds, and empty it; its writer continues."""
        with suppress(OSError):  # a full disk: the next time
            if self.path.stat().st_size > self._most:
                shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.1"))
                os.truncate(self.path, 0)

    def remove(self) -> None:
        for path in (self.path, self.path.with_name(f"{self.path.name}.1")):
            with suppress(OSError):
                path.unlink()

    def last_line(self) -> str:
        """The last line; empty for an empty file."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
                lines = stream.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return last[:_LONGEST]


class Child:
    """All times but `since` and `not_ready_since` are of a steady clock."""

    def __init__(
        self,
        wanted: WantedProcess,
        log: LogFile,
        *,
        salt: bytes | None = None,
        report: Callable[[ProcessStarted | ProcessEnded], None] = unreported,
    ) -> None:
        self.wanted = wanted
        self.log = log
        self._report = report
        #: why it ends or has ended; empty in a life whose end was not requested
        self._cause = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.identity: Process | None = None
        self.ready = False
        #: what a server that is ready cannot do
        self.trouble = ""
        #: why it is not ready, where that is known
        self.fault = ""
        self.drained = False
        self._salt = salt
        self._began = self._heard = self._due = self._stopped = 0.0
        #: when it first answered in this life
        self._answered: float | None = None
        self._since: datetime | None = None
        self._not_ready_since: datetime | None = None
        self._delay = RestartDelay(LONGEST_DELAY)
        #: the start of this life, where it is reported only when the life turns out to be long
        self._withheld: ProcessStarted | None = None
        #: it was ready once, in any life
        self.has_answered = False
        self._restarts: list[float] = []
        self.starts = 0
        #: when it was last wanted; None while it is
        self.unwanted: float | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None

    @property
    def stopping(self) -> bool:
        return self._stopped > 0

    @property
    def is_heard(self) -> bool:
        """Whether it has answered in this life."""
        return self._heard > self._began

    def age(self, now: float) -> float:
        return now - self._began

    def present(self) -> PresentProcess:
        return PresentProcess(
            command=self.wanted.command,
            alive=self.alive,
            generation=self.wanted.generation,
            stopping=self.stopping,
            drained=self.drained,
            due=self._due,
        )

    def start(self, wanted: WantedProcess, now: float, at: datetime) -> None:
        """Start it, with death by its starter's death. An error of the system counts as a life of no length."""
        self.wanted = wanted
        if self.starts:
            self._restarts.append(now)
        self.starts += 1
        self._began = self._heard = now
        self._stopped, self._since, self._answered = 0.0, at, None
        cause, self._cause = f"again, after {self._cause}" if self._cause else "it should run", ""
        self._not_ready_since = self._not_ready_since or at
        # a server of several workers has descendants, and watches its parent itself, on every system
        parent = ["--parent", str(os.getpid())] if wanted.kind == "server" else []
        try:
            with self.log.open() as stream:
                self.process = spawn(
                    [*wanted.command, *parent],
                    stderr=stream,
                    salt=self._salt,
                    own_session=True,
                    death_signal=signal.SIGTERM,
                )
        except OSError as error:
            self._cause = f"it cannot be started: {error}"
            self._end(now, at)
            return
        self.identity = process_of(self.process.pid)
        self._withheld = ProcessStarted(
            name=wanted.name,
            process=wanted.kind,
            version=wanted.version,
            pid=self.process.pid,
            attempt=self.starts,
            cause=cause,
        )
        if self._is_reported():
            self._report_start()

    def observe(self, ready: bool, now: float, at: datetime) -> None:
        """Record whether it answers. One that has stopped answering for long is killed; a controller never is."""
        if not self.alive:
            return
        self.ready = ready
        if ready:
            self._heard, self._not_ready_since = now, None
            self._answered = now if self._answered is None else self._answered
            self.has_answered = True
            if now - self._answered > LONG_LIFE:
                self._delay.reset()
                self._report_start()
        elif self._not_ready_since is None:
            self._not_ready_since = at
        elif now - self._heard > HANG and self.is_heard and self._is_ended_by_silence():
            self._cause = f"it did not answer for {HANG:g} s"
            self.kill()

    def _is_ended_by_silence(self) -> bool:
        return not self.stopping and self.wanted.kind not in _NEVER_ENDED

    def reap(self, now: float, at: datetime) -> None:
        """Record its end; kill it where it does not end in time after a request."""
        if self.process is None:
            return
        if self.stopping and now - self._stopped > PATIENCE:
            self._cause = f"{self._cause}; it did not within {PATIENCE:g} s"
            self.kill()
        if (code := self.process.poll()) is not None:
            # Its own children end with it.
            kill_group(self.process.pid)
            self._cause = self._cause or describe_exit(code)
            self._end(now, at)

    def stop(self, now: float, cause: str) -> None:
        """Request its end; it finishes what it has accepted."""
        self._stopped, self._cause = now, cause
        if self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        if self.process is not None:
            kill_group(self.process.pid)

    def status(self, now: float) -> ChildStatus:
        self._restarts = [moment for moment in self._restarts if now - moment < _MINUTE]
        state = self._state(now)
        return ChildStatus(
            name=self.wanted.name,
            kind=self.wanted.kind,
            version=self.wanted.version,
            state=state,
            process=self.identity,
            url=self.wanted.url,
            ready=self.ready,
            restarts=len(self._restarts),
            not_ready_since=self._not_ready_since,
            since=self._since if self.alive else None,
            message="" if self.ready else (state == "not ready" and self.fault) or self.log.last_line(),
            trouble=self.trouble if self.ready else "",
        )

    def _state(self, now: float) -> State:
        if not self.alive:
            return "waiting"
        if self.stopping:
            return "stopping"
        if self.unwanted is not None:
            return "draining"
        if self.ready:
            return "ready"
        late = self.age(now) > _STARTS.get(self.wanted.kind, math.inf)
        return "not ready" if late or self.is_heard else "starting"

    def _end(self, now: float, at: datetime) -> None:
        self._due = now
        if self.stopping or self._is_reported():
            self._report_start()
            ends = self._delay.ends
            count = f"; end {ends + 1} of a crash loop" if ends and not self.stopping else ""
            self._report(
                ProcessEnded(
                    name=self.wanted.name,
                    process=self.wanted.kind,
                    version=self.wanted.version,
                    pid=None if self.process is None else self.process.pid,
                    cause=self._cause + count,
                    seconds=round(now - self._began, 1),
                )
            )
        if not self.stopping:
            self._due += self._delay.after_end()
        self._withheld = None
        self.process = self.identity = None
        self.ready, self._stopped = False, 0.0
        self._not_ready_since = self._not_ready_since or at

    def _is_reported(self) -> bool:
        """Of a crash loop, the lives 1, 2, 4, 8, ... are: more would be thousands of events a day."""
        life = self._delay.ends + 1
        return life & (life - 1) == 0

    def _report_start(self) -> None:
        if self._withheld is not None:
            self._report(self._withheld)
            self._withheld = None


def log_file(folder: Path, name: str) -> LogFile:
    return LogFile(folder / f"{name}.log")
