"""`cumulant worker`: this machine's process that runs queued steps of one project and environment."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, RefusedError, UsageError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.core.system.memory import machine_memory
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.code_bundle import CODE, open_code
from cumulant.flows.ledger.run_context import without_secrets
from cumulant.flows.ledger.step_function import RUN_STEP, RunReference, StepFunction
from cumulant.flows.ledger.stored_overrides import delete_overrides, read_overrides
from cumulant.flows.worker.worker import LEASE_SECONDS, StepRun, StepWorker
from cumulant.ports.step_queue import WorkerOffer
from cumulant.project.endpoints import STATE
from cumulant.project.residency import is_allowed

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.compute import StepCall
    from cumulant.project.project import Project

_FOLDER = "worker"
_HERE = "subprocess://"
#: the modules with the steps of commands
_OWN = "cumulant."


class _Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `RUN_STEP`."""

    run: RunReference
    step: StepFunction


def machine_offer(
    *, cpu: float | None = None, memory: int | None = None, gpu: int = 0, region: str = ""
) -> WorkerOffer:
    """What this machine has for a step, where it is not stated: its CPU cores and its memory."""
    return WorkerOffer(
        cpu=float(os.cpu_count() or 1) if cpu is None else cpu,
        memory=machine_memory() if memory is None else memory,
        gpu=gpu,
        region=region,
    )


@verb("steps.run")
def run_worker(
    project: Project,
    *,
    principal: Principal,
    offer: WorkerOffer,
    stop: threading.Event,
    once: bool = False,
    progress: Progress = silent,
    lease: float = LEASE_SECONDS,
) -> Iterator[StepRun]:
    """Run queued steps that fit `offer`, each in a process of its own, until `stop` is set; yields each as it ends.

    `once`: until no step that fits is queued. An interrupt ends the running step, which is queued again.

    Raises:
        UsageError: this machine cannot give a step the project's state folder, or is outside of `residency`.
    """
    if os.name == "nt":
        raise UsageError(
            "workers need symbolic links, which Windows allows to administrators only",
            subject="worker",
            hint="run `cumulant worker` on Linux or macOS; commands may run on Windows",
        )
    allowed = project.file.environment.residency
    if not is_allowed(offer.region, allowed):
        raise UsageError(
            f'the region of this worker, "{offer.region}", is outside of residency ({", ".join(allowed)})',
            subject=offer.region,
            hint="run it in one of these regions, and name that with --region",
        )
    worker = StepWorker(
        project.journal(),
        project.drivers.client(_HERE, "compute"),
        prepare=partial(_call_here, project),
        forget=partial(_forget, project),
        offer=offer,
        actor=Actor(principal.id),
        progress=progress,
        lease=lease,
    )
    return worker.work(stop, once=once)


@contextmanager
def _call_here(project: Project, call: StepCall) -> Iterator[StepCall]:
    """The call with the project's code of this machine's copy and the command's overrides, and without what only chose
    the machine.
    """
    arguments = _arguments(project, call)
    folder = project.state / _FOLDER / CODE
    with ExitStack() as stack:
        with without_secrets(project):
            code = open_code(project.objects(), call.code, folder, state=project.root / STATE)
            root = stack.enter_context(code)
            overrides = read_overrides(project.objects(), arguments.run.stored_overrides)
        run = msgspec.structs.replace(arguments.run, root=str(root), overrides=overrides, stored_overrides="")
        here = msgspec.structs.replace(arguments, run=run)
        plain: dict[str, object] = msgspec.to_builtins(here)
        yield msgspec.structs.replace(call, arguments=plain, resources=type(call.resources)())


def _forget(project: Project, call: StepCall) -> None:
    """Delete what was stored for this call alone."""
    with suppress(CumulantError):  # no step of a command, or the store does not answer: `clean` deletes it
        delete_overrides(project.objects(), _arguments(project, call).run.stored_overrides)


def _arguments(project: Project, call: StepCall) -> _Arguments:
    """The arguments of a step of Cumulant, of a command in this environment.

    Raises:
        RefusedError: the row names any other function, or another environment.
    """
    try:
        arguments = msgspec.convert(call.arguments, _Arguments)
    except msgspec.ValidationError as error:
        raise _refused(call, f"its arguments cannot be read: {error}") from None
    if call.function != RUN_STEP or not call.code:
        raise _refused(call, f"it calls {call.function}")
    if not arguments.step.function.startswith(_OWN):
        raise _refused(call, f"it calls {arguments.step.function}")
    if arguments.run.environment != project.environment:
        raise _refused(call, f"it is of the environment {arguments.run.environment}")
    return arguments


def _refused(call: StepCall, reason: str) -> RefusedError:
    return RefusedError(
        f"a worker runs only steps that commands of its environment queue, and {call.shown} is none: {reason}",
        subject=call.shown,
        hint="find out who wrote the row: `cumulant events list`",
    )
