"""`cumulant plan`: what would run, checked before anything runs; and every setting with its origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.project import ResolvedRow

app = application("plan", "What would run.")


@command(app, action="project.plan", examples=["cumulant plan", "cumulant plan --resolved", "cumulant plan --resolved --env prod --json"])
def plan(
    call: Invocation,
    resolved: Annotated[bool, typer.Option("--resolved", help="Every setting with its value and origin.")] = False,
) -> None:
    """Check the project file and the features, and show what would run.

    Refuses, with file and line, what could not work: an unknown key, an input that is not known at the prediction, a
    driver that is not installed.
    """
    with call.project() as project:
        if resolved:
            rows = project.resolved()
            call.answer([_row(row) for row in rows], lambda console: _resolved(console, rows))
            return
        from cumulant.runtime import plan as flow

        with call.progress("plan") as progress:
            found = flow.plan(project, principal=project.principal(), progress=progress)
    call.answer(msgspec.to_builtins(found), lambda console: _show(console, found))


def _row(row: ResolvedRow) -> dict[str, object]:
    return {"path": row.path, "value": row.value, "origin": str(row.origin)}


def _resolved(console: Console, rows: list[ResolvedRow]) -> None:
    from cumulant.cli.terminal import cell, table

    def value(found: object) -> str:
        return "–" if found is None else "{}" if found == {} else "[]" if found == [] else cell(found)

    console.print(table(["setting", "value", "from"], [(row.path, value(row.value), str(row.origin)) for row in rows]))
