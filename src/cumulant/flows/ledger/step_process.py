"""The process of a step: it loads the project again and continues the run of its caller, which holds the lease."""

from __future__ import annotations

import importlib
from pathlib import Path

import msgspec

from cumulant.core.clock import SystemClock
from cumulant.core.errors import UsageError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress
from cumulant.flows.ledger.ledger import Ledger
from cumulant.flows.ledger.ledger_records import RUN
from cumulant.flows.ledger.run_context import Context, without_secrets
from cumulant.flows.ledger.step_function import RunReference, StepFunction, settings_digest
from cumulant.project.file.loading import load
from cumulant.project.project import Project


def run_step(run: dict[str, object], step: dict[str, object], progress: Progress) -> dict[str, object]:
    """Call a step's function with a context of the run; its events are the run's.

    Raises:
        UsageError: the project file is another than the one that the run has read, or this machine has another journal
            or salt.
        CumulantError: the step's own, without secrets.
    """
    reference, function = msgspec.convert(run, RunReference), msgspec.convert(step, StepFunction)
    with load(Path(reference.root), environment=reference.environment, overrides=reference.overrides) as project:
        if settings_digest(project) != reference.settings:
            raise UsageError(
                "the project file was changed while a command ran, and a step would go by other settings",
                subject=str(project.file.path),
                hint="run the command again",
            )
        _check_machine(project, reference)
        ledger = Ledger(
            project.journal(), actor=Actor(reference.principal.id), run=reference.run, cause=reference.cause
        )
        context = Context(
            project=project,
            principal=reference.principal,
            ledger=ledger,
            progress=progress,
            clock=SystemClock(),
            begun=reference.begun,
        )
        module, _, name = function.function.partition(":")
        with without_secrets(project):
            result: dict[str, object] = getattr(importlib.import_module(module), name)(context, **function.arguments)
            return result


def _check_machine(project: Project, reference: RunReference) -> None:
    """Refuse a step where this machine's environment leads elsewhere than that of the run's machine."""
    if project.journal().get(RUN, reference.run) is None:
        raise UsageError(
            f"run {reference.run} is not in the journal of this environment here",
            subject=project.environment,
            hint="processes that run steps of a command must share its journal: `journal: postgresql://...`",
        )
    here = project.salt_source.fingerprint()
    if reference.salt is not None and here is not None and here != reference.salt:
        raise UsageError(
            "the salt of personal values here is another than that of the command",
            subject=project.environment,
            hint="name one secret for all machines: `salt: ${secret:NAME}`",
        )
