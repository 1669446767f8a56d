"""What would run in a project, and its settings."""

from __future__ import annotations

from typing import Any

import msgspec

from cumulant.flows.project.planning import TrainingPlan, plan
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
    """Show every setting with its value and origin."""
    call.check()
    rows = call.project.file.resolved(call.project.endpoints)
    return [ResolvedSetting(path=row.path, value=row.value, origin=str(row.origin)) for row in rows]


OPERATIONS = (plan_, settings)
