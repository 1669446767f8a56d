"""`cumulant features sql`: the features of streams as SQL."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation

if TYPE_CHECKING:
    from rich.console import Console


class SqlEngine(StrEnum):
    flink = "flink"


def declare(app: typer.Typer) -> None:
    command(
        app,
        operations=("features.sql",),
        action="features.show",
        name="sql",
        examples=[
            "cumulant features sql --env prod > job.sql",
            "cumulant features sql --env prod --json",
        ],
    )(_sql)


def _sql(
    call: Invocation,
    *,
    engine: Annotated[SqlEngine, typer.Option(help="The engine that the job is for.")] = SqlEngine.flink,
) -> None:
    """Show the features as SQL, for a job of your own.

    It is a job of Flink over topics of Kafka. A plan that Flink cannot compute exactly is refused by the names of its
    features.
    """
    with call.api() as api, call.progress("features") as progress:
        query = api.call("features.sql", engine=engine.value, progress=progress)

    def text(console: Console) -> None:
        lines = [f"SET '{name}' = '{value}';" for name, value in query.settings.items()]
        statements = "".join(f"{statement};\n" for statement in (*query.tables, query.text.rstrip()))
        for line in (*lines, *statements.splitlines()):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    call.answer(query, text)
