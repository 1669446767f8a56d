"""The flow `replay`: a past period sent through the gateway, for release and monitoring to observe."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import EngineUnavailableError
from cumulant.core.progress import Progress, silent
from cumulant.core.units import from_micros, to_micros
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.ledger.actions import verb
from cumulant.flows.release.time_scale import scale_time
from cumulant.flows.replay.replay_progress import ReplayRequest, delete_state, load_or_begin, write_state
from cumulant.flows.replay.replay_rows import Period, check_period
from cumulant.flows.replay.sending import Sender, Sent
from cumulant.flows.traffic.clients import gateway_url

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a replay. `failures`: by origin; `reached`: its last moment; times in milliseconds.

    `resumed`: rows that an earlier, interrupted replay of the same period had sent.
    """

    model: str
    version: str
    since: datetime
    until: datetime
    reached: datetime
    done: bool
    rows: int
    resumed: int
    requests: int
    answered: dict[str, int]
    failures: dict[str, int]
    #: what the last failed request was answered; empty where none failed
    last_failure: str
    labels: int
    #: why the last labels were not taken; empty where they were
    label_trouble: str
    p50_ms: float | None
    p99_ms: float | None
    seconds: float
    #: of the replayed time to the clock's; below the requested one where the servers could not keep up
    speed: float


@verb("replay.run")
def replay(
    project: Project,
    *,
    principal: Principal,
    since: datetime,
    until: datetime,
    speed: float = 1.0,
    model: str = "",
    url: str = "",
    concurrency: int = 32,
    timeout: float = 30.0,
    again: bool = False,
    release_clock: bool = True,
    ended: Callable[[], bool] = lambda: False,
    seen: Callable[[Sent], None] = lambda _: None,
    progress: Progress = silent,
) -> ReplayResult:
    """Send the rows of [since, until) as requests at their moments of prediction, `speed` times as fast, then labels.

    Rows have the columns of `model` (default: the served one). An interrupted replay is resumed, unless `again`. With
    `release_clock`, stages of a release use replayed time. `url`: of the gateway; default: the project's.

    Raises:
        UsageError: the period is invalid, or the model reads no rows of the project.
        DataError: no row lies in the period.
        EngineUnavailableError: no gateway runs.
    """
    check_period(since, until)
    progress("rows")
    period = Period(project, _version(project, model), since, until)
    address = url or _gateway_url(project)
    request = ReplayRequest(model=period.model, since=to_micros(since), until=to_micros(until))
    reached = load_or_begin(project.state, request, again=again)
    resumed, begun = reached.sent, time.monotonic()
    moments = _ReplayedTime(period, request, progress)

    sender = Sender(
        period,
        reached,
        url=address,
        speed=speed,
        concurrency=concurrency,
        timeout=timeout,
        ended=ended,
        seen=seen,
        note=lambda state: write_state(project.state, state),
        moving=moments,
    )
    progress("requests")
    with scale_time(project.journal(), speed) if release_clock else contextlib.nullcontext():
        asyncio.run(sender.run(request.until))
    seconds = time.monotonic() - begun
    # Where labels were not taken, its state stays: the same command posts them, and sends no request again.
    done = reached.sent == period.count and not sender.label_trouble
    if done:
        delete_state(project.state)
    last = request.until if reached.sent == period.count else moments.now
    counts = sender.counts
    return ReplayResult(
        model=period.model,
        version=period.version,
        since=since,
        until=until,
        reached=from_micros(last),
        done=done,
        rows=period.count,
        resumed=resumed,
        requests=counts.requests,
        answered=counts.arms,
        failures=counts.failures,
        last_failure=counts.last_failure,
        labels=counts.labels,
        label_trouble=sender.label_trouble,
        p50_ms=counts.milliseconds(0.5),
        p99_ms=counts.milliseconds(0.99),
        seconds=round(seconds, 3),
        speed=round((last - moments.first) / 1e6 / seconds, 1),
    )


class _ReplayedTime:
    """The replayed time, reported as progress."""

    def __init__(self, period: Period, request: ReplayRequest, progress: Progress) -> None:
        self.first = self.now = period.first
        self._whole, self._progress = max(1, request.until - period.first), progress

    def __call__(self, now: int) -> None:
        self.now = max(self.now, now)
        self._progress(f"{from_micros(now):%Y-%m-%d %H:%M}", min(1.0, (now - self.first) / self._whole))


def _version(project: Project, model: str) -> ModelVersion:
    if model:
        return project.registry().resolve(model)
    champion = deployment_of(project).read(project.name).champion
    return project.registry().resolve(f"{project.name}/{champion}" if champion else project.name)


def _gateway_url(project: Project) -> str:
    url = gateway_url(project)
    if url is None:
        raise EngineUnavailableError(
            f"no gateway of {project.name} runs, so nothing takes the requests",
            subject=project.name,
            hint="`cumulant up` starts it; or name one with --url",
        )
    return url
