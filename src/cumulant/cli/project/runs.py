"""`cumulant runs`: runs and their steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.output import print_rest
from cumulant.flows.reports.terminal import heading, pairs, table
from cumulant.flows.reports.wording import duration as seconds

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.ledger.ledger_records import RunRecord

#: most runs of one page
_PAGE = 1_000
#: settings of a training that are limits, not results
_MOST = {"trials": "most trials", "time": "most time"}
_NOTHING: tuple[object, ...] = (None, "", [], {})

app = application(
    "runs",
    "Runs of this project and their steps.",
    examples=["cumulant runs list", "cumulant runs show latest"],
)


@command(
    app,
    operations=("runs.list",),
    action="runs.show",
    name="list",
    examples=["cumulant runs list", "cumulant runs list --flow train --json"],
)
def list_(
    call: Invocation,
    flow: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this flow, such as train.")] = None,
    last: Annotated[int, typer.Option("--last", metavar="N", help="How many of the newest; 0 for all.", min=0)] = 20,
) -> None:
    """Show runs, newest first."""
    with call.api() as api:
        page = api.call("runs.list", flow=flow or "", limit=min(last or _PAGE, _PAGE))
        shown, total = page.items, page.total
        while page.next is not None and (not last or len(shown) < last):
            page = api.call("runs.list", flow=flow or "", limit=_PAGE, cursor=page.next)
            shown += page.items
    if page.next is None:
        total = len(shown)
    shown = shown[:last] if last else shown

    def text(console: Console) -> None:
        rows = [
            (record.id, record.flow, record.ended, record.started, _spent(record), _steps(record), record.principal)
            for record in shown
        ]
        console.print(table(["run", "flow", "status", "started", "time", "steps", "who"], rows))
        if not rows:
            console.print("nothing has run yet: " + call.line("train"), style="dim")
        print_rest(console, len(shown), total, option="--last N")

    call.answer(shown, text)


@command(
    app,
    operations=("runs.show",),
    action="runs.show",
    examples=["cumulant runs show latest", "cumulant runs show 20261124T101500-3fa2c1 --json"],
)
def show(
    call: Invocation,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, or the beginning of its name, or `latest`.")
    ] = "latest",
) -> None:
    """Show one run: its settings, its steps and how it ended."""
    with call.api() as api:
        record = api.call("runs.show", run=run).run

    def text(console: Console) -> None:
        heading(console, record.id, record.flow)
        error = (record.error or {}).get("error")
        pairs(
            console,
            [
                ("status", record.ended),
                ("who", record.principal),
                ("started", record.started),
                ("time", _spent(record)),
                *([("error", error)] if error else []),
                *[(_MOST.get(key, key), value) for key, value in record.settings.items() if value not in _NOTHING],
            ],
        )
        console.print(
            table(
                ["step", "time", "identity"],
                [(u.name, "reused" if u.reused else seconds(u.seconds), u.identity[:12]) for u in record.steps],
                right=["time"],
            )
        )

    call.answer(record, text)


def _spent(record: RunRecord) -> str:
    return seconds(record.seconds) if record.finished else "–"


def _steps(record: RunRecord) -> str:
    reused = sum(use.reused for use in record.steps)
    return f"{len(record.steps)} ({reused} reused)" if reused else str(len(record.steps))
