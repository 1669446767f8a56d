"""The demo's reviewers: flights with unknown outcome are queued and answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import cumulant
from cumulant.core.progress import Progress

if TYPE_CHECKING:
    from cumulant.api.results import CaseView

#: the demo's log is no older, by the system's clock
_LOG = timedelta(days=1)
_FLIGHT = ("carrier", "origin", "dest", "sched_dep")


def review_cases(project: cumulant.Project, at: datetime, progress: Progress) -> tuple[int, int]:
    """Queue what the budget allows of all predictions, and answer it as of `at`; numbers of cases and of answers."""
    progress("review of cases")
    queued = project.reviews.fill(since=datetime.now(UTC) - _LOG, whole_budget=True)
    late = _late_flights(project)
    return queued, project.reviews.answer(lambda case: _label(case, late), limit=queued, at=at)


def _label(case: CaseView, late: dict[tuple[object, ...], bool]) -> bool | None:
    return None if case.request is None else late.get(tuple(case.request.get(name) for name in _FLIGHT))


def _late_flights(project: cumulant.Project) -> dict[tuple[object, ...], bool]:
    import polars as pl

    late = (pl.col("arr_delay") > 15).fill_null(value=True)
    when = pl.col("sched_dep").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = project.rows("flights").select("carrier", "origin", "dest", when, late.alias("late")).collect()
    return {tuple(row[:4]): row[4] for row in rows.iter_rows()}
