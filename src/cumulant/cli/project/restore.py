"""`cumulant restore`: a project out of a backup."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.program import line

if TYPE_CHECKING:
    from rich.console import Console

app = application("restore", "A project out of a backup.")


@command(app, action=None, examples=["cumulant restore /mnt/backups/shop-20261127T020000Z.tar shop"])
def restore(
    call: Invocation,
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="What `cumulant backup` wrote.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder, anywhere.")],
) -> None:
    """Restore a project into a new folder: every file's hash is checked before anything is in place.

    The state gets an identity of its own. Exit code 1 where the archive is damaged; then nothing was restored.
    """
    from cumulant.flows.backup.restore import restore as flow
    from cumulant.project.file.layers import LOCAL

    with call.progress("restore") as progress:
        done = flow(archive, folder, progress=progress)
    manifest = done.manifest

    def text(console: Console) -> None:
        for note in done.notes:
            console.print(note, soft_wrap=True)
        for excluded in manifest.left_out:
            console.print(f"not in the backup: {excluded}", soft_wrap=True)
        console.print(
            f"{manifest.project} of {manifest.created:%Y-%m-%d %H:%M:%SZ} is in {done.folder}", soft_wrap=True
        )
        known = f"--head {manifest.head_hash[:12]} " if manifest.head_seq else ""
        environment = None if manifest.environment == LOCAL else manifest.environment
        verify = line(f"events verify {known}".rstrip(), project=str(done.folder), environment=environment)
        console.print(f"next: {verify}", style="dim", soft_wrap=True)

    call.answer(
        {
            "folder": str(done.folder),
            "project": manifest.project,
            "environment": manifest.environment,
            "created": manifest.created,
            "files": len(manifest.files),
            "head": {"seq": manifest.head_seq, "hash": manifest.head_hash},
            "notes": done.notes,
            "left_out": manifest.left_out,
        },
        text,
    )
