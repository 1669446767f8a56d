"""Port `compute`: where a step runs. A step is an importable function with JSON arguments and a JSON result.

Port `history`: an engine of SQL on other machines, which computes over tables that are large for one.

Port `stream_engine`: an engine of SQL that runs jobs over streams.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from cumulant.core.errors import StepCancelledError
from cumulant.core.progress import Progress, silent

if TYPE_CHECKING:
    import polars as pl

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


class HistoryEngine(Protocol):
    """Runs queries, which are text of Spark SQL: it knows nothing of features.

    Its methods may be called by many threads at once.
    """

    def version(self) -> str:
        """The engine's own version.

        Raises:
            EngineUnavailableError: it does not answer.
        """
        ...

    def query(
        self, text: str, views: Mapping[str, pl.LazyFrame], *, order_by: str, settings: Mapping[str, str]
    ) -> AbstractContextManager[Iterator[pl.DataFrame]]:
        """The rows of a query over `views`, in the order of a column that has no two equal values. `settings`: of the
        session, which the text is written for.

        What is stored meanwhile is deleted at the end of the context.

        Raises:
            EngineUnavailableError: it does not answer.
            StorageError: the rows cannot be handed over.
            DataError: the engine refuses the query, or fails on its rows.
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
    are None before the first one, when nothing that the job wrote is committed yet.
    """

    path: str | None = None
    at: datetime | None = None


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
