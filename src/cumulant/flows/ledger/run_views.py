"""Runs for readers: a page at a time, and one with what is known of each of its steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError, not_found
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.ledger_records import (
    RUN,
    STEP,
    Json,
    RunRecord,
    StepUse,
    as_now,
    read_run,
    read_step,
    runs,
    stored_run,
)
from cumulant.flows.ledger.row_cache import RowCache

if TYPE_CHECKING:
    from cumulant.core.events import Event
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project

LATEST = "latest"
#: rows that are read at once, and runs of one beginning that an error names
_CHUNK, _NAMED = 500, 6


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Runs, newest first. `after`: the cursor of the next page, empty on the last one.

    `total`: how many there are; None where a filter leaves more than a page. `flows`: names of those that were read.
    """

    runs: tuple[RunRecord, ...]
    after: str
    total: int | None
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
    cache: RowCache[RunRecord] | None = None,
) -> RunPage:
    """Runs of a flow (default: of all) that ended so; `after`: as the page before says. `cache`: what a server
    remembers of runs.
    """
    journal, chosen, flows = project.journal(), list[RunRecord](), set[str]()
    cache = cache or run_cache()
    for run in _newest_first(journal, after or None, limit + 1, cache):
        flows.add(run.flow)
        if flow in ("", run.flow) and status in ("", run.status):
            chosen.append(run)
        if len(chosen) > limit:
            break
    page = chosen[:limit]
    total = None
    if not after and len(chosen) <= limit:
        total = len(chosen)
    elif not (flow or status):
        total = cache.count(journal)
    return RunPage(
        runs=tuple(page),
        after=page[-1].id if len(chosen) > limit else "",
        total=total,
        flows=tuple(sorted(flows)),
    )


def run_cache() -> RowCache[RunRecord]:
    """Runs in memory, as they were written last."""
    return RowCache(RUN, stored_run)


def _newest_first(journal: Journal, before: str | None, first: int, cache: RowCache[RunRecord]) -> Iterator[RunRecord]:
    """Runs below the id `before`, which begins with the time of the run; read in chunks, each larger than the last."""
    while True:
        rows = cache.rows(journal, after=before, limit=first, descending=True)
        yield from map(as_now, rows.values())
        if len(rows) < first:  # or one was removed meanwhile, with all before it
            return
        before, first = list(rows)[-1], min(2 * first, _CHUNK)


@verb("runs.show")
def run_detail(project: Project, name: str, *, principal: Principal) -> RunDetail:
    """One run: its id, the beginning of it, or `latest`.

    Raises:
        NotFoundError: there is no such run.
        UsageError: several begin so.
    """
    record = find_run(_candidates(project.journal(), name), name)
    return RunDetail(run=record, steps=tuple(_step(project.journal(), record.id, use) for use in record.steps))


@verb("events.show")
def run_log(project: Project, run: str, *, principal: Principal, limit: int = 100) -> list[Event]:
    """The newest `limit` events of a run, the oldest of them first."""
    return list(deque(project.journal().events(run=run), maxlen=limit))


def _candidates(journal: Journal, name: str) -> list[RunRecord]:
    """The runs among which `find_run` has to look; all of them only where none has the name."""
    rows = journal.rows(RUN, "" if name == LATEST else name, limit=_NAMED, descending=True) if name else []
    return [read_run(row) for row in rows] or runs(journal)


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
