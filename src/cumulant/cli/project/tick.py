"""`cumulant tick`: run each due job once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import error_from
from cumulant.flows.reports.terminal import clean

if TYPE_CHECKING:
    from rich.console import Console

app = application("tick", "Run each due job once.")


@command(
    app,
    operations=("maintenance.tick",),
    action="project.tick",
    examples=["cumulant tick", "cumulant tick --env production --json"],
)
def tick(call: Invocation) -> None:
    """Run each due job once and exit: for cron, a CronJob or Airflow, where no `cumulant up` runs.

    It may run at any time, also twice at once: each job is done by one of them. Exit code 3 where a job
    failed and may work the next time.
    """
    with call.api() as api, call.progress("tick") as progress:
        report = api.call("maintenance.tick", progress=progress)
    ticked = report.jobs

    def text(console: Console) -> None:
        for job in ticked:
            last = "last time: " if job.outcome == "not_due" else ""
            detail = f", {last}{job.sentence}" if job.sentence else ""
            console.print(clean(f"{job.job}: {job.outcome.replace('_', ' ')}{detail}"), soft_wrap=True, markup=False)

    call.answer({"jobs": ticked}, text)
    if report.error is not None:
        raise error_from(report.error)
