"""`cumulant features sql`: the features of the history as a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation

if TYPE_CHECKING:
    import typer
    from rich.console import Console


def declare(app: typer.Typer) -> None:
    command(
        app,
        operations=("features.sql",),
        action="features.show",
        name="sql",
        examples=["cumulant features sql > features.sql", "cumulant features sql --json"],
    )(_sql)


def _sql(call: Invocation) -> None:
    """Show the features of the history as one query of Spark SQL, for a job or notebook of your own.

    It is what an environment with `history: sc://HOST:15002?staging=FOLDER` runs.
    """
    with call.api() as api, call.progress("features") as progress:
        query = api.call("features.sql", progress=progress)

    def text(console: Console) -> None:
        lines = [f"-- view {view}: {', '.join(columns)}" for view, columns in query.views.items()]
        lines.append("-- needs " + ", ".join(f"{name}={value}" for name, value in query.settings.items()))
        for line in (*lines, *query.text.splitlines()):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    call.answer(query, text)
