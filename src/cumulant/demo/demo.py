"""The demo: flights of 2013 from raw tables to a served model, as of 1 April, and the rest of its year."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import cumulant
from cumulant.core.errors import StepFailedError
from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.core.progress import Progress, silent
from cumulant.core.system.child_processes import end_child
from cumulant.demo.project import FEED, has_year, locked, make_folder, mark_ended, stored_year
from cumulant.demo.releases import train_candidates
from cumulant.demo.report import Year
from cumulant.demo.timeline import year
from cumulant.demo.weather_feed import as_in_spring

if TYPE_CHECKING:
    from cumulant.api.results import ReportData, TrainResult
    from cumulant.api.views import TrainingView

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
#: seconds that its server has to end in: it answers for 10 s what it has accepted
LONGEST_DRAIN = 15.0


class DemoRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was sent: its row, the answer, and whether the flight was late in the end."""

    url: str
    row: dict[str, object]
    answer: dict[str, object]
    milliseconds: float
    truth: bool | None


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    folder: str
    train: TrainResult
    request: DemoRequest
    serve_url: str
    serve_pid: int
    server_running: bool
    report: str
    #: the report of the first model, at the end of the year
    page: ReportData
    #: releases, monitoring and review after it; empty where they were not wanted
    year: Year
    tracking_uri: str
    seconds: float


def demo(
    folder: Path,
    *,
    env: str = "local",
    keep: bool = False,
    port: int = 0,
    released: bool = True,
    progress: Progress = silent,
) -> DemoResult:
    """Create the flights project in `folder` (or continue it), train, serve, send a request, report; then the year.

    With `keep` the server runs on after the return, and its process id is in the result; an error or an interrupt ends
    it. Without `released` the demo ends with the first model. `env`: environment of the project file in `folder`, where
    there is one.

    Raises:
        MissingPartError: releases are wanted, and no gateway is installed.
    """
    begun = time.monotonic()
    make_folder(folder)
    with (
        locked(folder, env),
        as_in_spring(folder / "data", FEED, fixed=has_year(folder)),
        ExitStack() as incomplete,
        cumulant.open(folder, env=env, progress=progress) as project,
    ):
        if released:
            project.stack.check()  # before minutes of training
        trained = project.train(as_of=AS_OF)
        champion = f"{trained.model.name}/{trained.model.version}"
        with project.serve(champion, port=port, as_of=AS_OF, keep=keep) as server:
            progress("request")
            if keep:  # nobody knows of it until there is a result
                incomplete.callback(end_child, server.pid, LONGEST_DRAIN)
            request = send_request(project, trained, server.url)
        report = folder / "report.html"
        project.report(trained.run, out=report)
        rest_of_year = _year(project, champion, progress) if released else Year()
        result = DemoResult(
            folder=str(folder),
            train=trained.value,
            request=request,
            serve_url=server.url,
            serve_pid=server.pid,
            server_running=keep,
            report=str(report),
            page=project.report(trained.run).value,
            year=rest_of_year,
            tracking_uri=project.tracking_uri,
            seconds=round(time.monotonic() - begun, 1),
        )
        incomplete.pop_all()
        return result


def _year(project: cumulant.Project, champion: str, progress: Progress) -> Year:
    candidates = train_candidates(project, progress)
    result = stored_year(project.root, (champion, *candidates), lambda: year(project, champion, candidates, progress))
    mark_ended(project.root)
    return result


def send_request(project: cumulant.Project, trained: TrainingView[TrainResult], url: str) -> DemoRequest:
    """Send the first flight whose prediction falls after the training's moment."""
    row, truth = _next_flight(project, trained)
    target = f"{url}/v1/models/{trained.model.name}/predict"
    body = msgspec.json.encode(row)
    client = HttpClient(seconds=30)
    try:
        client.get(f"{url}/v2/health/ready")  # the first request of a process imports httpx
        begun = time.perf_counter()
        response = client.send("POST", target, headers={"content-type": "application/json"}, content=body)
    except NoResponseError as error:
        raise StepFailedError(f"the server did not answer the request: {error}", subject=target) from error
    milliseconds = round((time.perf_counter() - begun) * 1000, 2)
    if not response.ok:
        raise StepFailedError(f"the server did not answer the request: it answered {response.status}", subject=target)
    answer = msgspec.json.decode(response.body, type=dict[str, object])
    return DemoRequest(url=target, row=row, answer=answer, milliseconds=milliseconds, truth=truth)


def _next_flight(
    project: cumulant.Project, trained: TrainingView[TrainResult]
) -> tuple[dict[str, object], bool | None]:
    import polars as pl

    fields = [field.name for field in trained.features.plan.request]
    moment = pl.col("sched_dep") - timedelta(hours=2)
    frame = project.rows("flights").filter(moment > AS_OF).sort("sched_dep").head(1).collect()
    flight = frame.row(0, named=True)
    delay = flight["arr_delay"]
    return {name: _plain(flight[name]) for name in fields}, None if delay is None else delay > 15


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
