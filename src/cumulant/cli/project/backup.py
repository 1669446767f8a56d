"""`cumulant backup`: a project and its state in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.flows.reports.wording import size

if TYPE_CHECKING:
    from rich.console import Console

app = application("backup", "A project and its state in one file.")


@command(
    app,
    action="project.backup",
    examples=[
        "cumulant backup /mnt/backups",
        "cumulant backup shop.tar.gz",
        "cumulant backup /mnt/backups --no-sources",
    ],
)
def backup(
    call: Invocation,
    target: Annotated[
        Path, typer.Argument(metavar="FILE|FOLDER", help="A new file; in a folder the name gets the time.")
    ],
    *,
    sources: Annotated[
        bool, typer.Option("--sources/--no-sources", help="Include source files in the project's folder.")
    ] = True,
) -> None:
    """Write the project and the state of one environment to a new archive, while everything runs.

    It holds all that was accepted before the start: events, labels, answered requests, models, snapshots. Secrets are
    left out, except the salt of the hashed values: keep the archive as private as the project. `cumulant restore`
    reads it.
    """
    from cumulant.flows.backup.backup import back_up

    with call.project() as project, call.progress("backup") as progress:
        done = back_up(project, target, principal=project.principal(), sources=sources, progress=progress)
    manifest = done.manifest

    def text(console: Console) -> None:
        console.print(f"{done.archive}: {len(manifest.files):,} files, {size(done.bytes)}", soft_wrap=True)
        for excluded in manifest.left_out:
            console.print(f"not in it: {excluded}", soft_wrap=True)
        console.print(f"events up to {manifest.head_seq:,}, {manifest.head_hash[:12]}", style="dim")

    call.answer(
        {
            "archive": str(done.archive),
            "bytes": done.bytes,
            "files": len(manifest.files),
            "head": {"seq": manifest.head_seq, "hash": manifest.head_hash},
            "left_out": manifest.left_out,
        },
        text,
    )
