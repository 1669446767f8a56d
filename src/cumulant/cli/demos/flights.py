"""`cumulant demo`: real flights, from raw tables to a served model, and the rest of its year."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from cumulant.cli.command import application, command
from cumulant.cli.demos.console import DEFAULT_PLACE, serve_demo_console
from cumulant.cli.invocation import Invocation
from cumulant.cli.program import line, program
from cumulant.core.structs import struct_from
from cumulant.flows.reports.terminal import clean, pairs, table

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.demo.demo import DemoResult
    from cumulant.demo.report import ReleaseReport, Year

app = application("demo", "The flights demo.")

FOLDER = Path("cumulant-demo")


@command(
    app, action=None, examples=["cumulant demo", "cumulant demo --keep", "cumulant demo --dir /tmp/flights --json"]
)
def demo(
    call: Invocation,
    *,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="Leave the server and the console running until Ctrl-C, which ends both (exit code 0); with --json the"
            " server alone, which runs on.",
        ),
    ] = False,
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder of the project.")] = FOLDER,
    released: Annotated[
        bool, typer.Option("--release/--no-release", help="Continue over the year: releases, monitoring, retraining.")
    ] = True,
    port: Annotated[
        int, typer.Option(metavar="PORT", help="The server's port; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    console: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Where the console listens with --keep; where that is taken, on a free port."
        ),
    ] = DEFAULT_PLACE,
) -> None:
    """Create the flights project, train as of 1 April 2013, serve, send a request, report; then continue over the year.

    All flights out of New York in 2013 with hourly weather: will a flight land more than 15 minutes late, predicted
    two hours before departure from what was known then? Then May is replayed through a gateway. The next version is
    released and promoted automatically; a slow, a failing and a wrongly trained one are rolled back. Flights with
    unknown outcome are reviewed. In July labels show that the model is worse than a new one would be: it is retrained
    and released automatically, but not while the weather feed has no values. In December more flights are late, which
    no training can change: an alert is raised, and nothing is trained. Run again, it reuses what was done, in seconds.
    """
    from cumulant.demo.demo import demo as flow
    from cumulant.serving.sockets import split_address

    address = split_address(console)
    with call.progress("demo: flights of 2013") as progress:
        result = flow(folder, env=call.environment, keep=keep, port=port, released=released, progress=progress)
    call.answer(document(result), lambda console: _show(console, result))
    if keep and not call.json:
        _serve_console(call, folder, address, result.serve_pid)


def _serve_console(call: Invocation, folder: Path, address: tuple[str, int], server: int) -> None:
    """The console of the project until interrupted; then the process of the server is ended too."""
    from cumulant.core.system.child_processes import end_child
    from cumulant.demo.demo import LONGEST_DRAIN

    try:
        serve_demo_console(call, folder, address)
    finally:
        end_child(server, LONGEST_DRAIN)


def document(result: DemoResult) -> dict[str, object]:
    """The demo's document: that of `train`, the request, and the year."""
    from cumulant.cli.documents import DemoDocument, ServeFigures, train_document  # loads numpy

    trained = train_document(result.page, result.train.features, reused=result.train.reused, seconds=result.seconds)
    request = result.request
    whole = struct_from(
        DemoDocument,
        trained,
        folder=result.folder,
        serve=ServeFigures(
            url=result.serve_url,
            pid=result.serve_pid,
            running=result.server_running,
            request=request.row,
            answer=request.answer,
            milliseconds=request.milliseconds,
            truth=request.truth,
        ),
        release=result.year.release,
        monitoring=result.year.monitoring,
        review=result.year.review,
        report=result.report,
        tracking_uri=result.tracking_uri,
    )
    return dict(msgspec.to_builtins(whole))


def _show(console: Console, result: DemoResult) -> None:
    from rich.text import Text

    from cumulant.flows.reports.summary import show_training
    from cumulant.flows.reports.wording import duration

    show_training(console, result.page)
    request = result.request
    row = ", ".join(f"{key} {value}" for key, value in request.row.items())
    answer = _answer(request.answer)
    truth = {
        True: "the flight landed more than 15 minutes late",
        False: "the flight landed in time",
        None: "the flight never arrived",
    }
    console.print("")
    pairs(
        console,
        [
            ("request", row),
            ("answer", Text(f"{clean(answer)}  ({request.milliseconds:.1f} ms)", style="bold")),
            ("outcome", truth[request.truth]),
        ],
    )
    _show_releases(console, result.year.release)
    _show_watch(console, result.year)
    console.print("")
    reused = f", {len(result.train.reused)} steps reused" if result.train.reused else ""
    rows: list[tuple[str, object]] = [
        ("report", result.report),
        ("experiments", f"{program('mlflow')} ui --backend-store-uri {shlex.quote(result.tracking_uri)}"),
        *([] if result.server_running else [("console", line("api", project=result.folder))]),
        ("next", line("models show", project=result.folder)),
    ]
    if result.server_running:
        rows.append(("server", f"{result.serve_url} (process {result.serve_pid}; Ctrl-C ends it and the console)"))
    pairs(console, [*rows, ("time", duration(result.seconds) + reused)])


def _show_releases(console: Console, releases: tuple[ReleaseReport, ...]) -> None:
    from cumulant.flows.reports.wording import duration

    if not releases:
        return
    rows = [
        (
            release.candidate,
            release.verdict.replace("_", " "),
            release.stages[-1].name if release.stages else "–",
            duration(release.seconds),
            release.failed_requests,
            release.reason,
        )
        for release in releases
    ]
    console.print("")
    console.print(table(["candidate", "verdict", "last stage", "time", "failed requests", "reason"], rows))


def _show_watch(console: Console, year: Year) -> None:
    from cumulant.flows.reports.wording import value

    newest = {(finding.version, finding.feature, finding.kind): finding for finding in year.monitoring.findings}
    if not newest:
        return
    rows = [
        (
            f"{finding.at:%d %b}",
            finding.version,
            finding.feature,
            finding.kind if finding.active else f"{finding.kind} (resolved)",
            f"{finding.since:%d %b}",
            value(finding.loss_estimated),
            value(finding.loss_measured),
            "retrained" if finding.retrained else "excluded" if finding.feature == "sources" else "alert",
        )
        for finding in newest.values()
    ]
    console.print("")
    titles = ["date", "version", "subject", "kind", "since", "estimated loss", "measured", "consequence"]
    console.print(table(titles, rows))
    review, monitoring = year.review, year.monitoring
    console.print("")
    pairs(
        console,
        [
            ("trained", f"{', '.join(monitoring.trained) or 'nothing'}, because labels showed harm"),
            (
                "alerts",
                ", ".join(sorted({f"{finding.rule} ({finding.status})" for finding in monitoring.alerts})) or "none",
            ),
            (
                "reviews",
                f"{review.queued} cases, {review.answered} answered, {review.used_for_training} used for training",
            ),
        ],
    )


def _answer(answer: dict[str, object]) -> str:
    from cumulant.flows.reports.wording import duration, value

    parts = [f"prediction {value(answer.get('prediction'))}"]
    if (probability := answer.get("probability")) is not None:
        parts.append(f"probability {value(probability)}")
    if isinstance(age := answer.get("state_age"), int | float):
        parts.append(f"newest stored event {duration(age)} before")
    return ", ".join(parts)
