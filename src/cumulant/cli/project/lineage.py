"""`cumulant lineage`: the origins of a model version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.options import Model
from cumulant.flows.reports.origins import lines
from cumulant.flows.reports.terminal import heading, pairs

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.registry.lineage import Lineage

app = application("lineage", "Where a model comes from.")


@command(
    app,
    action="lineage.show",
    examples=["cumulant lineage", "cumulant lineage flight-late@champion", "cumulant lineage churn/3 --json"],
)
def lineage(call: Invocation, model: Model = "") -> None:
    """Show the origins of a model version: snapshots, source files, features, code, settings, environment."""
    from cumulant.flows.registry.lineage import lineage as flow

    with call.project() as project:
        origins = flow(project, model or project.name, principal=project.principal())
    call.answer(origins, lambda console: _show(console, origins))


def _show(console: Console, origins: Lineage) -> None:
    heading(console, "lineage")
    pairs(console, lines(origins))
