"""`cumulant predict`: answers for the rows of a file, offline or from a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.options import AsOf
from cumulant.cli.training.model_arguments import check_named, in_project
from cumulant.core.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from cumulant.flows.serving.batch.flow import BatchRequest, Summary
    from cumulant.flows.serving.server_client import RemoteServer

app = application("predict", "Answers for rows.")


@command(
    app,
    action="model.predict",
    examples=[
        "cumulant predict flights.csv --out answers.parquet",
        "cumulant predict --input big.parquet --output answers.parquet",
        "cumulant predict servables/digits --input 'rows/*.parquet' --output answers.parquet --keep id",
        "cumulant predict rows.csv --output answers.jsonl --reasons 3",
        "cumulant predict rows.jsonl --model flight-late@champion --json",
        "cumulant predict rows.jsonl --url http://127.0.0.1:8080",
    ],
)
def predict(
    call: Invocation,
    *,
    what: Annotated[
        str,
        typer.Argument(
            metavar="[FILE | MODEL | DIR]",
            show_default=False,
            help="Rows with the fields of the model's request schema; with --input, the model: as --model, or a "
            "servable's folder.",
        ),
    ] = "",
    input_: Annotated[
        str, typer.Option("--input", metavar="FILE", show_default=False, help="The rows: a file, folder or glob.")
    ] = "",
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="NAME@ALIAS, NAME/VERSION or NAME; default: the newest.")
    ] = "",
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Send the rows to this server, instead of scoring here.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Holds the token that the server wants; CUMULANT_TOKEN does the same."),
    ] = None,
    as_of: AsOf = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "--output", metavar="FILE", help="Write answers: .csv, .parquet or .jsonl."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Write this column of the rows beside the answers; may be repeated."),
    ] = None,
    part_rows: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Rows between two points to resume from; default: by speed.")
    ] = None,
    reasons: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Write the N features that made most of each answer beside it (serving: reasons)."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(metavar="N", help="How many answers to show.", min=1)] = 10,
) -> None:
    """Answer every row of a file: one answer a row, in order.

    Offline, windows and lookups see the project's newest data; with --url the server's stored state, and no project is
    needed. With --output,
    files of any size are answered in bounded memory on all cores, and a killed call is resumed.
    """
    from cumulant.cli.training.frame_output import check_out
    from cumulant.flows.serving.batch.flow import BatchRequest

    check_out(out)
    source, served = _rows_and_model(what, input_, model)
    if out is None and url is None and served and Path(served).is_dir():
        raise UsageError("a servable's folder answers into a file", subject=served, hint="add --output FILE")
    if out is None or url is not None:
        if keep or part_rows or reasons:
            problem = "--keep, --part-rows and --reasons are for files that are written here"
            raise UsageError(problem, hint="add --output FILE" if url is None else "leave out --url")
        server = None if url is None else _server(url, token_file)
        _in_memory(call, source, served, server=server, as_of=as_of, out=out, rows=rows)
        return
    request = BatchRequest(input=source, output=out, part_rows=part_rows)
    _to_file(call, request, served, as_of=as_of, keep=keep or [], reasons=reasons)


def _rows_and_model(what: str, source: str, model: str) -> tuple[str, str]:
    """The rows and the model that the words name."""
    if not source:
        if not what:
            raise UsageError("no rows are named", hint="cumulant predict FILE, or --input FILE")
        return what, model
    if what and model:
        raise UsageError(f'two models are named: "{what}" and "{model}"', hint="name one")
    return source, what or model


def _to_file(
    call: Invocation,
    request: BatchRequest,
    model: str,
    *,
    as_of: str | None,
    keep: list[str],
    reasons: int | None,
) -> None:
    from cumulant.core.units import moment
    from cumulant.flows.serving.batch.batch_model import load_folder, open_registered
    from cumulant.flows.serving.batch.flow import predict_file

    if model and Path(model).is_dir():
        if as_of is not None:
            raise UsageError("a servable's folder has no history", hint="leave out --as-of")
        with call.progress("predict") as progress:
            summary = predict_file(load_folder(Path(model), keep, reasons), request, progress=progress)
    else:
        check_named(call, model)
        with call.project() as project, call.progress("predict") as progress:
            opened = open_registered(
                project,
                model or project.name,
                principal=project.principal(),
                keep=keep,
                as_of=None if as_of is None else moment(as_of),
                progress=progress,
                reasons=reasons,
            )
            with opened as ready:
                summary = predict_file(ready, request, progress=progress)
    call.answer(summary, lambda console: _show(console, summary))


def _show(console: Console, summary: Summary) -> None:
    from cumulant.flows.reports.terminal import warn
    from cumulant.flows.reports.wording import duration

    console.print(f"{summary.rows:,} answers, written to {summary.file}")
    warn(console, summary.warnings)
    speed = (
        f"{summary.rows_per_second:,.0f} rows/s on {summary.threads} threads"
        if summary.rows > summary.reused_rows
        else ""
    )
    reused = f"{summary.reused_rows:,} rows were done before" if summary.reused_rows else ""
    details = ", ".join(part for part in (duration(summary.seconds), speed, reused) if part)
    console.print(details, style="dim")


def _server(url: str, token_file: Path | None) -> RemoteServer:
    from cumulant.flows.serving.server_client import RemoteServer
    from cumulant.serving.access_token import read_token

    return RemoteServer(url, read_token(token_file, os.environ, least=1))


def _answers(
    call: Invocation, source: str, model: str, *, server: RemoteServer | None, as_of: str | None, warnings: list[str]
) -> pl.DataFrame:
    """The answers; `warnings` gets what a person should know of rows that are answered here."""
    from cumulant.core.units import moment
    from cumulant.flows.serving.predict import predict as flow
    from cumulant.flows.serving.server_client import query_server

    if server is not None and not in_project(call):
        if as_of is not None:
            raise UsageError("a server answers from its own state", hint="leave out --as-of, or --url")
        with call.progress("predict") as progress:
            return query_server(server, model, Path(source), progress=progress)
    check_named(call, model)
    with call.project() as project, call.progress("predict") as progress:
        return flow(
            project,
            model or project.name,
            Path(source),
            principal=project.principal(),
            url=None if server is None else server.url,
            token=None if server is None else server.token,
            as_of=None if as_of is None else moment(as_of),
            warnings=warnings,
            progress=progress,
        )


def _in_memory(
    call: Invocation,
    source: str,
    model: str,
    *,
    server: RemoteServer | None,
    as_of: str | None,
    out: Path | None,
    rows: int,
) -> None:
    warnings: list[str] = []
    answers = _answers(call, source, model, server=server, as_of=as_of, warnings=warnings)
    if out is not None:
        from cumulant.cli.training.frame_output import write_frame

        write_frame(answers, out)

    def text(console: Console) -> None:
        from cumulant.cli.training.frame_output import show_frame
        from cumulant.flows.reports.terminal import warn

        console.print(f"{answers.height:,} answers" + (f", written to {out}" if out else ""))
        warn(console, warnings)
        if out is None:
            show_frame(console, answers.head(rows))
            if answers.height > rows:
                console.print(f"{answers.height - rows:,} more: add --out FILE", style="dim")

    shown = {"file": str(out)} if out else {"answers": answers.to_dicts()}
    call.answer({"rows": answers.height, **shown, "warnings": warnings}, text)
