"""`cumulant jobs`: long operations that a server of the API runs, such as a training that was submitted."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.output import print_rest
from cumulant.core.errors import error_from

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.server.jobs import Job

app = application(
    "jobs",
    "Long operations that a server runs.",
    examples=["cumulant jobs list --server URL", "cumulant jobs follow 20261124T101500-3fa2c1 --server URL"],
)
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id, as `jobs list` shows it.")]


@command(
    app,
    operations=("jobs.list",),
    action="runs.show",
    name="list",
    examples=["cumulant jobs list --server URL", "cumulant jobs list --server URL --json"],
)
def list_(
    call: Invocation,
    last: Annotated[int, typer.Option("--last", metavar="N", help="How many of the newest.", min=1)] = 20,
) -> None:
    """Show jobs, newest first. They are of the API: a command without --server does its work itself."""
    with call.api() as api:
        listed = list(islice(api.pages("jobs.list", limit=min(last + 1, 1_000)), last + 1))
    shown = listed[:last]

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import table

        rows = [(job.id, job.operation, job.status, job.started, job.ended, job.principal, job.step) for job in shown]
        console.print(table(["job", "operation", "status", "started", "ended", "who", "step"], rows))
        if not shown:
            console.print("no job yet: " + call.line("train --detach"), style="dim", soft_wrap=True)
        print_rest(console, len(shown), None if len(listed) > last else len(shown), option="--last N")

    call.answer(shown, text)


@command(
    app,
    operations=("jobs.show",),
    action="runs.show",
    examples=["cumulant jobs show 20261124T101500-3fa2c1 --server URL --json"],
)
def show(call: Invocation, job: JobId) -> None:
    """Show a job: what it does now, or how it ended; with --json its result, too."""
    with call.api() as api:
        shown = api.call("jobs.show", job=job)
    call.answer(shown, lambda console: _show(console, call, shown))


@command(
    app,
    operations=("jobs.show",),
    action="runs.show",
    examples=["cumulant jobs follow 20261124T101500-3fa2c1 --server URL"],
)
def follow(call: Invocation, job: JobId) -> None:
    """Wait for the end of a job, and show it; exit code as of the command that does the same without a server.

    One that failed ends this command with its error. Exit code 1 where the gate refused a training or an evaluation, a
    reproduced version differs, monitoring found something, no label of the files can be used, or an erasure waits.
    Ctrl-C ends this command only.
    """
    from cumulant.server.client.caller import follow_job

    call.output.interrupted = f"the job continues: `{call.line(f'jobs cancel {job}')}` ends it"
    with call.api() as api, call.progress(f"job {job}") as progress:
        ended = follow_job(api, job, progress)
    call.answer(ended, lambda console: _show(console, call, ended))
    match ended.operation, ended.result:
        case "maintenance.tick", {"error": dict() as error}:
            raise error_from(error)
        case _ if _is_negative(ended):
            raise typer.Exit(1)


def _is_negative(job: Job) -> bool:
    """Whether a job that succeeded has a result with which the command of its operation ends with 1."""
    match job.operation, job.result:
        case (
            ("training.train", {"verdict": {"passed": False}})
            | ("training.evaluate", {"judgement": {"verdict": {"passed": False}}})
            | ("training.reproduce", {"identical": False})
            | ("monitoring.run", {"alarming": True})
        ):
            return True
        case "labels.ingest", dict() as result:
            from cumulant.flows.outcomes.labels import Intake

            return msgspec.convert(result, Intake, strict=False).useless
        case "subjects.erase", dict() as result:
            from cumulant.flows.subjects.subjects import Erasure

            return msgspec.convert(result, Erasure, strict=False).pending
        case _:
            return False


@command(
    app,
    operations=("jobs.cancel",),
    action="runs.cancel",
    examples=["cumulant jobs cancel 20261124T101500-3fa2c1 --server URL"],
)
def cancel(call: Invocation, job: JobId) -> None:
    """Cancel a job that runs; its finished steps are kept, and the same command continues from them."""
    with call.api() as api:
        cancelled = api.call("jobs.cancel", job=job)
    call.answer(cancelled, lambda console: console.print(f"{cancelled.id}: {cancelled.operation} is being cancelled"))


def show_submitted(call: Invocation, job: Job) -> None:
    """Print that the server does the work from now on."""

    def text(console: Console) -> None:
        console.print(f"{job.operation} runs as job {job.id}", soft_wrap=True)
        for word in ("follow", "cancel"):
            console.print("next: " + call.line(f"jobs {word} {job.id}"), style="dim", soft_wrap=True)

    call.answer(job, text)


def _show(console: Console, call: Invocation, job: Job) -> None:
    from cumulant.flows.reports.terminal import clean, heading, pairs

    heading(console, f"{job.id} {job.operation} {job.status}")
    share = "" if job.share is None else f" ({job.share:.0%})"
    error = "" if job.error is None else clean(str(job.error.get("error", "")))
    result = job.result if isinstance(job.result, dict) else {}
    model, verdict = result.get("model"), result.get("verdict")
    rows = [
        ("version", clean(f"{model.get('name')}/{model.get('version')}") if isinstance(model, dict) else ""),
        ("gate", clean(str(verdict.get("text", ""))) if isinstance(verdict, dict) else ""),
        ("who", job.principal),
        ("started", job.started),
        ("ended", job.ended),
        ("step", f"{clean(job.step)}{share}"),
        ("error", error),
    ]
    pairs(console, [(label, value) for label, value in rows if value])
    if isinstance(run := result.get("run"), str):
        console.print("next: " + call.line(f"report {run} --out report.html"), style="dim", soft_wrap=True)
