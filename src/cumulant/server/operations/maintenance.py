"""Work that is due, and removal of what nothing needs."""

from __future__ import annotations

from typing import Any

import msgspec

from cumulant.flows.maintenance.cleanup import clean
from cumulant.flows.maintenance.schedule import TickResult, tick
from cumulant.flows.maintenance.unneeded_files import Removed
from cumulant.project.redaction import redaction_of
from cumulant.server.operation import ApiCall, post


class CleanBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`dry_run`: only list what could be removed."""

    dry_run: bool = True


@post("/clean", action="project.clean", long=True)
def clean_(call: ApiCall, body: CleanBody) -> list[Removed]:
    """Remove what no kept snapshot, model or recent run needs."""
    return clean(call.project, principal=call.principal, dry_run=body.dry_run, progress=call.progress)


class TickBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class TickReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each job; `error`: the first one of those that failed."""

    jobs: list[TickResult]
    error: dict[str, Any] | None


@post("/tick", action="project.tick", long=True)
def tick_(call: ApiCall, body: TickBody) -> TickReport:
    """Do once whatever is due."""
    del body
    ticked, error = tick(call.project, principal=call.principal, progress=call.progress)
    known = None if error is None else error.reworded(redaction_of(call.project)).as_dict()
    return TickReport(jobs=ticked, error=known)


OPERATIONS = (clean_, tick_)
