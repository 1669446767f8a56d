"""`cumulant events checkpoint`: sign the event chain, and write the checkpoint elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import StorageError

if TYPE_CHECKING:
    from rich.console import Console


def declare(app: typer.Typer) -> None:
    command(
        app,
        operations=("events.checkpoint",),
        action="events.checkpoint",
        name="checkpoint",
        examples=[
            "cumulant events checkpoint",
            "cumulant events checkpoint --env production --public-key audit.pub.pem",
        ],
    )(_checkpoint)


def _checkpoint(
    call: Invocation,
    public_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the key there that others verify with.")
    ] = None,
) -> None:
    """Verify the events, sign them up to the newest one, and write the checkpoint to `audit` of the environment.

    `cumulant up` and `cumulant tick` do so once an hour, where there are new events.
    """
    with call.api() as api, call.progress("checkpoint") as progress:
        written = api.call("events.checkpoint", progress=progress)
    if public_key is not None:
        try:
            public_key.write_text(written.public_key, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"the key could not be written: {error.strerror}", subject=str(public_key)) from None

    def text(console: Console) -> None:
        what = "signed" if written.new else "were signed before, and no event came since"
        line = f"{written.size:,} events {what}: checkpoint {written.key}" if written.key else "there is no event yet"
        console.print(line, soft_wrap=True)

    call.answer(written, text)
