"""The metrics of projects in the text formats of Prometheus, for every process that knows a project.

They come from rows of the journal and from files of this machine, never from a store that would have to be listed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.prometheus import Series, exposition
from cumulant.core.structs import prepare_decoding
from cumulant.flows.maintenance.schedule import JobRecord
from cumulant.flows.monitoring.state import ComparedColumn, MonitoringState, RetrainRequest
from cumulant.flows.observe.alert_metrics import alert_series
from cumulant.flows.observe.data_metrics import data_series
from cumulant.flows.observe.families import FAMILIES
from cumulant.flows.observe.ingest_metrics import ingest_series
from cumulant.flows.observe.model_metrics import drift_series, label_series, release_series
from cumulant.flows.observe.process_metrics import cost_series, process_series
from cumulant.flows.observe.queue_metrics import job_series, review_series, step_series
from cumulant.release.state import Release

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: seconds for which a scraper gets what was read for another
_FRESH = 5.0


def project_exposition(projects: Iterable[Project], *, clock: Clock | None = None, open_metrics: bool = False) -> str:
    """The metrics of the projects.

    Raises:
        CumulantError: the journal of one cannot be read.
    """
    now = (clock or SystemClock()).now()
    series = [item for project in projects for item in project_series(project, now)]
    return exposition(FAMILIES, series, open_metrics=open_metrics)


def project_series(project: Project, now: datetime) -> Iterator[Series]:
    """Every series of one project, with its name and environment as the first labels."""
    journal = project.journal()
    parts = (
        alert_series(journal, [receiver.name for receiver in project.receivers()]),
        drift_series(journal),
        label_series(journal),
        release_series(journal),
        data_series(project),
        ingest_series(project, now),
        review_series(journal, now),
        job_series(journal, now),
        step_series(journal),
        process_series(project, now),
        cost_series(project),
        [Series("cumulant_events_total", (), journal.head().seq)],
    )
    names = (project.name, project.environment)
    for part in parts:
        for item in part:
            item.labels = (*names, *item.labels)
            yield item


class CachedExposition:
    """The metrics of projects, read at most once in some seconds however many scrape; threads may share it."""

    def __init__(self, projects: Sequence[Project], *, steady: Callable[[], float] = time.monotonic) -> None:
        prepare_decoding(ComparedColumn, JobRecord, MonitoringState, Release, RetrainRequest)  # others decode them too
        self._projects, self._steady = projects, steady
        self._lock = threading.Lock()
        self._texts: dict[bool, tuple[float, str]] = {}

    def __call__(self, *, open_metrics: bool = False) -> str:
        """Raises CumulantError: as `project_exposition`."""
        with self._lock:
            at, text = self._texts.get(open_metrics, (0.0, ""))
            if not text or self._steady() - at >= _FRESH:
                text = project_exposition(self._projects, open_metrics=open_metrics)
                self._texts[open_metrics] = (self._steady(), text)
            return text
