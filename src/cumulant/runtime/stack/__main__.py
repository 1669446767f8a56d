"""`python -m cumulant.runtime.stack PROJECT --env NAME --http HOST:PORT`: the supervisor in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from cumulant.core.errors import CumulantError, LeaseHeldError, NotFoundError
from cumulant.ports.traffic import Opening
from cumulant.project import Project, load
from cumulant.runtime.serve import USES
from cumulant.runtime.stack.supervisor import Stack, Supervisor


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 after it was asked to end, 3 where another supervisor runs, 4 where it cannot work."""
    options = _parser().parse_args(words)
    try:
        with load(Path(options.project), environment=options.env) as project:
            found = stack(project, options.http)
            asyncio.run(_supervise(found, project, options.parent))
    except LeaseHeldError as error:
        sys.stderr.write(f"{error.message}\n")
        return 3
    except CumulantError as error:
        sys.stderr.write(f"{error.message}\n")
        return 4
    return 0


async def _supervise(found: Stack, project: Project, parent: int | None) -> None:
    await Supervisor(found, project.traffic(), parent=parent).run()


def stack(project: Project, http: str) -> Stack:
    """What is to be supervised of a project.

    Raises:
        MissingPartError: the gateway's engine is not installed.
        UsageError: its driver is not.
    """
    opening = Opening(http=http, key_file=project.salt_path())
    return Stack(
        state=project.state,
        uses=project.state / USES,
        model=project.name,
        environment=project.environment_name,
        gateway=tuple(project.traffic().program(opening)),
        controller=controller(project),
        salt=_salt(project),
    )


def controller(project: Project) -> tuple[str, ...]:
    """The command of the process that carries out releases."""
    return (
        sys.executable, "-m", "cumulant.runtime.release", str(project.root), "--env", project.environment_name
    )  # fmt: skip


def _salt(project: Project) -> bytes | None:
    """Where it is a secret that cannot be had now, servers start without: personal values are then not logged."""
    if project.environment.salt is None:
        return None
    try:
        return project.salt()
    except NotFoundError as error:
        sys.stderr.write(f"{error.message}; personal values are hidden in the prediction log\n")
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cumulant.runtime.stack", description="Run a project's processes.")
    parser.add_argument("project", metavar="DIR", help="folder of cumulant.yaml")
    parser.add_argument("--env", metavar="NAME", default="local", help="default %(default)s")
    parser.add_argument("--http", metavar="HOST:PORT", default="127.0.0.1:8080", help="of the gateway")
    parser.add_argument("--parent", metavar="PID", type=int, help="end when that process is no longer the parent")
    return parser


if __name__ == "__main__":
    sys.exit(main())
