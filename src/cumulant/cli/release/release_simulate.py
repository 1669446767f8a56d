"""`cumulant release simulate`: how releases of the project's policy would end in a described world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation
from cumulant.flows.reports.terminal import clean, table
from cumulant.release.wording import span

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.release.simulation.result import Share, SimulationResult


def declare(app: typer.Typer) -> None:
    command(
        app,
        action="release.simulate",
        name="simulate",
        examples=[
            "cumulant release simulate",
            "cumulant release simulate --world errors-x3 --releases 50 --json",
            "cumulant release simulate --world world.json --seed 7",
            "cumulant release simulate --log",
        ],
    )(_simulate)


def _simulate(
    call: Invocation,
    *,
    world: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="A JSON file, or a world that ships with Cumulant. Default: a candidate that is as good.",
        ),
    ] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Draw the requests of both versions from the gateway's log of the champion.")
    ] = False,
    releases: Annotated[int, typer.Option(metavar="N", help="How many releases.")] = 100,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The same seed gives the same releases.")] = 0,
    processes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes at once. Default: one a processor core.")
    ] = None,
) -> None:
    """Simulate releases of this project's policy: how often they are promoted, rolled back, undecided, and when.

    Needs no trained model. Requests, pairs and labels are synthetic; what decides is what decides real releases.
    """
    from cumulant.flows.release.simulation.simulate import simulate_releases

    with call.project() as project, call.progress("release simulate") as progress:
        result = simulate_releases(
            project,
            principal=project.principal(),
            world=world,
            log=log,
            releases=releases,
            seed=seed,
            processes=processes,
            progress=progress,
        )
    call.answer(result, lambda console: _show(console, result))


def _show(console: Console, result: SimulationResult) -> None:
    from cumulant.flows.release.simulation.result import ENDS

    console.print(
        clean(
            f"{result.releases:,} releases in the world {result.world}, in which the candidate is {_expected(result)}"
        )
    )
    heads = ["end", "releases", "share", f"{result.level:.0%} interval", "median", "90% within"]
    rows = []
    for end in ENDS:
        share: Share = getattr(result, end)
        times = result.seconds_by_end[end]
        median, most = ("–" if seconds is None else span(seconds) for seconds in (times.median, times.p90))
        between = f"{share.low:.1%} to {share.high:.1%}"
        rows.append((end.replace("_", " "), f"{share.count:,}", f"{share.share:.1%}", between, median, most))
    console.print(table(heads, rows, right=heads[1:]))
    reasons = [
        (end.replace("_", " "), count, reason)
        for end, counts in result.by_reason.items()
        for reason, count in counts.items()
    ]
    console.print(table(["end", "releases", "why"], reasons, right=["releases"]))
    stages = [
        (end.replace("_", " "), count, stage)
        for end, counts in result.by_stage.items()
        for stage, count in counts.items()
    ]
    console.print(table(["end", "releases", "stage"], stages, right=["releases"]))
    console.print(f"seed {result.seed}; {result.requests:,} requests", style="dim")


def _expected(result: SimulationResult) -> str:
    words = {
        "sound": "no worse (a rollback is wrong)",
        "broken": "worse than is accepted (a promotion is wrong)",
        "any": "of neither kind",
    }
    return words[result.expect]
