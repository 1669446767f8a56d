"""What would run in a project, and its settings."""

from __future__ import annotations

from typing import Any

import msgspec

from cumulant.flows.project.planning import TrainingPlan, plan
from cumulant.project.redaction import redacted_value, redaction_of
from cumulant.server.operation import ApiCall, get


@get("/plan", action="project.plan")
def plan_(call: ApiCall) -> TrainingPlan:
    """Show what would run, checked."""
    return plan(call.project, principal=call.principal, progress=call.progress)


class ResolvedSetting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting by its dotted path, and where it comes from."""

    path: str
    value: Any
    origin: str


@get("/settings", action="project.plan")
def settings(call: ApiCall) -> list[ResolvedSetting]:
    """Show every setting with its value and origin; files are named from the project's folder."""
    call.check()
    redact = redaction_of(call.project)
    return [
        ResolvedSetting(path=row.path, value=redacted_value(redact, row.value), origin=str(row.origin))
        for row in call.project.file.resolved(call.project.endpoints)
    ]


OPERATIONS = (plan_, settings)
