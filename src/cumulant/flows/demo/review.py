"""The demo's reviewers: flights with unknown outcome are queued and looked up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cumulant.core.progress import Progress
from cumulant.flows.data.validate import newest_snapshot
from cumulant.flows.review.fill_queue import fill
from cumulant.flows.review.scripted import answer_open

if TYPE_CHECKING:
    from cumulant.flows.review.views import CaseView
    from cumulant.project.project import Project

#: the demo's log is no older, by the clock on the wall
_LOG = timedelta(days=1)
_FLIGHT = ("carrier", "origin", "dest", "sched_dep")


class _FixedClock:
    """A clock that stands at a moment of the replayed year."""

    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at

    def sleep(self, seconds: float) -> None: ...


def review_cases(project: Project, at: datetime, progress: Progress) -> tuple[int, int]:
    """Queue what the budget allows of all that was answered, and answer it as of `at`; cases, and answers.

    Labels that have not come are of flights that never left: for whoever waits at the gate, that is later than late.
    """
    progress("cases for people")
    who = project.principal()
    filled = fill(project, principal=who, since=datetime.now(UTC) - _LOG, at_once=True, progress=progress)
    late = _ends(project)
    answered = answer_open(
        project, lambda case: _said(case, late), most=filled.added, principal=who, clock=_FixedClock(at)
    )
    return filled.added, answered


def _said(case: CaseView, late: dict[tuple[object, ...], bool]) -> bool | None:
    if case.request is None:
        return None
    return late.get(tuple(case.request.get(name) for name in _FLIGHT))


def _ends(project: Project) -> dict[tuple[object, ...], bool]:
    """What became of each flight, by what its request tells of it."""
    import polars as pl

    from cumulant.data.snapshot import scan

    snapshot = newest_snapshot(project, "flights")
    assert snapshot is not None
    late = (pl.col("arr_delay") > 15).fill_null(value=True)
    when = pl.col("sched_dep").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = scan(snapshot, project.tables()).select("carrier", "origin", "dest", when, late.alias("late")).collect()
    return {tuple(row[:4]): row[4] for row in rows.iter_rows()}
