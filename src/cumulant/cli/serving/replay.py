"""`cumulant replay`: a past period again, through the gateway, many times faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.replay.replay import ReplayResult

app = application("replay", "A past period again, as requests and labels.")


@command(
    app,
    action="replay.run",
    examples=[
        "cumulant replay --from 2013-05-01 --to 2013-06-01 --speed 3600x",
        "cumulant replay --from 2013-05-01 --to 2013-05-08 --speed 600x --json",
    ],
)
def replay(
    call: Invocation,
    *,
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="The first moment of prediction.")],
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="The end; rows of that moment are left out.")],
    speed: Annotated[
        str, typer.Option(metavar="FACTOR", help="How many times faster than it happened: 3600x is an hour a second.")
    ] = "1x",
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME/VERSION", show_default=False, help="Whose request columns are sent; default: what is served."
        ),
    ] = "",
    url: Annotated[
        str, typer.Option(metavar="URL", show_default=False, help="Of the gateway; default: the project's own.")
    ] = "",
    concurrency: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Requests at once, at most.")] = 32,
    again: Annotated[bool, typer.Option("--again", help="From the beginning, though it was cut off before.")] = False,
    real_clock: Annotated[
        bool, typer.Option("--real-clock", help="Stages of a release take the clock's time, not the replayed one.")
    ] = False,
) -> None:
    """Send the rows of a period as requests, in their order, and post their labels when they became known.

    Needs `cumulant up`. Times of a release's stages are counted in replayed time while it runs. Cut off by Ctrl-C or a
    kill, the same command resumes where it stopped. Where the servers are slower than FACTOR, it waits. Exit code 1
    where the last labels were not taken.
    """
    from cumulant.core.units import moment
    from cumulant.flows.replay.replay import replay as flow

    factor = speed_of(speed)
    with call.project() as project, call.progress("replay") as progress:
        replayed = flow(
            project,
            principal=project.principal(),
            since=moment(since),
            until=moment(until),
            speed=factor,
            model=model,
            url=url,
            concurrency=concurrency,
            again=again,
            release_clock=not real_clock,
            progress=progress,
        )
    call.answer(replayed, lambda console: _show(console, replayed))
    if replayed.label_trouble:
        call.note("fix why labels were refused, then run the same command again; only labels are posted")
        raise typer.Exit(1)


def speed_of(text: str) -> float:
    """`3600x` or `3600` as a factor.

    Raises:
        UsageError: it is none above 0.
    """
    try:
        factor = float(text.strip().removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 1e9:
        raise UsageError(f'"{text}" is no speed', subject="--speed", hint="write 3600x, for an hour in a second")
    return factor


def _show(console: Console, replayed: ReplayResult) -> None:
    from cumulant.flows.reports.terminal import pairs
    from cumulant.flows.reports.wording import duration

    failures = ", ".join(f"{count} {_WHOSE.get(whose, whose)}" for whose, count in sorted(replayed.failures.items()))
    answered = ", ".join(f"{count} by the {arm}" for arm, count in sorted(replayed.answered.items()))
    rows: list[tuple[str, object]] = [
        ("model", f"{replayed.model}/{replayed.version}"),
        ("period", f"{replayed.since:%Y-%m-%d %H:%M} to {replayed.reached:%Y-%m-%d %H:%M}"),
        ("requests", f"{replayed.requests} of {replayed.rows} rows" + (f", {answered}" if answered else "")),
        ("failures", f"{failures}; the last: {replayed.last_failure}" if failures else "none"),
        (
            "labels",
            f"{replayed.labels}; not taken: {replayed.label_trouble}" if replayed.label_trouble else replayed.labels,
        ),
        ("latency", "–" if replayed.p50_ms is None else f"p50 {replayed.p50_ms:.1f} ms, p99 {replayed.p99_ms:.1f} ms"),
        ("time", f"{duration(replayed.seconds)}, {replayed.speed:g}x"),
    ]
    if replayed.resumed:
        rows.insert(3, ("sent before", replayed.resumed))
    pairs(console, rows)


_WHOSE = {
    "candidate": "of the candidate",
    "champion": "of the champion",
    "gateway": "of the gateway",
    "caller": "refused as the caller's",
}
