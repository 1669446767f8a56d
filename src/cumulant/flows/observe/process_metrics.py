"""Metrics of the processes of `cumulant up` on this machine, and of the log that they upload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError, IntegrityError
from cumulant.core.prometheus import Series
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.serving.predictions import log_in
from cumulant.flows.serving.serve import SPOOL
from cumulant.flows.stack.status import read_status
from cumulant.ports.log import split_covered

if TYPE_CHECKING:
    from cumulant.project.project import Project


def process_series(project: Project, now: datetime) -> Iterator[Series]:
    with suppress(IntegrityError):  # `ps` reports it
        status = read_status(project.state)
        for child in () if status is None else status.children:
            labels = (child.name, child.kind)
            yield Series("cumulant_process_ready", labels, float(child.ready))
            yield Series("cumulant_process_restarts", labels, child.restarts)
    yield from _upload_series(project, now)


def cost_series(project: Project) -> Iterator[Series]:
    """Of each version, where the environment declares what a server costs; of all machines with `deploy: hosts://`."""
    price = project.file.environment.price
    if price is None:
        return
    with suppress(CumulantError):  # `ps` reports it; a server shows the metrics of its other projects meanwhile
        running = Counter(server.version for server in deployment_of(project).present(project.name) if server.ready)
        for version, servers in sorted(running.items()):
            labels = (project.name, version, price.currency)
            yield Series("cumulant_serving_cost_per_hour", labels, servers * price.server)


def _upload_series(project: Project, now: datetime) -> Iterator[Series]:
    """Where the log is elsewhere: uploaded parts are deleted here after `AGAIN_SECONDS`, so that older ones wait."""
    folder = project.state / SPOOL
    if not folder.is_dir():
        yield Series("cumulant_log_waiting_parts", (), 0)
        yield Series("cumulant_log_lag_seconds", (), 0)
        return
    from cumulant.serving.prediction_log.storage.recovery import AGAIN_SECONDS  # with it comes pyarrow

    log = log_in(folder)
    ages = [now.timestamp() - part.modified for day in log.days() for part in split_covered(log.parts(day))[0]]
    waiting = [age for age in ages if age > AGAIN_SECONDS]
    yield Series("cumulant_log_waiting_parts", (), len(waiting))
    yield Series("cumulant_log_lag_seconds", (), max(waiting, default=0.0))
