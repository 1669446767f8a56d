"""`cumulant ingest`: ingest messages of streams, and show how far that is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import UsageError
from cumulant.core.system.end_signals import setting
from cumulant.core.units import duration
from cumulant.core.units import size as byte_size

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.data.stream_reader import IngestedSource
    from cumulant.flows.data.stream_views import StreamStatus
    from cumulant.flows.features.stream_follower import AppliedSource

app = application(
    "ingest",
    "Ingest messages of streams; how far that is.",
    examples=["cumulant ingest run --once", "cumulant ingest status", "cumulant ingest refused payments"],
)
#: the least and the most bytes of a batch: it is held in memory several times over
_LEAST_BATCH, _MOST_BATCH = 1 << 10, 1 << 30

Sources = Annotated[
    list[str] | None,
    typer.Option("--source", metavar="NAME", help="A source with a stream; may be repeated. Default: all of them."),
]
OneSource = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A source with a stream; default: the one that has a stream.")
]


@command(
    app,
    action="data.ingest",
    examples=[
        "cumulant ingest run",
        "cumulant ingest run --once --source payments --json",
        "cumulant ingest run --every 60s --batch-size 64MiB",
    ],
)
def run(
    call: Invocation,
    source: Sources = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="End when what is there now is ingested.")] = False,
    every: Annotated[
        str, typer.Option(metavar="SPAN", help="How long a batch waits for more messages: 10s, 1m.")
    ] = "10s",
    batch_size: Annotated[
        str, typer.Option(metavar="SIZE", help="The bytes of messages at which a batch is stored, such as 32MiB.")
    ] = "32MiB",
    accept_refused: Annotated[
        bool, typer.Option("--accept-refused", help="Go on where no message of a large batch passes.")
    ] = False,
    online: Annotated[
        bool, typer.Option("--online/--no-online", help="Put the rows into the online features of served models too.")
    ] = True,
) -> None:
    """Ingest messages: each becomes a row of its source, or is kept as refused with the rule that it breaks.

    Rows and positions are committed together, so that a killed command, run again, neither loses nor repeats one.
    Several of them, on any machines that share the journal, divide the partitions of a source among them.
    `cumulant data validate` makes a snapshot of the rows; `cumulant ingest apply` says how rows come into the online
    features, which this command does too. Ctrl-C and SIGTERM commit what was read, and end the command.
    Exit code 1 with --once where a source has more refused messages than its `quarantine` allows.
    """
    from cumulant.flows.data.stream_ingestion import ingest_streams
    from cumulant.flows.data.stream_reader import IngestLimits
    from cumulant.flows.features.stream_features import apply_in_background, apply_ingested

    seconds, most = duration(every).total_seconds(), byte_size(batch_size)
    if seconds <= 0:
        raise UsageError(f"a batch has no time to wait: {every}", subject="--every", hint="give 10s or 1m")
    if not _LEAST_BATCH <= most <= _MOST_BATCH:
        raise UsageError(f"no batch has {batch_size}", subject="--batch-size", hint="give a size from 1KiB to 1GiB")
    with _ending() as stop, call.project() as project, call.progress("ingest") as progress:
        principal, names = project.principal(), source or ()
        applied: list[AppliedSource] = []
        applying = apply_in_background(project, principal=principal, sources=names, progress=progress)
        with applying if online and not once else nullcontext(applied) as applied:
            results = ingest_streams(
                project,
                principal=principal,
                sources=names,
                once=once,
                stop=stop,
                limits=IngestLimits(bytes=most, seconds=seconds, accept_refused=accept_refused),
                progress=progress,
            )
        if online and once:
            applied = apply_ingested(project, principal=principal, sources=names, once=True, progress=progress)

    def text(console: Console) -> None:
        _print_run(console, results, call)
        if applied:
            console.print("")
            _print_applied(console, applied)

    call.answer({"sources": results, "online": applied}, text)
    if once and any(result.too_many_refused for result in results):
        raise typer.Exit(1)


@command(
    app,
    action="data.ingest",
    examples=["cumulant ingest apply", "cumulant ingest apply --once --source payments --json"],
)
def apply(
    call: Invocation,
    source: Sources = None,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End when what is ingested now is in the online features.")
    ] = False,
) -> None:
    """Put ingested rows into the online features of the models that read them, as `ingest run` does beside ingesting.

    For another machine than the one that ingests. A killed command, run again, goes on where each table stands; a table
    that the store lost is filled again. Of several commands, one follows each source.
    """
    from cumulant.flows.features.stream_features import apply_ingested

    with _ending() as stop, call.project() as project, call.progress("online features") as progress:
        results = apply_ingested(
            project, principal=project.principal(), sources=source or (), once=once, stop=stop, progress=progress
        )

    def text(console: Console) -> None:
        if results:
            _print_applied(console, results)
        else:
            console.print("no model with online features reads rows of these streams")

    call.answer({"online": results}, text)


@command(
    app, action="data.show", examples=["cumulant ingest status", "cumulant ingest status --source payments --json"]
)
def status(call: Invocation, source: Sources = None) -> None:
    """Show how far each stream was ingested: rows, refused messages, how many wait, how far event time has come, and
    which process reads what; and how far the online features of models that read it are behind.

    Exit code 1 where a topic cannot be read, or is not the one that was read before.
    """
    from cumulant.flows.data.stream_views import stream_status

    with call.project() as project:
        streams = stream_status(project, principal=project.principal(), sources=source or ())
    call.answer({"sources": streams}, lambda console: _print_status(console, streams))
    if any(stream.error is not None for stream in streams):
        raise typer.Exit(1)


@command(
    app,
    action="data.quarantine",
    examples=["cumulant ingest refused", "cumulant ingest refused payments --out refused.jsonl"],
)
def refused(
    call: Invocation,
    source: OneSource = "",
    rows: Annotated[int, typer.Option(metavar="N", help="How many messages to show.", min=1)] = 20,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them all: .csv, .parquet or .jsonl.")] = None,
) -> None:
    """Show refused messages, newest batch first: the rule, the place in the topic, and the message as it came.

    Of a source with personal columns the messages themselves are not shown.
    """
    from cumulant.cli.training.frame_output import check_out, write_frame
    from cumulant.flows.data.stream_records import only_streamed_source
    from cumulant.flows.data.stream_views import refused_messages

    check_out(out)
    with call.project(personal=True) as project:
        source = source or only_streamed_source(project)
        shown = refused_messages(
            project, source, principal=project.principal(), limit=None if out is not None else rows
        )
    if out is not None:
        write_frame(shown.frame, out)

    def text(console: Console) -> None:
        from cumulant.cli.output import print_rest
        from cumulant.cli.training.frame_output import show_frame

        console.print(f"refused messages of {source}: {shown.total:,}", soft_wrap=True)
        if out is not None:
            console.print(f"written to {out}", soft_wrap=True)
        elif shown.total:
            show_frame(console, shown.frame)
            print_rest(console, shown.frame.height, shown.total, option="--rows N or --out FILE")

    document = {"source": source, "refused": shown.total, "rules": shown.rules}
    call.answer(document | ({"file": str(out)} if out else {"messages": shown.frame.to_dicts()}), text)


@command(
    app,
    action="data.show",
    examples=["cumulant ingest late", "cumulant ingest late payments --out late.csv"],
)
def late(
    call: Invocation,
    source: OneSource = "",
    rows: Annotated[int, typer.Option(metavar="N", help="How many rows to show.", min=1)] = 20,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them all: .csv, .parquet or .jsonl.")] = None,
) -> None:
    """Show rows that came later than `lateness` allows, newest batch first; personal columns as keyed hashes.

    They are in the table, and enter the online features when these are filled again.
    """
    from cumulant.cli.training.frame_output import check_out, write_frame
    from cumulant.flows.data.stream_records import only_streamed_source
    from cumulant.flows.data.stream_views import late_rows

    check_out(out)
    with call.project(personal=True) as project:
        source = source or only_streamed_source(project)
        frame = late_rows(project, source, principal=project.principal(), limit=None if out is not None else rows)
    if out is not None:
        write_frame(frame, out)

    def text(console: Console) -> None:
        from cumulant.cli.training.frame_output import show_frame

        if out is not None:
            console.print(f"{frame.height:,} late rows of {source}, written to {out}", soft_wrap=True)
        elif frame.height:
            show_frame(console, frame)
        else:
            console.print(f"no row of {source} came too late")

    document: dict[str, object] = {"source": source}
    call.answer(document | ({"file": str(out)} if out else {"rows": frame.to_dicts()}), text)


@contextmanager
def _ending() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set while the block runs; a second Ctrl-C interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    mark = setting(stop)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def end(number: int, _: object) -> None:
        mark()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, end)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_run(console: Console, results: Sequence[IngestedSource], call: Invocation) -> None:
    from cumulant.flows.reports.terminal import clean, table

    rows = [
        (
            result.source,
            result.topic,
            f"{result.messages:,}",
            f"{result.rows:,}",
            f"{result.refused:,}",
            _lag(result.lag),
        )
        for result in results
    ]
    heads = ["source", "topic", "messages", "rows", "refused", "waiting"]
    console.print(table(heads, rows, right=heads[2:]))
    for result in results:
        if result.refused:
            rules = ", ".join(f"{rule} ({count:,})" for rule, count in [*result.rules.items()][:5])
            more = f" and {len(result.rules) - 5} more rules" if len(result.rules) > 5 else ""
            share = "; more than `quarantine` allows" if result.too_many_refused else ""
            console.print(clean(f"{result.source}: refused by {rules}{more}{share}"), markup=False, soft_wrap=True)
            line = call.line(f"ingest refused {result.source}")
            console.print(f"next: {line}", style="dim", markup=False, soft_wrap=True)


def _print_applied(console: Console, results: Sequence[AppliedSource]) -> None:
    from cumulant.flows.reports.terminal import clean, table

    rows = [
        (
            result.source,
            result.table,
            str(result.batch),
            *(f"{count:,}" for count in (result.rows, result.accepted, result.duplicates, result.late, result.future)),
        )
        for result in results
    ]
    heads = ["source", "online table", "batch", "rows", "accepted", "duplicates", "late", "future"]
    console.print(table(heads, rows, right=heads[2:]))
    for result in results:
        if result.error is not None:
            console.print(clean(f"{result.source}: {result.error}"), markup=False, soft_wrap=True)


def _print_status(console: Console, streams: Sequence[StreamStatus]) -> None:
    from cumulant.flows.reports.terminal import clean, table

    heads = ["source", "topic", "messages", "rows", "refused", "batches", "newest", "waiting"]
    rows = [
        (
            stream.source,
            stream.topic,
            f"{stream.messages:,}",
            f"{stream.rows:,}",
            f"{stream.refused:,}",
            f"{stream.batches:,}",
            "–" if stream.at is None else stream.at.strftime("%Y-%m-%d %H:%M:%S"),
            _lag(stream.lag),
        )
        for stream in streams
    ]
    console.print(table(heads, rows, right=["messages", "rows", "refused", "batches", "waiting"]))
    partitions = [
        (stream.source, part.partition, _position(part.position), _position(part.end), f"{part.lag:,}")
        for stream in streams
        for part in stream.partitions
    ]
    if partitions:
        console.print("")
        heads = ["source", "partition", "next position", "end", "waiting"]
        console.print(table(heads, partitions, right=heads[1:]))
    _print_event_times(console, streams)
    consumers = [
        (stream.source, consumer.process, ", ".join(map(str, consumer.partitions)) or "none: others read them all")
        for stream in streams
        for consumer in stream.consumers
    ]
    if consumers:
        console.print("")
        console.print(table(["source", "consumer", "partitions"], consumers))
    for stream in streams:
        if stream.error is not None:
            console.print(clean(f"{stream.source}: {stream.error}"), markup=False, soft_wrap=True)


def _print_event_times(console: Console, streams: Sequence[StreamStatus]) -> None:
    from cumulant.flows.reports.terminal import clean, table
    from cumulant.flows.reports.wording import instant

    rows = [
        (
            stream.source,
            "–" if stream.watermark is None else instant(stream.watermark),
            f"{stream.late:,}",
            online.table,
            _lag(online.batch),
            _lag(online.behind),
            "–" if online.lag_seconds is None else f"{online.lag_seconds:,.1f}",
        )
        for stream in streams
        for online in stream.online
    ]
    if rows:
        heads = ["source", "watermark", "late rows", "online table", "batch", "behind", "lag seconds"]
        console.print("")
        console.print(table(heads, rows, right=["late rows", *heads[4:]]))
    for stream in streams:
        for online in stream.online:
            if online.error is not None:
                text = f"{stream.source}: online features {online.table}: {online.error}"
                console.print(clean(text), markup=False, soft_wrap=True)


def _position(number: int) -> str:
    """A position for readers; one of many digits, as those of Kinesis, says nothing to them."""
    return f"{number:,}" if number < 1 << 63 else "–"


def _lag(lag: int | None) -> str:
    return "–" if lag is None else f"{lag:,}"
