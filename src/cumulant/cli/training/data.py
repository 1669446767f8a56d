"""`cumulant data`: sources, their snapshots, checks and quarantine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.output import print_rest
from cumulant.cli.training.data_storage import declare as declare_storage
from cumulant.cli.training.frame_output import check_out, frame_of, show_frame
from cumulant.core.errors import UsageError
from cumulant.core.units import show_duration
from cumulant.data.shift import notable_shifts
from cumulant.flows.reports.collect import shift_texts
from cumulant.flows.reports.wording import plural, size
from cumulant.flows.reports.wording import share as percent

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.data.snapshot import Snapshot
    from cumulant.project.project import Project
    from cumulant.server.client.caller import OperationCaller

app = application(
    "data",
    "Sources, their snapshots, checks and quarantine.",
    examples=["cumulant data validate", "cumulant data quarantine payments", "cumulant data infer payments.csv"],
)

#: fields of a snapshot in documents for machines
_DOCUMENTED = (
    *("source", "rows_in", "rows_passed", "rows_quarantined", "rows_dropped", "rows_current", "rows_superseded"),
    *(
        "rows_repeated",
        "rows_deletions",
        "bytes",
        "csv_bytes",
        "accepted",
        "checks",
        "batch_checks",
        "changes",
        "shifts",
    ),
)

Names = Annotated[list[str] | None, typer.Argument(metavar="[SOURCE]...", help="Names of sources; default: all.")]
Name = Annotated[
    str, typer.Argument(metavar="[SOURCE]", help="The name of a source; may be left out where there is only one.")
]


@command(
    app,
    operations=("data.validate",),
    action="data.validate",
    examples=["cumulant data validate", "cumulant data validate flights --json"],
)
def validate(
    call: Invocation,
    sources: Names = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare the content of each file, not its size and times.")
    ] = False,
) -> None:
    """Read what is new, check every rule, and store an immutable snapshot.

    Rows that break a rule go to quarantine; above the share that the source allows, of all rows or of the new ones,
    nothing is stored, and the exit code is 1.
    """
    with call.api() as api, call.progress("data") as progress:
        result = api.call("data.validate", sources=sources or [], force=force, progress=progress)

    def text(console: Console) -> None:
        for name, snapshot in result.snapshots.items():
            show_snapshot(console, snapshot, reused=name in result.reused)

    documents = {name: document(snapshot) for name, snapshot in result.snapshots.items()}
    call.answer({"run": result.run, "reused": result.reused, "sources": documents}, text)


@command(
    app,
    operations=("data.list", "data.show", "data.rows"),
    action="data.show",
    examples=["cumulant data show flights", "cumulant data show flights --rows 5 --json"],
)
def show(
    call: Invocation,
    source: Name = "",
    rows: Annotated[int, typer.Option(metavar="N", help="How many rows to show.", min=0)] = 5,
) -> None:
    """Show the newest snapshot of a source: columns, profile, checks and a few rows.

    Columns that the project file calls personal appear as keyed hashes.
    """
    with call.api() as api:
        name = source or only_source(api)
        snapshot = api.call("data.show", source=name)
        shown = api.call("data.rows", source=name, limit=rows) if rows else None

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import table

        show_snapshot(console, snapshot)
        known = {name: _known(moment.column, moment.delay_us) for name, moment in snapshot.known.items()}
        personal = any(field.personal for field in snapshot.fields)  # else the column would hold dashes
        columns = [
            (
                field.name,
                field.dtype,
                "yes" if field.nullable else "no",
                known.get(field.name, "with the row"),
                *(["yes" if field.personal else ""] if personal else []),
            )
            for field in snapshot.fields
        ]
        heads = ["column", "type", "nulls", "known", *(["personal"] if personal else [])]
        console.print(table(heads, columns))
        if shown is not None:
            show_frame(console, frame_of(shown))

    call.answer(
        document(snapshot)
        | {
            "fields": snapshot.fields,
            "known": snapshot.known,
            "profile": snapshot.profile,
            "rows": [] if shown is None else shown.rows,
        },
        text,
    )


@command(
    app,
    operations=("data.list", "data.quarantine"),
    action="data.quarantine",
    examples=[
        "cumulant data quarantine payments",
        "cumulant data quarantine payments --file 2026-03-12.csv",
        "cumulant data quarantine payments --out refused.csv",
    ],
)
def quarantine(
    call: Invocation,
    source: Name = "",
    file: Annotated[str, typer.Option(metavar="FILE", help="Rows of one file only: its path, or the end of it.")] = "",
    rows: Annotated[int, typer.Option(metavar="N", help="How many rows to show.", min=1)] = 20,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them all: .csv, .parquet or .jsonl.")] = None,
) -> None:
    """Show refused rows and the rule that refused each.

    Looks at the last refused snapshot, where there is one, else at the newest accepted one.
    """
    check_out(out)
    with call.api() as api:
        source = source or only_source(api)
        refused = api.call("data.quarantine", source=source, file=file, limit=rows)
    count, rows_in = refused.total, refused.rows_in
    if out is not None:
        _write_quarantine(call, source, file, out)

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import clean

        place = f"from {clean(file)}" if file else f"of {rows_in:,}"
        if not count:
            none = f"no row of {clean(file)}" if file else f"none of {rows_in:,} rows of {source}"
            console.print(f"nothing in quarantine: {none} was refused", soft_wrap=True)
        else:
            rules = ", ".join(f"{clean(rule)} {refused_by:,}" for rule, refused_by in refused.rules.items())
            console.print(f"quarantine of {source}: {plural(count, 'row')} {place}, by rule: {rules}", soft_wrap=True)
        if out is not None:
            console.print(f"written to {out}")
        elif count:
            show_frame(console, frame_of(refused))
            print_rest(console, len(refused.rows), count, option="--rows N or --out FILE")

    figures = {"source": source, "rows_in": rows_in, "rows_quarantined": count, "rules": refused.rules}
    call.answer(figures | ({"file": str(out)} if out else {"rows": refused.rows}), text)


def _write_quarantine(call: Invocation, source: str, file: str, out: Path) -> None:
    """Write all refused rows, which are more than a response holds."""
    from cumulant.cli.training.frame_output import write_frame
    from cumulant.data.views import read_quarantine
    from cumulant.server.operations.data import files_named

    with call.project() as project:
        snapshot = stored_snapshot(project, source, refused=True)
        files = files_named(file, snapshot) if file else None
        write_frame(read_quarantine(snapshot, project.tables(), project.salt(), files=files), out)


@command(
    app,
    action=None,
    examples=["cumulant data infer payments.csv", "cumulant data infer payments.csv --out payments.odcs.yaml"],
)
def infer(
    call: Invocation,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file, folder or glob.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an Open Data Contract Standard file.")] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="The source's name.")] = "source",
    sheet: Annotated[
        str | None, typer.Option(metavar="NAME", help="The sheet of an Excel workbook that has several.")
    ] = None,
) -> None:
    """Propose keys, times and rules for a file, with reasons."""
    from cumulant.flows.data.tables import propose

    with call.progress("infer") as progress:
        proposal = propose(file, name=name, out=out, sheet=sheet, progress=progress)

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import clean

        console.print("data:", soft_wrap=True)
        console.print(clean(yaml_lines({proposal.name: proposal.source}, indent=2)), soft_wrap=True)
        for note in proposal.notes:
            style = "bold yellow" if note.startswith("warning: ") else "dim"
            console.print(f"# {clean(note)}", style=style, soft_wrap=True)
        if out is not None:
            console.print(f"contract written to {out}")

    call.answer(proposal, text)


@command(
    app,
    operations=("maintenance.clean",),
    action="project.clean",
    examples=["cumulant data clean", "cumulant data clean --yes"],
)
def clean(
    call: Invocation,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it nothing is removed.")] = False,
) -> None:
    """Show what no kept snapshot, model, running server or recent run needs; remove it with --yes."""
    with call.api() as api, call.progress("clean") as progress:
        items = api.call("maintenance.clean", dry_run=not yes, progress=progress)

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import table

        console.print(table(["what", "kind", "size"], [(item.key, item.kind, size(item.bytes)) for item in items]))
        total = size(sum(item.bytes for item in items))
        summary = f"removed {len(items):,}, {total}" if yes else f"{len(items):,} could be removed, {total}: add --yes"
        console.print(summary if items else "nothing to remove")

    call.answer({"removed": yes, "items": items}, text)


declare_storage(app)


def only_source(api: OperationCaller) -> str:
    """The project's one source. Raises UsageError where there are several, or none."""
    names = [each.name for each in api.call("data.list")]
    if len(names) != 1:
        known = ", ".join(names) or "none"
        raise UsageError("which source is not said", hint=f"name one of the project's sources: {known}")
    return str(names[0])


def stored_snapshot(project: Project, source: str, *, refused: bool = False) -> Snapshot:
    """The newest accepted snapshot; with `refused` one that was refused since comes first. Raises NotFoundError."""
    from cumulant.flows.data.validate import required_snapshot

    return required_snapshot(project, source, hint=project.line(f"data validate {source}"), refused=refused)


def document(snapshot: Snapshot) -> dict[str, object]:
    """A snapshot's figures for machines, without its parts."""
    from cumulant.data.checks.verdict import warnings_of

    return {
        "snapshot": snapshot.id,
        **{name: getattr(snapshot, name) for name in _DOCUMENTED},
        "unreadable": [
            {"url": file.url, "reason": file.reason, "sha256": file.sha256, "bytes": file.bytes}
            for file in snapshot.unreadable
        ],
        "warnings": warnings_of(snapshot),
        "files": [
            {"url": file.url, "sha256": file.sha256, "rows": file.rows, "bytes": file.bytes} for file in snapshot.files
        ],
    }


def show_snapshot(console: Console, snapshot: Snapshot, *, reused: bool = False) -> None:
    """Rows in and where they went, what the rules refused, how large it is."""
    from cumulant.data.checks.verdict import describe_change, warnings_of
    from cumulant.flows.reports.terminal import clean, heading, pairs, table, warn

    heading(console, snapshot.source, f"snapshot {snapshot.id[:12]}" + (", nothing new" if reused else ""))
    pairs(
        console,
        [
            ("rows in", rows_line(snapshot)),
            *([] if snapshot.versions is None else [("in force", versions_line(snapshot))]),
            ("files", _files_line(snapshot, new=0 if reused else len(snapshot.processed))),
            ("stored", _stored(snapshot.bytes, snapshot.csv_bytes)),
        ],
    )
    # A rule on the whole that only warns is among the warnings below.
    failed = [
        check
        for check in snapshot.checks
        if (check.failed if check.kind == "row" else not check.passed and check.severity == "fail")
    ]
    if failed:
        rows = [(check.column or "–", check.text, check.failed, percent(check.share)) for check in failed]
        console.print(table(["column", "rule", "refused", "share"], rows))
    elif all(check.passed for check in snapshot.checks) and snapshot.checks and not snapshot.batch_checks:
        count = len(snapshot.checks)
        console.print("the one rule holds" if count == 1 else f"all {count:,} rules hold", style="dim")
    for change in snapshot.changes:
        if change.kind in ("added", "widened"):
            console.print(clean(describe_change(change)), soft_wrap=True)
    for text in shift_texts(snapshot):
        console.print(clean(text), style="" if notable_shifts(snapshot.shifts) else "dim", soft_wrap=True)
    warn(console, warnings_of(snapshot))
    console.print("")


def _files_line(snapshot: Snapshot, *, new: int) -> str:
    unreadable = f"; {len(snapshot.unreadable):,} cannot be read" if snapshot.unreadable else ""
    return f"{len(snapshot.files):,}, {new:,} of them new or changed{unreadable}"


def rows_line(snapshot: Snapshot) -> str:
    """Where every row went, on one line."""
    parts = [f"{snapshot.rows_in:,}  =  {snapshot.rows_passed:,} passed + {snapshot.rows_quarantined:,} quarantined"]
    return parts[0] + (f" + {snapshot.rows_dropped:,} dropped by prepare" if snapshot.rows_dropped else "")


def versions_line(snapshot: Snapshot) -> str:
    """How many of the passed rows count now, and what the others are."""
    others = {
        "corrected or deleted": snapshot.rows_superseded,
        "repeated unchanged": snapshot.rows_repeated,
        "deletions": snapshot.rows_deletions,
    }
    rest = "".join(f" - {rows:,} {name}" for name, rows in others.items() if rows)
    return f"{snapshot.rows_current:,}  =  {snapshot.rows_passed:,} passed{rest}"


def _stored(stored: int, csv: int) -> str:
    return f"{size(stored)} (as CSV: {size(csv)}, {csv / stored:.1f} times as much)" if stored else size(stored)


def _known(column: str | None, delay: int) -> str:
    from datetime import timedelta

    later = show_duration(timedelta(microseconds=delay)) if delay else ""
    if column:
        return f"at {column}" + (f" + {later}" if later else "")
    return f"{later} after the event" if later else "with the row"


def yaml_lines(value: dict[str, Any], *, indent: int = 0) -> str:
    """A source section as a person would write it: blocks, and one line for the rules of a column."""
    lines = []
    for key, inner in value.items():
        if isinstance(inner, dict) and any(isinstance(part, dict) for part in inner.values()):
            lines += [f"{' ' * indent}{_flow(key)}:", yaml_lines(inner, indent=indent + 2)]
        else:
            lines.append(f"{' ' * indent}{_flow(key)}: {_flow(inner)}")
    return "\n".join(lines)


def _flow(value: object) -> str:
    from cumulant.project.new.create import yaml_text

    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return yaml_text(value) if "," not in value else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
