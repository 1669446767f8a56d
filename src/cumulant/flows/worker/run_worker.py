"""`cumulant worker`: this machine's process that runs queued steps of one project and environment."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.core.system.memory import machine_memory
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.code_bundle import CODE, fetch_code
from cumulant.flows.worker.worker import LEASE_SECONDS, StepRun, StepWorker
from cumulant.ports.step_queue import WorkerOffer
from cumulant.project.endpoints import STATE

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.compute import StepCall
    from cumulant.project.project import Project

_FOLDER = "worker"
_HERE = "subprocess://"


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
        UsageError: this machine cannot give a step the project's state folder.
    """
    if os.name == "nt":
        raise UsageError(
            "workers need symbolic links, which Windows allows to administrators only",
            subject="worker",
            hint="run `cumulant worker` on Linux or macOS; commands may run on Windows",
        )

    def prepare(call: StepCall) -> StepCall:
        return call if not call.code else _call_here(project, call)

    worker = StepWorker(
        project.journal(),
        project.drivers.client(_HERE, "compute"),
        prepare=prepare,
        offer=offer,
        actor=Actor(principal.id),
        say=progress,
        lease=lease,
    )
    return worker.work(stop, once=once)


def _call_here(project: Project, call: StepCall) -> StepCall:
    """The call with the project's code of this machine's copy, and without what only chose the machine."""
    folder = project.state / _FOLDER / CODE
    root = fetch_code(project.objects(), call.code, folder, state=project.root / STATE)
    run = {**msgspec.convert(call.arguments["run"], dict[str, object]), "root": str(root)}
    return msgspec.structs.replace(call, arguments={**call.arguments, "run": run}, resources=type(call.resources)())
