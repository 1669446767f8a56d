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
from cumulant.flows.ledger.run_context import Context, without_secrets
from cumulant.flows.ledger.step_function import RunReference, StepFunction, settings_digest
from cumulant.project.file.loading import load


def run_step(run: dict[str, object], step: dict[str, object], progress: Progress) -> dict[str, object]:
    """Call a step's function with a context of the run; its events are the run's.

    Raises:
        UsageError: the project file is another than the one that the run has read.
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
