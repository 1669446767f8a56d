"""`cumulant evaluate`: a registered model on later data, and the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.options import AsOf, Detach, Model
from cumulant.cli.project.jobs import show_submitted
from cumulant.core.units import moment
from cumulant.flows.reports.terminal import heading, pairs
from cumulant.server.client.caller import report_content
from cumulant.server.model_uri import split_uri

if TYPE_CHECKING:
    from rich.console import Console

app = application("evaluate", "Score a registered model.")


@command(
    app,
    operations=("training.evaluate", "runs.report"),
    action="model.evaluate",
    examples=[
        "cumulant evaluate",
        "cumulant evaluate flight-late@candidate --as-of 2013-06-01",
        "cumulant evaluate churn/3 --json",
    ],
)
def evaluate(call: Invocation, model: Model = "", as_of: AsOf = None, *, detach: Detach = False) -> None:
    """Score a registered model on the test rows of today's data and evaluate the gate.

    Exit code 1 where the gate refuses.
    """
    with call.api() as api:
        name, version = split_uri(model or api.project)
        arguments = {"model": name, "version": version, "as_of": None if as_of is None else moment(as_of)}
        if detach:
            show_submitted(call, api.submit("training.evaluate", **arguments))
            return
        with call.progress("evaluate") as progress:
            result = api.call("training.evaluate", **arguments, progress=progress)
        page = report_content(api, result.run)

    def text(console: Console) -> None:
        from cumulant.flows.reports.summary import show_gate, show_metrics

        heading(console, page.subject)
        show_metrics(console, page)
        pairs(console, (("note" if place == 0 else "", note) for place, note in enumerate(result.judgement.notes)))
        if page.gate is not None:
            show_gate(console, page.gate)

    figures = {figure.name: figure.model for figure in page.metrics}
    call.answer(
        {
            "run": result.run,
            "model": page.uri,
            "figures_of": "tested model" if page.of_tested else "model",
            "metrics": figures,
            "slices": page.slices,
            "gate": page.gate,
            "notes": result.judgement.notes,
        },
        text,
    )
    if page.gate is not None and not page.gate.passed:
        raise typer.Exit(1)
