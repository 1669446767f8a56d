"""`python -m cumulant.flows.release PROJECT --env NAME`: the release controller in the foreground, until SIGTERM.

With `--once` it evaluates every release once, prints the state of each, and ends.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError
from cumulant.core.system.end_signals import end_event
from cumulant.core.system.stderr import lossy_stderr
from cumulant.flows.alerting.background import deliver_in_background
from cumulant.flows.deployment.deployment import is_shared
from cumulant.flows.deployment.host_report import watch_hosts
from cumulant.flows.features.freshness import watch_freshness
from cumulant.flows.features.jobs.supervise_job import watch_jobs
from cumulant.flows.governance.background import sign_in_background
from cumulant.flows.ledger.actions import OWN_MODEL, check
from cumulant.flows.ledger.ending import run_until_ended
from cumulant.flows.ledger.refusals import record_refusals
from cumulant.flows.maintenance.refill import refill_in_background
from cumulant.flows.observe.objective_alerts import watch_objectives
from cumulant.flows.observe.project_metrics import CachedExposition
from cumulant.flows.release.controller.metrics_server import serve_metrics
from cumulant.flows.release.controller_process import Controllers, LogLines, describe_progress, run, run_once
from cumulant.flows.stack.desired_state import FOLDER
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load

if TYPE_CHECKING:
    from cumulant.project.project import Project


def _anonymous(project: Project) -> Callable[[str], None]:
    """A check that raises RefusedError where a caller without a name may not do an action to the project's model."""
    caller = Principal("anonymous", tenant=project.scope.tenant, via="http")
    return lambda action: check(project, caller, action, model=OWN_MODEL)


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 after a request to end, 4 where the project cannot be loaded."""
    options = _parser().parse_args(words)
    ending = end_event()
    report = LogLines(sys.stderr.write)
    try:
        with load(Path(options.project), environment=options.env) as project:
            acting = Controllers(project, report, settle=options.settle)
            if options.once:
                releases = run_once(project, acting, ending.wait, report)
                text = "; ".join(map(describe_progress, releases)) or "another controller watches over the release"
                sys.stdout.write(f"{text}\n")
                return 0
            with (
                deliver_in_background(project, LogLines(sys.stderr.write)),
                refill_in_background(project, LogLines(sys.stderr.write)),
                sign_in_background(project, report),
                watch_objectives(project, LogLines(sys.stderr.write)),
                watch_freshness(project, LogLines(sys.stderr.write)),
                watch_jobs(project, LogLines(sys.stderr.write)),
                record_refusals(project, LogLines(sys.stderr.write), servers=True),
                serve_metrics(
                    project.state / FOLDER,
                    CachedExposition([project]),
                    allow=_anonymous(project),
                    ready=acting.heartbeat.is_fresh,
                ) as url,
                watch_hosts(project.journal(), report) if is_shared(project) else nullcontext(),
            ):
                report(f"controlling releases of {project.name}; metrics are at {url}/metrics")
                if not run_until_ended(
                    lambda: run(project, acting, ending.wait, report), ending, project.journal(), report
                ):
                    os._exit(0)  # the threads of this block wait for the journal too, and it may be killed at any point
    except CumulantError as error:
        sys.stderr.write(f"{error.message}\n")
        return 4
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cumulant.flows.release", description=__doc__)
    parser.add_argument("project", help="folder of cumulant.yaml")
    parser.add_argument("--env", default="local", help="environment of the project file")
    parser.add_argument("--settle", type=float, default=15.0, help="seconds until a row is in the prediction log")
    parser.add_argument("--once", action="store_true", help="evaluate each release once, print its state, and end")
    return parser


if __name__ == "__main__":
    lossy_stderr()
    sys.exit(main())
