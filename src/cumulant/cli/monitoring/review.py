"""`cumulant review`: the predictions for review, and the reviewers' answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.monitoring.review_page import cases, figures, label_names, outcome, page
from cumulant.cli.output import print_rest
from cumulant.core.errors import UsageError
from cumulant.core.units import moment

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.review.service import AnsweredCase
    from cumulant.review.cases import FillResult
    from cumulant.server.client.caller import OperationCaller

app = application(
    "review",
    "Send the predictions that matter to reviewers, and learn from their answers.",
    examples=[
        "cumulant review fill",
        "cumulant review next",
        "cumulant review decide 3f9a yes",
        "cumulant review report",
    ],
)

Case = Annotated[str, typer.Argument(metavar="CASE", help="The case's id, or enough of its beginning.")]
Note = Annotated[str, typer.Option(metavar="TEXT", help="A note beside the case.")]
Status = Literal["waiting", "done", "expired", "all"]


@command(
    app,
    operations=("review.fill",),
    action="review.fill",
    examples=["cumulant review fill", "cumulant review fill --now --json"],
)
def fill(
    call: Invocation,
    now: Annotated[
        bool, typer.Option("--now", help="Take what is left of the period's budget, from all predictions up to now.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Where the first draw begins: 2026-11-24. Default: a period ago.")
    ] = None,
) -> None:
    """Choose cases from the predictions since the last time, within the budget; each prediction at most once."""
    begin = None if since is None else moment(since)
    with call.api() as api, call.progress("review fill") as progress:
        filled = api.call("review.fill", since=begin, at_once=now, progress=progress)
    call.answer(filled, lambda console: _print_filled(console, filled))


@command(
    app,
    operations=("review.queue",),
    action="review.show",
    name="list",
    examples=["cumulant review list", "cumulant review list --status done --json"],
)
def list_(
    call: Invocation,
    status: Annotated[Status, typer.Option(help="Cases that wait, are done, or whose deadline passed.")] = "waiting",
    limit: Annotated[int, typer.Option(metavar="N", help="How many.", min=1)] = 20,
) -> None:
    """Show cases: those that wait in the order in which they are given out, closed ones newest first."""
    with call.api() as api:
        queue = api.call("review.queue", status=status, limit=limit)
    listed, total = queue.cases, queue.total

    def text(console: Console) -> None:
        cases(console, listed, status, fill=call.line("review fill"))
        print_rest(console, len(listed), total)

    call.answer(listed, text)


@command(
    app,
    operations=("review.next",),
    action="review.answer",
    name="next",
    examples=["cumulant review next", "cumulant review next --json"],
)
def next_(
    call: Invocation,
    once: Annotated[bool, typer.Option("--once", help="Show one case and leave, also on a terminal.")] = False,
) -> None:
    """Take the most useful case that waits. On a terminal: answer it, and the next one, until you quit."""
    if not call.json and not once and not call.server and sys.stdin.isatty() and sys.stdout.isatty():
        from cumulant.cli.monitoring.review_session import session

        with call.project() as project:
            session(call.output.console(), project, report=call.line("review report"))
        return
    with call.api() as api:
        case = api.call("review.next")

    def text(console: Console) -> None:
        if case is None:
            console.print(f"no case waits for you: {call.line('review fill')}", style="dim")
            return
        page(console, case)
        words = " or ".join(label_names(case)) or "a number"
        console.print(f"\nwhat is true, {words}:", style="dim", markup=False)
        decide = call.line(f"review decide {case.id} LABEL")
        console.print(decide, style="dim", markup=False, soft_wrap=True)

    call.answer(case, text)


@command(
    app,
    operations=("review.show", "review.named"),
    action="review.show",
    examples=["cumulant review show 3f9a", "cumulant review show 3f9a --json"],
)
def show(call: Invocation, case: Case) -> None:
    """Show one case; the model's answer is hidden until you have decided, where the queue is blind."""
    with call.api() as api:
        shown = api.call("review.show", case=_id(api, case))

    def text(console: Console) -> None:
        page(console, shown)

    call.answer(shown, text)


@command(
    app,
    operations=("review.decide", "review.named"),
    action="review.answer",
    examples=[
        "cumulant review decide 3f9a yes",
        "cumulant review decide 3f9a 12.5 --note 'price on the receipt'",
        "cumulant review decide --from decisions.csv",
    ],
)
def decide(
    call: Invocation,
    case: Annotated[
        str | None, typer.Argument(metavar="[CASE]", help="The case's id, or enough of its beginning.")
    ] = None,
    label: Annotated[
        str | None, typer.Argument(metavar="[LABEL]", help="What is true: a label of the model, or a number.")
    ] = None,
    note: Note = "",
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Decide many: CSV, JSON lines or Parquet with case, label, note."),
    ] = None,
) -> None:
    """Decide a case; the decision becomes a label."""
    if from_ is not None and case is None and not note:
        _decide_file(call, from_)
        return
    if from_ is not None or case is None or label is None:
        raise UsageError("one case and its label, or a file of them", hint="write CASE LABEL, or --from FILE")
    with call.api() as api:
        answered = api.call("review.decide", case=_id(api, case), label=label, note=note)
    _answer(call, answered)


@command(
    app, operations=("review.skip", "review.named"), action="review.answer", examples=["cumulant review skip 3f9a"]
)
def skip(call: Invocation, case: Case) -> None:
    """Leave a case to other reviewers; it is not offered to you again."""
    with call.api() as api:
        answered = api.call("review.skip", case=_id(api, case))
    _answer(call, answered)


@command(
    app,
    operations=("review.escalate", "review.named"),
    action="review.answer",
    examples=["cumulant review escalate 3f9a --note 'needs the contract'"],
)
def escalate(call: Invocation, case: Case, note: Note = "") -> None:
    """Give a case to those whom the project names for it (`escalate_to`)."""
    with call.api() as api:
        answered = api.call("review.escalate", case=_id(api, case), note=note)
    _answer(call, answered)


@command(
    app,
    operations=("review.note", "review.named"),
    action="review.answer",
    examples=["cumulant review note 3f9a 'the same card as yesterday'"],
)
def note(
    call: Invocation,
    case: Case,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What the next person should know.")],
) -> None:
    """Write something beside a case."""
    with call.api() as api:
        noted = api.call("review.note", case=_id(api, case), text=text)
    call.answer(noted, lambda console: console.print(f"noted beside case {noted.id}"))


@command(
    app,
    operations=("review.assign", "review.named"),
    action="review.assign",
    examples=["cumulant review assign 3f9a ada", "cumulant review assign 3f9a --to-all"],
)
def assign(
    call: Invocation,
    case: Case,
    to: Annotated[str | None, typer.Argument(metavar="[USER]", help="Who gets it: ada, or user:ada.")] = None,
    to_all: Annotated[bool, typer.Option("--to-all", help="Give it back to everybody.")] = False,
) -> None:
    """Give a case to one reviewer."""
    if (to is None) != to_all:
        raise UsageError("a case goes to one reviewer, or to all", hint="name one, or write --to-all")
    with call.api() as api:
        assigned = api.call("review.assign", case=_id(api, case), to=to)
    call.answer(
        assigned, lambda console: console.print(f"case {assigned.id} is for {assigned.assigned or 'everybody'}")
    )


@command(
    app,
    operations=("review.report",),
    action="review.show",
    examples=["cumulant review report", "cumulant review report --json"],
)
def report(call: Invocation) -> None:
    """Show how much was answered, how far reviewers agree, and how often the model is wrong, corrected for the draw."""
    with call.api() as api:
        summary = api.call("review.report")

    def text(console: Console) -> None:
        figures(console, summary)

    call.answer(summary, text)


@command(
    app,
    action="review.show",
    examples=["cumulant review export tasks.json", "cumulant review export done.jsonl --format jsonl --status done"],
)
def export(
    call: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    format_: Annotated[
        Literal["label-studio", "jsonl"],
        typer.Option("--format", help="Tasks of Label Studio with their interface (.xml), or one case a line."),
    ] = "label-studio",
    status: Annotated[Status, typer.Option(help="Which cases.")] = "waiting",
) -> None:
    """Write cases for another tool. Personal values stay keyed hashes."""
    from cumulant.flows.review.exchange import export_cases

    with call.project() as project:
        exported = export_cases(project, file, principal=project.principal(), format=format_, status=status)

    def text(console: Console) -> None:
        console.print(f"{exported.cases} cases are in {exported.file}")
        if exported.interface is not None:
            console.print(f"the labelling interface of Label Studio is in {exported.interface}")

    call.answer(exported, text)


@command(
    app,
    action="review.import",
    name="import",
    examples=["cumulant review import export.json", "cumulant review import export.json --reviewer ada"],
)
def import_(
    call: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Label Studio's export, JSON or JSON-MIN.")],
    reviewer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose answers these are, where the file names no reviewer.")
    ] = None,
) -> None:
    """Import answers from Label Studio, each once."""
    from cumulant.flows.review.exchange import import_answers

    with call.project() as project:
        imported = import_answers(project, file, principal=project.principal(), reviewer=reviewer)

    def text(console: Console) -> None:
        console.print(
            f"{imported.decided} decisions, {imported.skipped} skipped, {imported.again} known before; "
            f"{imported.labelled} cases became labels"
        )
        for case, problem in imported.problems.items():
            console.print(f"{case}: {problem}", style="yellow")

    call.answer(imported, text)


def _decide_file(call: Invocation, file: Path) -> None:
    from cumulant.flows.review.decisions import decide_file

    with call.project() as project:
        decided = decide_file(project, file, principal=project.principal())

    def text(console: Console) -> None:
        console.print(f"{decided.decided} decisions; {decided.labelled} cases became labels")
        for case, problem in decided.problems.items():
            console.print(f"{case}: {problem}", style="yellow", markup=False)

    call.answer(decided, text)
    if decided.problems and not decided.decided:
        raise typer.Exit(1)


def _id(api: OperationCaller, beginning: str) -> str:
    return str(api.call("review.named", beginning=beginning).case)


def _print_filled(console: Console, filled: FillResult) -> None:
    console.print(filled.sentence)
    for note in () if filled.draw is None else filled.draw.notes:
        console.print(note, style="yellow")
    if filled.draw is not None and filled.draw.reasons:
        console.print(", ".join(f"{count} {name}" for name, count in sorted(filled.draw.reasons.items())))
    if filled.overdue:
        console.print(f"{filled.overdue} cases passed their deadline")
    console.print(f"{filled.waiting} cases wait, {filled.remaining} more may be queued in this period")


def _answer(call: Invocation, answered: AnsweredCase) -> None:
    call.answer(answered, lambda console: console.print(outcome(answered)))
