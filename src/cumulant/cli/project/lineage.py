"""`cumulant lineage`: the origins of a model version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.options import Model
from cumulant.flows.reports.origins import lines
from cumulant.flows.reports.terminal import heading, pairs
from cumulant.server.model_uri import split_uri

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.registry.lineage import Lineage

app = application("lineage", "Where a model comes from.")


@command(
    app,
    operations=("models.lineage",),
    action="lineage.show",
    examples=["cumulant lineage", "cumulant lineage flight-late@champion", "cumulant lineage churn/3 --json"],
)
def lineage(call: Invocation, model: Model = "") -> None:
    """Show the origins of a model version: snapshots, source files, features, code, settings, environment."""
    with call.api() as api:
        name, version = split_uri(model or api.project)
        origins = api.call("models.lineage", model=name, version=version)
    call.answer(origins, lambda console: _show(console, origins))


def _show(console: Console, origins: Lineage) -> None:
    heading(console, "lineage")
    pairs(console, lines(origins))
