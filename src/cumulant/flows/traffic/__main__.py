"""`python -m cumulant.flows.traffic PROJECT --env NAME`: the agent of this machine's gateway, until SIGTERM."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cumulant.core.errors import CumulantError
from cumulant.core.system.end_signals import end_event
from cumulant.core.system.stderr import lossy_stderr
from cumulant.core.units import duration
from cumulant.flows.ledger.ending import run_until_ended
from cumulant.flows.release.controller_process import LogLines
from cumulant.flows.stack.desired_state import FOLDER
from cumulant.flows.traffic.agent import GatewayAgent
from cumulant.flows.traffic.exchange_upload import ExchangeUpload
from cumulant.project.file.loading import load
from cumulant.project.host_name import host_name
from cumulant.project.project import Project

#: for the last exchanges, when the agent ends
_LAST_SECONDS = 4.0


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 after a request to end, 4 where the project cannot be loaded."""
    options = _parser().parse_args(words)
    ending = end_event()
    report = LogLines(sys.stderr.write)
    try:
        with load(Path(options.project), environment=options.env) as project, _uploading(project, ending):
            _follow_routes(project, ending, report)
    except CumulantError as error:
        sys.stderr.write(f"{error.message}\n")
        return 4
    return 0


def _follow_routes(project: Project, ending: threading.Event, report: Callable[[str], object]) -> None:
    gateway, journal = project.gateway(), project.journal()
    agent = GatewayAgent(gateway, journal, report=report)
    if not run_until_ended(lambda: agent.run(ending.wait), ending, journal, report):
        agent.end()


@contextmanager
def _uploading(project: Project, ending: threading.Event) -> Iterator[None]:
    """Upload exchanges in a thread, which a slow log may hold up. What is left is uploaded at the end, for some seconds
    at most: what then remains is in the gateway's files, where the next start finds it.
    """
    report = LogLines(sys.stderr.write)
    upload = ExchangeUpload(
        project.gateway(),
        project.log("exchanges"),
        project.drivers.path(project.endpoints.traffic) or project.state / FOLDER,
        host=host_name(),
        keep=duration(project.policies.serving.log.keep),
        report=report,
    )
    thread = threading.Thread(target=upload.run, args=(ending.wait,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()  # also after an error
        thread.join(_LAST_SECONDS)
        if thread.is_alive():
            report(
                f"the last exchanges are not uploaded within {_LAST_SECONDS:.0f} s: they stay on this machine until its"
                " gateway's agent starts again"
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cumulant.flows.traffic", description=__doc__)
    parser.add_argument("project", help="folder of cumulant.yaml")
    parser.add_argument("--env", default="local", help="environment of the project file")
    return parser


if __name__ == "__main__":
    lossy_stderr()
    sys.exit(main())
