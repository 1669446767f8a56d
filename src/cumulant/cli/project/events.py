"""`cumulant events`: the project's chain of events."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.project.events_checkpoint import declare as declare_checkpoint
from cumulant.cli.project.events_export import KIND_HELP
from cumulant.cli.project.events_export import declare as declare_export
from cumulant.core.errors import IntegrityError, UsageError, did_you_mean
from cumulant.core.events import Fact
from cumulant.core.units import duration
from cumulant.flows.ledger.run_events import UNSEEN
from cumulant.flows.ledger.run_events import verify as verify_journal
from cumulant.flows.reports.terminal import cell, clean, table
from cumulant.flows.reports.wording import instant as moment

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.core.events import Event
    from cumulant.flows.governance.checkpoints import VerifiedCheckpoints
    from cumulant.flows.ledger.run_events import Verified
    from cumulant.ports.journal import ChainHead

app = application(
    "events",
    "The project's events: one chain of what happened, by whom and why.",
    examples=["cumulant events list --last 20", "cumulant events follow", "cumulant events verify"],
)

declare_export(app)
declare_checkpoint(app)

_HASH = re.compile(r"[0-9a-f]{64}")
_HEAD = re.compile(r"[0-9a-f]{12,64}")

Kind = Annotated[list[str] | None, typer.Option("--kind", metavar="KIND", help=KIND_HELP)]
OfRun = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only the events of one run.")]


#: most events of one page
_PAGE = 1_000


@command(
    app,
    operations=("events.list",),
    action="events.show",
    name="list",
    examples=["cumulant events list", "cumulant events list --kind model.registered --json"],
)
def list_(
    call: Invocation,
    kind: Kind = None,
    run: OfRun = None,
    last: Annotated[int, typer.Option("--last", metavar="N", help="How many of the newest; 0 for all.", min=0)] = 50,
) -> None:
    """Show events, oldest first."""
    with call.api() as api:
        newest = api.pages(
            "events.list", kind=tuple(kind or ()), run=run or "", limit=min(last + 1 if last else _PAGE, _PAGE)
        )
        listed = list(islice(newest, last + 1 if last else None))
        seen = set() if listed or not kind else {event.kind for event in api.call("events.list", limit=_PAGE).items}
    more = bool(last) and len(listed) > last
    shown = (listed[:last] if last else listed)[::-1]

    def text(console: Console) -> None:
        rows = [
            (
                event.seq,
                event.time,
                event.actor,
                event.kind,
                summary(event.data | ({"reason": event.reason} if event.reason else {})),
            )
            for event in shown
        ]
        console.print(table(["seq", "time", "who", "what", ""], rows))
        if more:
            console.print(f"the newest {last:,}; --last N for more", style="dim")

    call.answer(shown, text)
    if not shown and kind and (hint := _nearest_kind(kind, seen)):
        call.note(f"no such event; {hint}")


@command(
    app,
    operations=("events.list",),
    action="events.show",
    examples=["cumulant events follow", "cumulant events follow --kind step.finished --json"],
)
def follow(
    call: Invocation,
    kind: Kind = None,
    run: OfRun = None,
    after: Annotated[int | None, typer.Option(metavar="SEQ", help="Begin after this event; default: now.")] = None,
    span: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", help="End after this long: 30s, 2h; default: until interrupted."),
    ] = None,
) -> None:
    """Show events as they happen. With --json: one document a line, for as long as it follows.

    With --server a lost connection is opened again, and continues after the last event.
    """
    console = call.output.console()
    seconds = None if span is None else _seconds(span)
    call.output.interrupted = "events go on: `" + call.line("events list") + "` shows those that were missed"
    with call.api() as api:
        for event in api.events(after=after, kinds=tuple(kind or ()), seconds=seconds):
            if run and event.run != run:
                continue
            if call.json:
                call.output.document(event, compact=True)
            else:
                _print(console, event)


def _nearest_kind(given: Iterable[str], seen: set[str]) -> str | None:
    """The name that is close to a kind which no event has. `seen`: kinds of the newest events."""
    known = seen | {name for each in Fact.__subclasses__() for name in _kinds(each)}
    return next(filter(None, (did_you_mean(kind, known) for kind in given if kind not in known)), None)


def _kinds(fact: type[Fact]) -> set[str]:
    return ({getattr(fact, "kind", "")} - {""}).union(*(_kinds(each) for each in fact.__subclasses__()))


def _seconds(text: str) -> float:
    """A duration; a number alone is of seconds. Raises UsageError."""
    return duration(f"{text}s" if re.fullmatch(r"\d+(\.\d+)?", text) else text).total_seconds()


@command(
    app,
    action="events.verify",
    examples=[
        "cumulant events verify",
        "cumulant events verify --head 76b3b2c69667",
        "cumulant events verify --checkpoints s3://acme-audit/shop --public-key audit.pub.pem",
    ],
)
def verify(
    call: Invocation,
    known: Annotated[
        str, typer.Option("--head", metavar="HASH", help="The end of the chain as an earlier verify showed it.")
    ] = "",
    checkpoints: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where signed checkpoints are. Default: `audit` of the environment."),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The key that they are signed with. Default: that of this machine."),
    ] = None,
) -> None:
    """Show whether an event or a state row was altered, removed or inserted; exit code 1 where one was.

    The chain is compared with its counter, with the head in a file beside the database, and with --head, a head that
    you stored elsewhere. State rows (runs, releases, review cases) are compared with the hashes that events carry.
    With signed checkpoints, a chain that was shortened or made anew does not hold either.
    """
    if known and not _HEAD.fullmatch(known):
        raise UsageError(
            f'"{known}" is no hash', subject="--head", hint="give 12 to 64 of its digits, as verify prints"
        )
    with call.project() as project:
        head = project.journal().head()
        verified = verify_journal(project.journal(), known=known)
        breaks, unseen, checked = verified.breaks, list(UNSEEN), None
        if checkpoints is not None or project.endpoints.audit is not None:
            from cumulant.flows.governance.checkpoints import SINCE, verify_checkpoints

            checked = verify_checkpoints(
                project, principal=project.principal(), place=checkpoints, public_key=public_key
            )
            breaks = breaks + checked.breaks
            unseen[-1] = SINCE if checked.count else unseen[-1]
    if breaks and not call.json:
        first = breaks[0]
        place = first.row or f"event {first.seq}"
        what = "a state row was changed outside Cumulant" if first.row else "the chain of events does not hold"
        raise IntegrityError(
            f"{what}: {place} {first.problem}" + (f", and {len(breaks) - 1} more" if len(breaks) > 1 else ""),
            subject=place,
            hint="compare with an export or a backup; `cumulant events verify --json` lists every break",
        )
    call.answer(
        {
            "events": head.seq,
            "head": head.hash,
            "holds": not breaks,
            "breaks": breaks,
            "rows": verified.rows,
            "rows_since": verified.since,
            "rows_waiting": verified.waiting,
            "checkpoints": checked,
            "unseen": unseen,
        },
        lambda console: _verified(console, head, verified, unseen, checked),
    )
    if breaks:
        raise typer.Exit(1)


def _verified(
    console: Console,
    head: ChainHead,
    verified: Verified,
    unseen: Iterable[str],
    checked: VerifiedCheckpoints | None,
) -> None:
    console.print(f"{head.seq:,} events, the chain holds; its end is {head.hash[:12]}")
    if verified.since is None:
        console.print("state rows: no event carries their hashes yet; the next one will", soft_wrap=True)
    else:
        console.print(f"{verified.rows:,} state rows are as written (covered since event {verified.since:,})")
    if verified.waiting:
        console.print(
            f"{verified.waiting:,} of them wait for the next event, which will carry their hashes", soft_wrap=True
        )
    if checked is not None and checked.count:
        console.print(
            f"checkpoint {checked.newest} holds: it signed the events up to {checked.size:,} "
            f"({checked.count:,} checkpoints at {checked.place})",
            soft_wrap=True,
        )
    elif checked is not None:
        console.print(f"no checkpoint is signed yet at {checked.place}", soft_wrap=True)
    for reason in unseen:
        console.print(f"not covered: {reason}", style="dim", soft_wrap=True)


def summary(data: dict[str, object], *, limit: int = 90) -> str:
    """An event's figures on one line: short values only, and hashes by their beginning."""
    parts = [
        f"{clean(key)} {value[:12] if isinstance(value, str) and _HASH.fullmatch(value) else cell(value)}"
        for key, value in data.items()
        if isinstance(value, str | int | float | bool) and value != ""
    ]
    text = ", ".join(part for part in parts if len(part) <= limit)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _print(console: Console, event: Event) -> None:
    from rich.text import Text

    head: Iterable[tuple[str, str] | str] = (
        (f"{event.seq:>6} ", "dim"),
        moment(event.time),
        "  ",
        (clean(event.kind), "bold"),
        "  ",
        summary(event.data),
        ("  " + clean(event.actor), "dim"),
        (f": {clean(event.reason)}" if event.reason else "", "dim"),
    )
    console.print(Text.assemble(*head), soft_wrap=True)
