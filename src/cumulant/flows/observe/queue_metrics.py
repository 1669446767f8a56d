"""Metrics of what waits: cases for reviewers, scheduled jobs, and steps for workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.prometheus import Series
from cumulant.flows.maintenance.schedule import DUE, JOBS, JobRecord
from cumulant.ports.step_queue import QUEUED_STEP, readable
from cumulant.review.queue import OPEN, QUEUE

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal


class _WaitingCase(msgspec.Struct, frozen=True):
    """What of a waiting case is published."""

    model: str
    queued: datetime
    deadline: datetime


def review_series(journal: Journal, now: datetime) -> Iterator[Series]:
    cases: dict[str, list[_WaitingCase]] = defaultdict(list)
    for row in journal.rows(OPEN):
        case = msgspec.convert(row.value, _WaitingCase)
        cases[case.model].append(case)
    for model in sorted({*cases, *(row.key for row in journal.rows(QUEUE))}):
        yield Series("cumulant_review_cases", (model,), len(cases[model]))
        overdue = sum(case.deadline < now for case in cases[model])
        yield Series("cumulant_review_overdue_cases", (model,), overdue)
        if cases[model]:
            oldest = min(case.queued for case in cases[model])
            yield Series("cumulant_review_oldest_timestamp_seconds", (model,), oldest.timestamp())


def step_series(journal: Journal) -> Iterator[Series]:
    """Steps in the queue of workers, which have no metrics of their own: they come and go, and listen nowhere."""
    steps = [step for _, step in readable(journal.rows(QUEUED_STEP))]
    for status in ("queued", "running"):
        yield Series("cumulant_steps", (status,), sum(step.status == status for step in steps))
    waiting = [step.queued for step in steps if step.status == "queued"]
    if waiting:
        yield Series("cumulant_steps_oldest_timestamp_seconds", (), min(waiting).timestamp())


def job_series(journal: Journal, now: datetime) -> Iterator[Series]:
    """The jobs of `cumulant tick` that ran before: without a scheduler there are none."""
    pauses = {job.name: job.every for job in JOBS}
    for row in journal.rows(DUE):
        begun = msgspec.convert(row.value, JobRecord).begun
        yield Series("cumulant_job_begun_timestamp_seconds", (row.key,), begun.timestamp())
        if row.key in pauses:
            late = (now - begun - pauses[row.key]).total_seconds()
            yield Series("cumulant_job_late_seconds", (row.key,), max(0.0, late))
