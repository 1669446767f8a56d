"""`cumulant predict`: answers for the rows of a file, offline or from a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.options import AsOf

if TYPE_CHECKING:
    from rich.console import Console

app = application("predict", "Answers for rows.")


@command(
    app,
    action="model.predict",
    examples=[
        "cumulant predict flights.csv --out answers.parquet",
        "cumulant predict rows.jsonl --model flight-late@champion --json",
        "cumulant predict rows.jsonl --url http://127.0.0.1:8080",
    ],
)
def predict(
    call: Invocation,
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows with the fields of the model's request schema.")],
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="NAME@ALIAS, NAME/VERSION or NAME; default: the newest.")
    ] = "",
    url: Annotated[str | None, typer.Option(metavar="URL", help="Ask this server instead of working here.")] = None,
    as_of: AsOf = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write answers: .csv, .parquet or .jsonl.")] = None,
    rows: Annotated[int, typer.Option(metavar="N", help="How many answers to show.", min=1)] = 10,
) -> None:
    """Answer every row of a file: one answer a row, in order.

    Offline, windows and lookups see the project's newest data; with --url the server's stored state.
    """
    from cumulant.cli.frames import check_out
    from cumulant.core.units import moment
    from cumulant.runtime.predict import predict as flow

    check_out(out)
    with call.project() as project, call.progress("predict") as progress:
        answers = flow(
            project,
            model or project.name,
            file,
            principal=project.principal(),
            url=url,
            as_of=None if as_of is None else moment(as_of),
            progress=progress,
        )
    if out is not None:
        from cumulant.cli.frames import write_frame

        write_frame(answers, out)

    def text(console: Console) -> None:
        from cumulant.cli.frames import show_frame

        console.print(f"{answers.height:,} answers" + (f", written to {out}" if out else ""))
        if out is None:
            show_frame(console, answers.head(rows))
            if answers.height > rows:
                console.print(f"{answers.height - rows:,} more: add --out FILE", style="dim")

    call.answer({"rows": answers.height} | ({"file": str(out)} if out else {"answers": answers.to_dicts()}), text)
