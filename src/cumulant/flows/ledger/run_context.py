"""One open run of a flow: who runs what, its ledger, and the way to report."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import SystemClock
from cumulant.core.errors import CumulantError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress
from cumulant.core.system.memory import release_free_memory
from cumulant.core.version import __version__
from cumulant.flows.ledger.cleanup_lock import CLEAN, await_clean
from cumulant.flows.ledger.ledger import Ledger, StepResult, identity_of
from cumulant.flows.ledger.step_function import (
    RUN_STEP,
    RunReference,
    StepFunction,
    can_reach,
    is_isolated,
    needed_resources,
    runs_elsewhere,
    settings_digest,
)
from cumulant.flows.ledger.stored_overrides import overrides_for_step
from cumulant.ports.compute import StepCall

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.core.events import Fact
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the steps of a run share."""

    project: Project
    principal: Principal
    ledger: Ledger
    progress: Progress
    clock: Clock
    begun: datetime
    #: whether steps that can be called by another process are called there
    isolated: bool = False

    @property
    def run(self) -> str:
        return self.ledger.run

    def now(self) -> datetime:
        return self.clock.now()

    def step(
        self,
        name: str,
        inputs: object,
        call: Callable[[], dict[str, object]],
        *,
        function: StepFunction | None = None,
        uses: tuple[str, ...] = (),
        verify: Callable[[dict[str, object]], bool] | None = None,
        write: Callable[[Transaction, dict[str, object]], None] | None = None,
    ) -> StepResult:
        """Run a step, or find it done. `inputs` is everything its result depends on, as JSON.

        A step that another version of Cumulant did is done again. `write` changes state together with the result.
        `function` does what `call` does in a process of its own, where the environment's `compute` wants that. Where
        that may be on another machine, what it `uses` besides journal, tables and objects must be reached from there:
        ports. Otherwise it is called here.
        """
        self.progress(name)
        cancel = threading.Event()
        apart = self.isolated and all(can_reach(self.project, port) for port in uses)

        def work() -> dict[str, object]:
            with without_secrets(self.project):
                if function is None or not apart:
                    result = call()
                else:
                    result = self.run_isolated(name, function, inputs=inputs, cancel=cancel)
            release_free_memory()
            return result

        return self.ledger.step(
            name, inputs, work, code=__version__, verify=verify, write=write, cancel=cancel, progress=self.progress
        )

    def run_isolated(
        self, name: str, function: StepFunction, *, inputs: object, cancel: threading.Event | None = None
    ) -> dict[str, object]:
        """The result of a function that another process of this run calls; `inputs` are those of its step."""
        overrides, key = self.project.file.layers.overrides, identity_of(name, inputs, __version__)
        if not runs_elsewhere(self.project):
            return self._run(name, function, key, self._reference(overrides), cancel)
        with overrides_for_step(self.project.objects(), self.ledger.journal, overrides, step=key) as stored:
            return self._run(name, function, key, self._reference({}, stored), cancel)

    def _reference(self, overrides: dict[str, object], stored: str = "") -> RunReference:
        return RunReference(
            root=str(self.project.root),
            environment=self.project.environment,
            overrides=overrides,
            settings=settings_digest(self.project),
            run=self.run,
            cause=self.ledger.cause,
            principal=self.principal,
            begun=self.begun,
            salt=self.project.salt_source.fingerprint(),
            stored_overrides=stored,
        )

    def _run(
        self, name: str, function: StepFunction, key: str, run: RunReference, cancel: threading.Event | None
    ) -> dict[str, object]:
        arguments = {"run": msgspec.to_builtins(run), "step": msgspec.to_builtins(function)}
        call = StepCall(RUN_STEP, arguments, needed_resources(self.project, name), name, self._code)
        return self.project.compute().run(call, key=key, cancel=cancel, progress=self.progress)

    @cached_property
    def _code(self) -> str:
        """The key of the project's code, where steps may run without the project's folder."""
        if not runs_elsewhere(self.project):
            return ""
        from cumulant.flows.ledger.code_bundle import store_code

        return store_code(self.project)

    def transaction(self) -> AbstractContextManager[Transaction]:
        return self.ledger.transaction()

    def emit(self, fact: Fact) -> None:
        with self.transaction() as transaction:
            transaction.emit(fact)


@contextmanager
def without_secrets(project: Project) -> Iterator[None]:
    """Take secret values out of an error's words before the ledger or anyone else keeps them."""
    try:
        yield
    except CumulantError as error:
        error.reworded(project.vault.redact)
        raise


@contextmanager
def open_run(
    project: Project,
    flow: str,
    *,
    principal: Principal,
    progress: Progress,
    settings: dict[str, object] | None = None,
    clock: Clock | None = None,
    quiet: bool = False,
    writes: bool = True,
) -> Iterator[Context]:
    """A run of `flow`, from its first event to its last; an error ends it as failed and is raised again. A `quiet` one
    that has nothing new to do reports nothing (`Ledger.open`).

    A run that `writes` nothing that others see also runs on a read-only disk, and leaves no trace there. Only a
    function that is a `verb` opens a run.
    """
    if not writes:
        project.read_aside()
    clock = clock or SystemClock()
    begun = clock.now()
    actor = Actor(principal.id)
    with (
        Ledger.open(project.journal(), flow=flow, actor=actor, settings=settings, clock=clock, quiet=quiet) as ledger,
        without_secrets(project),
    ):
        if flow != CLEAN:
            await_clean(ledger, clock, progress)
        yield Context(
            project=project,
            principal=principal,
            ledger=ledger,
            progress=progress,
            clock=clock,
            begun=begun,
            isolated=is_isolated(project),
        )
