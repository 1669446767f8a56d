"""A job is submitted once, also where the answer of its engine does not come."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from cumulant.core.errors import DeadlineError, EngineUnavailableError
from cumulant.flows.features.jobs.job_record import own_jobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cumulant.features.flink.job import FeatureJob
    from cumulant.flows.features.jobs.job_record import FeatureJobRecord
    from cumulant.ports.compute import StreamEngine
    from cumulant.project.project import Project

#: seconds until a job is among those of its engine that was submitted: the engine plans its text first
_PLANNED = 60.0
#: seconds between two searches for it, which double up to the last
_PAUSE, _LAST_PAUSE = 1.0, 8.0


class Submission:
    """Submits jobs of one project; `sleep`: between two searches."""

    def __init__(self, project: Project, engine: StreamEngine, sleep: Callable[[float], None]) -> None:
        self._project, self._engine, self._sleep = project, engine, sleep

    def submit(self, job: FeatureJob, starting: FeatureJobRecord, place: str | None) -> str:
        """The id of the job, which is recorded as `starting`. Where no answer comes, it is looked for by its name.

        Raises:
            EngineUnavailableError, DeadlineError: no answer came, nor the job in a minute.
        """
        try:
            return self._engine.submit(job.name, job.statements, job.settings, resume=place)
        except (EngineUnavailableError, DeadlineError):
            late = self._late(starting, _PLANNED)
            if late is None:
                raise
            return late

    def earlier(self, record: FeatureJobRecord | None, now: datetime) -> str | None:
        """The job of a start whose command has ended before there was an answer; None where there is none."""
        if record is None or record.state != "starting" or record.refused:
            return None
        # the clock of the host that started it may be ahead
        return self._late(record, min(_PLANNED, _PLANNED - (now - record.at).total_seconds()))

    def _late(self, record: FeatureJobRecord, seconds: float) -> str | None:
        deadline, waited, pause = time.monotonic() + seconds, 0.0, _PAUSE
        while waited < seconds and time.monotonic() < deadline:
            self._sleep(pause)
            waited, pause = waited + pause, min(2 * pause, _LAST_PAUSE)
            with suppress(EngineUnavailableError, DeadlineError):
                jobs = own_jobs(self._project, self._engine)
                mine = [job.id for job in jobs if job.name == record.name and record.is_newest(job.id)]
                if mine:
                    return mine[-1]
        return None
