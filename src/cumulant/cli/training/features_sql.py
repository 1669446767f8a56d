"""`cumulant features sql`: the features of the history, or of streams, as SQL."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation

if TYPE_CHECKING:
    from rich.console import Console


class SqlEngine(StrEnum):
    spark = "spark"
    flink = "flink"


def declare(app: typer.Typer) -> None:
    command(
        app,
        operations=("features.sql",),
        action="features.show",
        name="sql",
        examples=[
            "cumulant features sql > features.sql",
            "cumulant features sql --json",
            "cumulant features sql --engine flink --env prod > job.sql",
        ],
    )(_sql)


def _sql(
    call: Invocation,
    *,
    engine: Annotated[
        SqlEngine, typer.Option(help="`spark` computes the history, `flink` the rows of streams as they come.")
    ] = SqlEngine.spark,
) -> None:
    """Show the features as SQL, for a job or notebook of your own.

    Of Spark it is one query of the history, which an environment with `history: sc://HOST:15002?staging=FOLDER` runs.
    Of Flink it is a job over topics of Kafka; a plan that Flink cannot compute exactly is refused by the names of its
    features.
    """
    with call.api() as api, call.progress("features") as progress:
        query = api.call("features.sql", engine=engine.value, progress=progress)

    def text(console: Console) -> None:
        if engine is SqlEngine.flink:
            lines = [f"SET '{name}' = '{value}';" for name, value in query.settings.items()]
            statements = "".join(f"{statement};\n" for statement in (*query.tables, query.text.rstrip()))
        else:
            lines = [f"-- view {view}: {', '.join(columns)}" for view, columns in query.views.items()]
            lines.append("-- needs " + ", ".join(f"{name}={value}" for name, value in query.settings.items()))
            statements = query.text
        for line in (*lines, *statements.splitlines()):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    call.answer(query, text)
