"""The demo: flights of 2013 from raw tables to a served model, as of 1 April, and the rest of its year."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import StepFailedError
from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.core.progress import Progress, silent
from cumulant.flows.demo.demo_project import FEED, alone, ended, make_folder
from cumulant.flows.demo.demo_state import is_kept, stored_year
from cumulant.flows.demo.releases import train_candidates
from cumulant.flows.demo.report import Year
from cumulant.flows.demo.timeline import year
from cumulant.flows.demo.weather_feed import as_in_spring
from cumulant.flows.reports.report import report
from cumulant.flows.serving import serve
from cumulant.flows.stack.programs import check_gateway
from cumulant.flows.training.train import TrainResult, train

if TYPE_CHECKING:
    from cumulant.project.project import Project

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)


class DemoRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was really sent: its row, the answer, and what the flight did in the end."""

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
    #: what was released after it, what the watch found and what people were asked; nothing where that was not asked for
    year: Year
    tracking_uri: str
    seconds: float


def demo(
    folder: Path,
    *,
    keep: bool = False,
    http: str = "127.0.0.1:0",
    released: bool = True,
    progress: Progress = silent,
) -> DemoResult:
    """Make the flights project in `folder` (or go on with it), train, serve, ask, report; then go on over the year.

    With `keep` the server goes on after the return; its process id is in the result. Without `released` the demo ends
    with the first model.

    Raises:
        MissingPartError: releases are wanted, and no gateway is installed.
    """
    begun = time.monotonic()
    make_folder(folder)
    with alone(folder), as_in_spring(folder / "data", FEED, mended=is_kept(folder / ".cumulant")):
        return _run_demo(folder, begun, keep=keep, http=http, released=released, progress=progress)


def _run_demo(folder: Path, begun: float, *, keep: bool, http: str, released: bool, progress: Progress) -> DemoResult:
    from cumulant.project.file.loading import load

    with load(folder) as project:
        if released:
            check_gateway(project)  # before minutes of training
        who = project.principal()
        trained = train(project, principal=who, as_of=AS_OF, progress=progress)
        service = serve.prepare_service(
            project, f"{trained.model.name}/{trained.model.version}", principal=who, as_of=AS_OF, progress=progress
        )
        progress("request")
        with serve.run_server(service, http=http, keep=keep) as running:
            request = ask(project, trained, running.url)
        page = report(project, trained.run, out=folder / "report.html", principal=who)
        rest_of_year = _year(project, trained, progress) if released else Year()
        return DemoResult(
            folder=str(folder),
            train=trained,
            request=request,
            serve_url=running.url,
            serve_pid=running.pid,
            server_running=keep,
            report=str(page),
            year=rest_of_year,
            tracking_uri=project.registry().tracking_uri,
            seconds=round(time.monotonic() - begun, 1),
        )


def _year(project: Project, trained: TrainResult, progress: Progress) -> Year:
    champion = f"{trained.model.name}/{trained.model.version}"
    versions = train_candidates(project, progress)
    result = stored_year(project.state, (champion, *versions), lambda: year(project, champion, versions, progress))
    ended(project.root)
    return result


def ask(project: Project, trained: TrainResult, url: str) -> DemoRequest:
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


def _next_flight(project: Project, trained: TrainResult) -> tuple[dict[str, object], bool | None]:
    import polars as pl

    from cumulant.data.snapshot import scan

    snapshot = trained.validation.snapshots["flights"]
    fields = [field.name for field in trained.features.plan.request]
    moment = pl.col("sched_dep") - timedelta(hours=2)
    frame = scan(snapshot, project.tables()).filter(moment > AS_OF).sort("sched_dep").head(1).collect()
    flight = frame.row(0, named=True)
    delay = flight["arr_delay"]
    return {name: _plain(flight[name]) for name in fields}, None if delay is None else delay > 15


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
