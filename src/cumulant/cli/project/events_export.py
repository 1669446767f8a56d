"""`cumulant events export`: the events in a file, as they are or for a collector of security events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cumulant.project.project import Project

Format = Literal["json", "ocsf"]


def declare(app: typer.Typer) -> None:
    command(
        app,
        action="events.export",
        name="export",
        examples=[
            "cumulant events export events.jsonl",
            "cumulant events export --run 20261124T101500-3fa2c1 -",
            "cumulant events export --format ocsf --kind access.refused refused.jsonl",
        ],
    )(_export)


def _export(
    call: Invocation,
    *,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="A file of JSON lines; - for standard output.")],
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="Only this kind; may be repeated.")
    ] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only the events of one run.")] = None,
    after: Annotated[int, typer.Option(metavar="SEQ", min=0, help="Only events after this one.")] = 0,
    format_: Annotated[
        Format,
        typer.Option(
            "--format", help="json: events with their hashes, for verification. ocsf: OCSF 1.4 in CloudEvents 1.0."
        ),
    ] = "json",
) -> None:
    """Write events as JSON lines: with their hashes, so that others can verify them, or as OCSF.

    A chain that does not hold is exported too, with a warning.
    """
    from cumulant.flows.ledger.run_events import first_break

    with call.project() as project:
        lines = _lines(project, format_, kinds=kind or (), run=run, after=after)
        broken = first_break(project.journal(), after=after)
    if broken is not None:
        call.note(f"the chain of events does not hold: event {broken.seq} {broken.problem}")
    if str(out) == "-" and not call.json:
        call.output.console().file.write("".join(line.decode() + "\n" for line in lines))
        return
    try:
        out.write_bytes(b"".join(line + b"\n" for line in lines))
    except OSError as error:
        raise StorageError(f"the export could not be written: {error.strerror}", subject=str(out)) from None
    what = "events" if format_ == "json" else "records"
    call.answer({"file": str(out), what: len(lines)}, lambda console: console.print(f"{len(lines):,} {what} in {out}"))


def _lines(project: Project, format_: Format, *, kinds: Sequence[str], run: str | None, after: int) -> list[bytes]:
    journal = project.journal()
    events = journal.events(kinds=kinds, run=run, after=after)
    if format_ == "ocsf":
        from cumulant.flows.governance.ocsf import encode
        from cumulant.flows.governance.row_changes import events_with_changes

        return list(encode(events_with_changes(journal, events)))
    import msgspec

    return [msgspec.json.encode(event) for event in events]
