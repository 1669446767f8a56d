"""Runs for readers: a page at a time, and one with what is known of each of its steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError, not_found
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.ledger_records import STEP, Json, RunRecord, StepUse, read_step, runs

if TYPE_CHECKING:
    from cumulant.core.events import Event
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project

LATEST = "latest"


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Runs, newest first. `after`: the cursor of the next page, empty on the last one; `flows`: names of all flows."""

    runs: tuple[RunRecord, ...]
    after: str
    total: int
    flows: tuple[str, ...]


class RunStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a run. `status` and what follows are of its newest attempt, None where its row is gone."""

    name: str
    identity: str
    reused: bool
    seconds: float
    status: str | None = None
    attempt: int | None = None
    #: the run that did it, where this one reused it
    run: str | None = None
    started: datetime | None = None
    result: Json | None = None
    error: Json | None = None


class RunDetail(msgspec.Struct, frozen=True, kw_only=True):
    run: RunRecord
    steps: tuple[RunStep, ...]


@verb("runs.show")
def run_page(
    project: Project,
    *,
    principal: Principal,
    flow: str = "",
    status: str = "",
    after: str = "",
    limit: int = 50,
) -> RunPage:
    """Runs of a flow (default: of all) that ended so; `after`: as the page before says."""
    known = runs(project.journal())
    chosen = [run for run in known if flow in ("", run.flow) and status in ("", run.status)]
    start = next((place + 1 for place, run in enumerate(chosen) if run.id == after), 0) if after else 0
    page = chosen[start : start + limit]
    return RunPage(
        runs=tuple(page),
        after=page[-1].id if start + limit < len(chosen) else "",
        total=len(chosen),
        flows=tuple(sorted({run.flow for run in known})),
    )


@verb("runs.show")
def run_detail(project: Project, name: str, *, principal: Principal) -> RunDetail:
    """One run: its id, the beginning of it, or `latest`.

    Raises:
        NotFoundError: there is no such run.
        UsageError: several begin so.
    """
    record = find_run(runs(project.journal()), name)
    return RunDetail(run=record, steps=tuple(_step(project.journal(), record.id, use) for use in record.steps))


@verb("events.show")
def run_log(project: Project, run: str, *, principal: Principal, limit: int = 100) -> list[Event]:
    """The newest `limit` events of a run, the oldest of them first."""
    return list(deque(project.journal().events(run=run), maxlen=limit))


def find_run(known: Sequence[RunRecord], name: str) -> RunRecord:
    """The run of that name, or whose name begins so; the newest for `latest`. Raises as `run_detail`."""
    if name == LATEST and known:
        return known[0]
    matches = [record for record in known if name and record.id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(record.id for record in matches[:5])
        raise UsageError(f'several runs begin with "{name}"', subject=name, hint=f"one of: {names}")
    raise not_found("run", name, [record.id for record in known])


def _step(journal: Journal, run: str, use: StepUse) -> RunStep:
    row = journal.get(STEP, use.identity)
    step = RunStep(name=use.name, identity=use.identity, reused=use.reused, seconds=use.seconds)
    if row is None:
        return step
    record = read_step(row)
    return msgspec.structs.replace(
        step,
        status=record.status,
        attempt=record.attempt,
        run=record.run if record.run != run else None,
        started=record.started,
        result=record.result,
        error=record.error,
    )
