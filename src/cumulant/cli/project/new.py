"""`cumulant new`: the shortest project that trains on a user's file, or a copy of a template."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.program import line_in
from cumulant.core.errors import UsageError
from cumulant.flows.reports.terminal import clean, warn
from cumulant.project.new.workflows import check_service, write_workflow

if TYPE_CHECKING:
    from rich.console import Console

app = application("new", "Create a project.")

#: prefix of an assumption that needs attention
WARNING = "warning: "


@command(
    app,
    action=None,
    examples=[
        "cumulant new churn --from customers.csv --target churned",
        "cumulant new late --from 'trips/*.parquet' --target 'delay > 15' --time departed --key trip_id",
        "cumulant new flight-late --template flights",
        "cumulant new --ci github",
    ],
)
def new(
    call: Invocation,
    *,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The model's name and the new folder's.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="Your data: a file, folder, glob or URL.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="COL", help="The column (or expression) to predict.")] = None,
    time: Annotated[str | None, typer.Option(metavar="COL", help="The event time; default: detected.")] = None,
    key: Annotated[list[str] | None, typer.Option(metavar="COL", help="The key's column; may be repeated.")] = None,
    sheet: Annotated[
        str | None, typer.Option(metavar="NAME", help="The sheet of an Excel workbook that has several.")
    ] = None,
    template: Annotated[
        str, typer.Option(metavar="NAME", help="flights, fraud or blank, where --from is left out.")
    ] = "",
    ci: Annotated[
        str,
        typer.Option(
            metavar="github|gitlab",
            help="Write the workflow: plan, validate, train, gate, report. Without NAME: of the project that is here.",
        ),
    ] = "",
) -> None:
    """Create a project in a new folder, and show what was assumed.

    With --from, it trains without an edit. --project names the parent folder; default: here.
    """
    from cumulant.project.new.create import create_from
    from cumulant.project.new.templates import create_from_template

    if ci:
        check_service(ci)
    if name is None:
        _workflow_only(call, ci, described=any((source, target, time, key, sheet, template)))
        return
    parent = Path(call.given or ".")
    if source is None:
        if target or time or key or sheet:
            raise UsageError("--target, --time, --key and --sheet describe the data of --from", hint="add --from FILE")
        created = create_from_template(name, template or "blank", directory=parent)
    elif template:
        raise UsageError("a project begins from a file or from a template, not from both", hint="leave one of them out")
    elif target is None:
        raise UsageError("no column to predict was named", hint="add --target COLUMN")
    else:
        with call.progress("new") as progress:
            progress(f"reading {source}")
            created = create_from(source, target, name=name, directory=parent, time=time, key=key or (), sheet=sheet)

    notes = [*created.assumptions, *([_workflow(created.path, ci)] if ci else [])]
    warnings = [line.removeprefix(WARNING) for line in notes if line.startswith(WARNING)]

    def text(console: Console) -> None:
        where = _short(created.path)
        console.print(f"{where}/ is ready", style="bold")
        for line in notes:
            if not line.startswith(WARNING):
                console.print(f"  {clean(line)}", soft_wrap=True)
        warn(console, warnings)
        console.print("next: " + line_in(where, "train"), style="dim", soft_wrap=True)

    call.answer({"path": str(created.path), "assumptions": notes, "warnings": warnings}, text)


def _workflow_only(call: Invocation, ci: str, *, described: bool) -> None:
    if not ci or described:
        raise UsageError("the new project needs a name", hint="cumulant new NAME; see `cumulant new --help`")
    path = write_workflow(call.directory.absolute(), ci)
    call.answer({"path": str(path)}, lambda console: console.print(f"{_short(path)} is written", soft_wrap=True))


def _workflow(folder: Path, ci: str) -> str:
    path = write_workflow(folder, ci).relative_to(folder)
    return f"{path} runs plan, validate, train, gate and report where {folder.name}/ is the root of the repository"


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
