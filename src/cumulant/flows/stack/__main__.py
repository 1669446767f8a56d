"""`python -m cumulant.flows.stack PROJECT --env NAME --http HOST:PORT`: the supervisor in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError, LeaseHeldError
from cumulant.core.system.stderr import lossy_stderr
from cumulant.flows.deployment.host_agent import HostAgent
from cumulant.flows.observe.programs import find_programs, observing_processes
from cumulant.flows.observe.scrape_targets import ScrapeTargets
from cumulant.flows.stack.desired_state import LOOPBACK
from cumulant.flows.stack.event_reporting import Reporter, emit
from cumulant.flows.stack.stack_processes import REFUSED, ROLES, Stack, build_stack, console_process
from cumulant.flows.stack.supervisor import StackSupervisor
from cumulant.flows.traffic.clients import traffic_of
from cumulant.project.file.loading import load
from cumulant.project.project import Project

#: seconds for the last events of a machine that found no journal to leave
_WITHOUT_JOURNAL = 0.5


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 after a request to end, 3 where another supervisor runs, or one on another machine by this machine's
    name, 4 where it cannot work.
    """
    options = _parser().parse_args(words)
    try:
        with load(Path(options.project), environment=options.env) as project:
            described = build_stack(project, options.http, options.role, insecure=options.insecure)
            further = observing_processes(project, find_programs()) if options.observe else []
            if options.console:
                further.append(console_process(project, options.console))
            described = msgspec.structs.replace(described, further=tuple(further))
            asyncio.run(_supervise(described, project, options))
    except LeaseHeldError as error:
        sys.stderr.write(f"{error.message}\n")
        return REFUSED
    except CumulantError as error:
        sys.stderr.write(f"{error.full_text}\n")
        return 4
    return 0


async def _supervise(described: Stack, project: Project, options: argparse.Namespace) -> None:
    reporter = Reporter(lambda fact: emit(project, fact))
    agent = None
    if described.roles:
        agent = HostAgent(project, described.roles, options.advertise, write=sys.stderr.write)
        agent.start()
    targets = ScrapeTargets(project) if options.observe else None
    supervisor = StackSupervisor(
        described,
        traffic_of(project),
        project.gateway(),
        parent=options.parent,
        report=reporter,
        leave=agent.leave if agent else lambda: "",
        watch=targets or (lambda _: None),
    )
    try:
        await supervisor.run()
    finally:
        if targets is not None:
            targets.close()
        if agent is None or agent.withdrawn:
            reporter.close()
        else:
            reporter.close(patience=_WITHOUT_JOURNAL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cumulant.flows.stack", description="Run a project's processes.")
    parser.add_argument("project", metavar="DIR", help="folder of cumulant.yaml")
    parser.add_argument("--env", metavar="NAME", default="local", help="default %(default)s")
    parser.add_argument("--http", metavar="HOST:PORT", default="127.0.0.1:8080", help="of the gateway")
    parser.add_argument("--parent", metavar="PID", type=int, help="end when that process is no longer the parent")
    parser.add_argument("--role", choices=ROLES, action="append", default=[], help="of this machine among several")
    parser.add_argument("--advertise", metavar="HOST", default=LOOPBACK, help="where its servers listen")
    parser.add_argument("--observe", action="store_true", help="run Prometheus and Alertmanager too")
    parser.add_argument("--console", metavar="HOST:PORT", default="", help="run the console and the API there too")
    parser.add_argument("--insecure", action="store_true", help="servers off loopback need no token")
    return parser


if __name__ == "__main__":
    lossy_stderr()
    sys.exit(main())
