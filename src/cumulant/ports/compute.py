"""Port `compute`: where a step runs. A step is an importable function with JSON arguments and a JSON result.

Port `history`: processes on other machines, for tables that are large for one.

Port `stream_engine`: an engine of SQL that runs jobs over streams.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from cumulant.core.errors import StepCancelledError
from cumulant.core.progress import Progress, silent

RESOURCES = "resources"
"""The capability of a driver that chooses where a step runs by its `resources`."""


class Resources(msgspec.Struct, frozen=True):
    """What a step needs: CPU cores, bytes of memory, GPUs, and a region ("": any)."""

    cpu: float = 1
    memory: int = 0
    gpu: int = 0
    region: str = ""


class StepCall(msgspec.Struct, frozen=True):
    """`function` is `module:name`; `arguments` and the result are JSON values. Messages use the `name`, if it has one.

    A function with a parameter `progress` is given one, whose reports reach the caller of the step. `code` is the key
    of the object that holds the project's code, for drivers with the capability `hosts`.
    """

    function: str
    arguments: dict[str, object]
    resources: Resources = Resources()
    name: str = ""
    code: str = ""

    @property
    def shown(self) -> str:
        return self.name or self.function


def check_cancelled(call: StepCall, cancel: threading.Event | None) -> None:
    """Raises StepCancelledError where `cancel` was set."""
    if cancel is not None and cancel.is_set():
        raise StepCancelledError(f"step {call.shown} was cancelled", subject=call.shown, hint="run again")


class Compute(Protocol):
    """A driver has the capability `isolated` where a step runs in another process, which cannot see the caller's;
    `hosts` where that process may be on another machine; `resources` where steps state what they need.
    """

    def run(
        self,
        call: StepCall,
        *,
        key: str | None = None,
        cancel: threading.Event | None = None,
        progress: Progress = silent,
    ) -> dict[str, object]:
        """Run the step to its end. A CumulantError of the step is raised here as itself.

        Args:
            call: the step.
            key: its identity. A driver whose steps outlive their caller adopts the step of this key that it runs
                already: it waits for it and returns its result.
            cancel: once set, the step is ended, unless another caller has adopted it.
            progress: called by the thread that called this, in order. A driver with the capability `hosts` may leave
                out a report that a newer one follows.

        Raises:
            StepCancelledError: `cancel` was set before the step ended.
        """
        ...


class WorkerBlock(NamedTuple):
    """What stages hand on: bytes of their own format, which go with all others of their `key`, sorted by `order`."""

    key: int
    order: int
    data: bytes


#: a stage with its arguments: given a key with its blocks, it yields the blocks of the next stage
BlockFunction = Callable[[int, Sequence[WorkerBlock]], Iterator[WorkerBlock]]


class WorkerStage(msgspec.Struct, frozen=True):
    """`function` is `module:name`: called with `arguments`, which are JSON values, it returns what is called with each
    key and its blocks, and yields the blocks of the next stage. A call may be repeated, also beside the first one.

    Keys are divided by their remainder into `parts`, which are computed side by side.
    """

    function: str
    arguments: dict[str, object]
    parts: int


class HistorySession(Protocol):
    """Processes of this program's packages on the engine's machines."""

    @property
    def folder(self) -> Path:
        """A folder that this process and those of the engine see at the same path; deleted at the end."""
        ...

    def run(self, inputs: Sequence[bytes], stages: Sequence[WorkerStage]) -> list[WorkerBlock]:
        """The blocks of the last stage, in any order. Each input is the block of a key of its own for the first.

        Raises:
            CumulantError: of a function, as itself.
            EngineUnavailableError: it does not answer any more.
            OutOfMemoryError: a process of the engine ended.
            StepFailedError: the engine fails.
        """
        ...


class HistoryEngine(Protocol):
    """Runs functions of this program on many machines: it divides the work and brings blocks of one key together.

    Its methods may be called by many threads at once.
    """

    def version(self) -> str:
        """The engine's own version.

        Raises:
            EngineUnavailableError: it does not answer.
        """
        ...

    def session(self) -> AbstractContextManager[HistorySession]:
        """
        Raises:
            EngineUnavailableError: it does not answer.
            MissingPartError: its processes lack this program or what it needs, or have another version of it.
            StorageError: one of both sides cannot use the folder.
        """
        ...

    def close(self) -> None: ...


class StreamJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that the engine knows. `state`: the engine's name of its state; `running`: it computes, or starts for the
    first time; `ending`: it is about to end; `ended`: it does not run and will not run again. One that is none of these
    has failed, and is started again.
    """

    id: str
    name: str
    state: str
    ended: bool
    ending: bool = False
    running: bool = False
    started: datetime | None = None


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """The newest checkpoint or savepoint of a job, from which another one resumes: `path`, and when it was taken. Both
    are None before the first one, when nothing that the job wrote is committed yet. `restores`: how often the job went
    on from one; None: not known.
    """

    path: str | None = None
    at: datetime | None = None
    restores: int | None = None


class StreamEngine(Protocol):
    """Runs jobs over streams, which are text of its SQL: it knows nothing of features. What it says of jobs is its own
    memory, which may be lost with it.

    Its methods may be called by many threads at once. Raises, in every method:
        EngineUnavailableError: it does not answer.
        CredentialsError: it does not accept the token.
        DataError: it refuses a statement.
        StorageError: it answers in another way than the engine.
    """

    #: whether what is sent to it can be read on the way
    encrypted: bool

    def version(self) -> str: ...

    def check(self) -> None:
        """Whether jobs could be run now: also the cluster, and what is asked for checkpoints, answer."""
        ...

    def submit(
        self, name: str, statements: Sequence[str], settings: Mapping[str, str], *, resume: str | None = None
    ) -> str:
        """Start a job, whose text is the last of the `statements`, and return its id; what it writes is committed with
        its checkpoints. `resume`: the path of the checkpoint or savepoint that it goes on from.
        """
        ...

    def jobs(self) -> list[StreamJob]:
        """Every job that it knows, of whoever started it."""
        ...

    def job_state(self, job: str) -> JobState:
        """What another job could resume from.

        Raises:
            NotFoundError: the engine does not know the job, or is not asked for checkpoints (`jobmanager`).
        """
        ...

    def stop(self, job: str) -> str:
        """Take a savepoint, commit all that was written, and end the job. Returns the path of the savepoint."""
        ...

    def cancel(self, job: str) -> None:
        """End the job as soon as possible, without a savepoint; its checkpoints stay. What was written after the newest
        one is never committed. It may not have ended yet when this returns.
        """
        ...

    def close(self) -> None: ...
