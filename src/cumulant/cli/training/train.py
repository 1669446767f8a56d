"""`cumulant train`: from the sources to a registered model version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.options import AsOf, Detach
from cumulant.cli.project.jobs import show_submitted
from cumulant.core.units import moment
from cumulant.flows.reports.model_content import with_notes
from cumulant.flows.reports.wording import duration as spent
from cumulant.flows.reports.wording import steps as step_times
from cumulant.server.client.caller import report_content

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.reports.content import ReportData
    from cumulant.server.operations.training import TrainedVersion

app = application("train", "Train a model version.")


@command(
    app,
    operations=("training.train", "runs.report"),
    action="model.train",
    examples=[
        "cumulant train --quick",
        "cumulant train --as-of 2013-04-01",
        "cumulant train --trials 50 --time 10m --json",
        "cumulant train --server https://cumulant.example.com --detach",
    ],
)
def train(
    call: Invocation,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the rows and no search: seconds.")] = False,
    as_of: AsOf = None,
    trials: Annotated[int | None, typer.Option(metavar="N", help="At most this many trials.", min=1)] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Search and final fits take at most this long, such as 90s or 10m; reading, evaluation, packaging and"
            " registration come on top. The time of each step is shown at the end.",
        ),
    ] = None,
    detach: Detach = False,
) -> None:
    """Bring data and features up to date, search, evaluate, package, register.

    Steps that were done before are reused; an interrupted run continues from its last finished step.
    Exit code 1 where the gate refuses: the version is registered all the same, without an alias.
    Where a release delivers, a version that passes is the `candidate`, and its release moves `champion`.
    """
    arguments = {
        "quick": quick,
        "as_of": None if as_of is None else moment(as_of),
        "trials": trials,
        "time": time,
    }
    with call.api() as api:
        if detach:
            show_submitted(call, api.submit("training.train", **arguments))
            return
        with call.progress(f"train {api.project}") as progress:
            result = api.call("training.train", **arguments, progress=progress)
        page = with_notes(report_content(api, result.run), result.notes)
    finish(call, page, result)


def finish(call: Invocation, page: ReportData, result: TrainedVersion) -> None:
    """Show a finished training and end with the gate's exit code."""
    from cumulant.cli.documents import train_document  # loads numpy

    def text(console: Console) -> None:
        from cumulant.flows.reports.summary import show_training

        show_training(console, page)
        reused, computed = len(result.reused), result.features.computed_of
        text_ = f", {reused} step{'s' * (reused != 1)} reused" if reused else ""
        console.print(f"{spent(result.seconds)}{text_}", style="dim")
        if shown := step_times(page.steps, page.seconds):
            limit = f" (--time {result.time} bounds search and final fits)" if result.time is not None else ""
            console.print(f"steps: {shown}{limit}", style="dim", soft_wrap=True)
        if computed is not None:
            console.print(f"features: {computed}", style="dim")
        console.print("next: " + call.line(f"report {page.run} --out report.html"), style="dim", soft_wrap=True)
        if result.next:
            steps = ", then ".join(call.line(words) for words in result.next)
            text_ = f"next: {steps}; the alias champion moves when a release promotes version {page.version}"
            console.print(text_, style="dim", soft_wrap=True)

    call.answer(train_document(page, result.features, reused=result.reused, seconds=result.seconds), text)
    if page.gate is not None and not page.gate.passed:
        raise typer.Exit(1)
