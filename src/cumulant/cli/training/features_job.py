"""`cumulant features start-job`, `stop-job` and `jobs`: jobs of another engine that compute features of streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation
from cumulant.flows.reports.wording import duration, instant

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.features.jobs.job_control import StartedJob, StoppedJob
    from cumulant.flows.features.jobs.job_status import JobStatus


def declare(app: typer.Typer) -> None:
    command(
        app,
        operations=("features.start_job",),
        action="features.run_job",
        name="start-job",
        examples=[
            "cumulant features start-job --env prod",
            "cumulant features start-job --env prod --from s3://acme/flink/0a1b/chk-42",
        ],
    )(_start)
    command(
        app,
        operations=("features.stop_job",),
        action="features.run_job",
        name="stop-job",
        examples=["cumulant features stop-job --env prod"],
    )(_stop)
    command(
        app,
        operations=("features.jobs",),
        action="features.status",
        name="jobs",
        examples=["cumulant features jobs --env prod", "cumulant features jobs --env prod --json"],
    )(_jobs)


def _start(
    call: Invocation,
    resume: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="PLACE",
            help="A checkpoint or savepoint, or `beginning`; default: where this definition stopped.",
        ),
    ] = "",
) -> None:
    """Start the job of the features as they are defined now, in the engine that the environment names.

    Where it runs already, nothing changes. Stopped or failed, it goes on from its savepoint or newest checkpoint. A
    changed definition begins at the oldest message, with a topic of results of its own; the job of the one before is
    then stopped with a savepoint, from which it goes on when the definition is changed back.
    """
    with call.api() as api, call.progress("job") as progress:
        done: StartedJob = api.call("features.start_job", resume=resume, progress=progress)

    def text(console: Console) -> None:
        what = "started" if done.started else f"runs already ({done.state.lower()})"
        console.print(f"job {done.job} {what}: results in the topic {done.topic}", soft_wrap=True)
        if done.started:
            where = "the oldest message of its topics" if done.resumed is None else done.resumed
            console.print(f"from {where}", style="dim", soft_wrap=True)
        _print_stopped(console, done.stopped)

    call.answer(done, text)


def _stop(call: Invocation) -> None:
    """Stop the jobs of the project, with a savepoint each: `cumulant features start-job` goes on from there.

    A job that fails again and again can take none: it is cancelled, and its newest checkpoint takes that place.
    """
    with call.api() as api, call.progress("job") as progress:
        stopped: list[StoppedJob] = api.call("features.stop_job", progress=progress)

    def text(console: Console) -> None:
        if not stopped:
            console.print("no job runs")
        _print_stopped(console, stopped)

    call.answer(stopped, text)


def _print_stopped(console: Console, stopped: list[StoppedJob] | tuple[StoppedJob, ...]) -> None:
    for job in stopped:
        what = "could take no savepoint, and is cancelled" if job.cancelled else "is stopped"
        what = "had ended" if job.ended else what
        place = "nothing says how far it came" if job.savepoint is None else job.savepoint
        console.print(f"job {job.job} of {job.name} {what}: {place}", soft_wrap=True)


def _jobs(call: Invocation) -> None:
    """Show the job of each definition: state, fingerprint, topic of results, newest checkpoint and its age.

    Checkpoints are those that the JobManager knows, where the URL of the engine names it; of a stopped job its
    savepoint. Exit code 1: the job of the definition that was started last has ended or is not known any more, a job
    fails again and again, or two of one definition run.
    """
    with call.api() as api:
        jobs: list[JobStatus] = api.call("features.jobs")

    def text(console: Console) -> None:
        from cumulant.flows.reports.terminal import table

        if not jobs:
            console.print(f"no job yet: {call.line('features start-job')} starts it")
            return
        heads = ("job", "state", "fingerprint", "topic", "started", "age of the newest checkpoint", "by")
        console.print(table(heads, [_row(job) for job in jobs]))
        for job in jobs:
            if job.checkpoint is not None:
                console.print(f"{job.name}: {job.checkpoint}", style="dim", soft_wrap=True)

    call.answer(jobs, text)
    if any(job.faulty for job in jobs):
        raise typer.Exit(1)


def _row(job: JobStatus) -> tuple[str, ...]:
    return (
        job.job,
        job.state.lower(),
        job.fingerprint or "–",
        job.topic,
        "–" if job.started is None else instant(job.started),
        duration(job.age),
        job.who or "–",
    )
