"""`cumulant features import-feast`: a project from the definitions of a Feast repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation
from cumulant.cli.program import line_in

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.project.feast.importing import FeastImport


def declare(app: typer.Typer) -> None:
    command(
        app,
        action=None,
        name="import-feast",
        examples=[
            "cumulant features import-feast ../feature_repo --python ../feast-env/bin/python --dry-run",
            "cumulant features import-feast ../feature_repo --rows rides.parquet --target late --project late",
            "cumulant features import-feast ../feature_repo --source accounts=data/accounts.parquet --service eta",
        ],
    )(_import_feast)


def _import_feast(
    call: Invocation,
    *,
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="The folder of feature_store.yaml.")],
    python: Annotated[
        str, typer.Option(metavar="PATH", help="An interpreter that has Feast; default: Cumulant's own.")
    ] = "",
    service: Annotated[
        str, typer.Option(metavar="NAME", help="Import the features of this feature service alone.")
    ] = "",
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Files of a source, such as an exported table; may be repeated."),
    ] = None,
    created: Annotated[
        Literal["known", "corrections"],
        typer.Option(
            help="What the created timestamp says: when a row became known, or which row of one key and time counts."
        ),
    ] = "known",
    rows: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="The rows to look features up for: join keys, a time, the target. Default: data/rows.parquet of the "
            "project.",
        ),
    ] = "",
    time: Annotated[str, typer.Option(metavar="COL", help="Their column of times.")] = "event_timestamp",
    target: Annotated[str, typer.Option(metavar="COL", help="Their column to predict.")] = "label",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the files, and write none.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files of the project that are there.")] = False,
) -> None:
    """Import the definitions of a Feast repository as a project, and show what became of each.

    The repository's Python files are run, as `feast apply` does. --project names the folder; default: here. Exit code
    1: no feature view can be imported, and nothing is written.
    """
    from cumulant.project.feast.imported import FeastOptions
    from cumulant.project.feast.importing import import_feast
    from cumulant.project.feast.mapping import parse_paths
    from cumulant.project.feast.project_files import EntityRows

    options = FeastOptions(service=service, created=created, paths=parse_paths(source or []))
    folder = Path(call.given or ".")
    with call.progress("import") as progress:
        progress(f"reading {repo}")
        result = import_feast(
            repo,
            folder,
            python=python or None,
            options=options,
            rows=EntityRows(path=rows, time=time, target=target),
            force=force,
            dry_run=dry_run,
        )
    document = {
        "path": str(folder.absolute()),
        "feast": result.feast,
        "written": result.written,
        "objects": result.imported.objects,
        "differences": result.imported.differences,
        "files": result.files if dry_run else sorted(result.files),
    }
    call.answer(document, lambda console: _print_import(console, result, dry_run=dry_run))
    if not result.imported.views:
        raise typer.Exit(1)


def _print_import(console: Console, result: FeastImport, *, dry_run: bool) -> None:
    from cumulant.flows.reports.terminal import clean, table

    imported = result.imported
    ordered = sorted(imported.objects, key=lambda each: ("mapped", "partly", "not mapped").index(each.outcome))
    cells = [(f"{each.kind} {each.name}", each.outcome, each.text, each.next) for each in ordered]
    console.print(table(["Feast", "", "becomes, or why not", "what to do"], cells))
    for sentence in imported.differences:
        console.print(f"note: {clean(sentence)}", style="dim", soft_wrap=True)
    if not imported.views:
        console.print("no feature view can be imported; nothing was written")
        return
    if dry_run:
        for name in ("cumulant.yaml", "features.py"):
            console.print(f"\n# {name}", style="bold")
            console.print(clean(result.files[name]), markup=False, highlight=False, soft_wrap=True)
        return
    features = sum(len(view.features) for view in imported.views)
    console.print(f"{features} features of {len(imported.views)} views were written to {result.folder}/", style="bold")
    console.print("next: " + line_in(str(result.folder), "features get"), style="dim", soft_wrap=True)
