"""`cumulant subjects`: what a project holds of one person or customer, and its erasure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.subjects.places import SubjectPlace

app = application(
    "subjects",
    "What a project holds of one subject (a person, a customer), and its erasure.",
    examples=["cumulant subjects find c17", "cumulant subjects erase c17 --yes"],
)

Value = Annotated[
    str,
    typer.Argument(
        metavar="SUBJECT",
        help="The value of the column that `subject` names; - reads it from standard input, where no list of processes "
        "and no history of a shell shows it.",
        callback=lambda value: sys.stdin.readline().rstrip("\r\n") if value == "-" else value,
    ),
]
OfSource = Annotated[str, typer.Option("--source", metavar="NAME", help="Only this source; default: all with one.")]


@command(
    app,
    operations=("subjects.find",),
    action="subjects.find",
    examples=["cumulant subjects find c17", "cumulant subjects find - --json < subject.txt"],
)
def find(call: Invocation, subject: Value, source: OfSource = "") -> None:
    """Show the places that are known to hold rows of the subject, or its keyed hash."""
    with call.api() as api, call.progress("find subject") as progress:
        result = api.call("subjects.find", value=subject, source=source, progress=progress)

    def text(console: Console) -> None:
        _print_places(console, result.places)
        console.print(f"subject {result.subject} of {', '.join(result.sources)}: {len(result.places):,} places")

    call.answer(result, text)


@command(
    app,
    operations=("subjects.find", "subjects.erase"),
    action="subjects.erase",
    examples=["cumulant subjects erase c17", "cumulant subjects erase c17 --yes --json"],
)
def erase(
    call: Invocation,
    subject: Value,
    source: OfSource = "",
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Erase; without it nothing is changed.")] = False,
) -> None:
    """Erase what can be erased of the subject, and search again. Without --yes it shows the places only.

    Exit code 1 where something waits for another run. Source files are yours: delete the rows there too.
    """
    if not yes:
        find(call, subject, source)
        return
    with call.api() as api, call.progress("erase subject") as progress:
        done = api.call("subjects.erase", value=subject, source=source, progress=progress)

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import clean, table

        rows = [(item.store, item.status, f"{item.rows:,}", clean(item.reason)) for item in done.receipts]
        console.print(table(["store", "status", "rows", "what is remaining, and until when"], rows))
        _print_places(console, done.remaining)
        console.print(f"subject {done.subject}: {len(done.remaining):,} places are left")

    call.answer(done, text)
    if done.pending:
        raise typer.Exit(1)


@command(
    app,
    operations=("subjects.admit",),
    action="subjects.admit",
    examples=["cumulant subjects admit c17", "cumulant subjects admit c17 --source visits"],
)
def admit(call: Invocation, subject: Value, source: OfSource = "") -> None:
    """Read rows of an erased subject again: those of events after its erasure, such as of a customer who came back.

    Earlier rows stay out. `subjects erase` erases it again.
    """
    with call.api() as api, call.progress("admit subject") as progress:
        admitted = api.call("subjects.admit", value=subject, source=source, progress=progress)

    def text(console: Console) -> None:
        for name, since in admitted.since.items():
            console.print(f"subject {admitted.subject}: rows of {name} from {since:%Y-%m-%d %H:%M:%S} UTC on are read")

    call.answer(admitted, text)


def _print_places(console: Console, places: Sequence[SubjectPlace]) -> None:
    from cumulant.flows.reports.terminal import clean, table

    if places:
        shown = [(place.store, clean(place.where), f"{place.rows:,}" if place.rows else "–") for place in places]
        console.print(table(["store", "where", "rows"], shown))
