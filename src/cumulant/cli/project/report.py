"""`cumulant report`: one page about a run or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.server.client.caller import report_content

app = application("report", "One page about a run or model.")


@command(
    app,
    operations=("runs.report", "models.report"),
    action="project.report",
    examples=[
        "cumulant report flight-late@champion --out report.html",
        "cumulant report latest --out report.md",
        "cumulant report 20261124T101500-3fa2c1 --out report.json",
    ],
)
def report(
    call: Invocation,
    target: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="A run, `latest`, or a model (NAME@ALIAS, NAME/VERSION, NAME).")
    ] = "latest",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page: .html, .md or .json.")] = Path("report.html"),
) -> None:
    """Write one page that needs no network: data and quarantine, features, metrics, gate, lineage, actors."""
    from cumulant.flows.reports import report as flow

    new = next((folder for folder in reversed(out.absolute().parents) if not folder.exists()), None)
    if call.server:
        flow.check_format(out)
        with call.api() as api:
            flow.write_report(report_content(api, target), out)
    else:  # also stored in the registry, beside the run
        with call.project() as project:
            flow.report(project, target, out=out, principal=project.principal())
    note = f"; the folder {new} was created" if new is not None else ""
    call.answer({"file": str(out)}, lambda console: console.print(f"written to {out}{note}", soft_wrap=True))
