"""Stored features that the online store lost or has in another format: filled again from the newest data.

They keep the name that servers read.

`python -m cumulant.flows.maintenance.refill PROJECT --env NAME` does it once. `cumulant up` starts that beside its
controller when a table is missing, `cumulant tick` does it in its own process.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Servable
from cumulant.core.system.child_processes import start, stop
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.ledger.actions import verb
from cumulant.flows.stack.served_versions import online_of, servable_of, stored_table
from cumulant.project.file.loading import load

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.ledger.run_context import Context
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: seconds between two checks, and after a failure
_ROUND, _AFTER_FAILURE = 2.0, 30.0
#: seconds between two checks whether a child process has ended, and for it to end
_POLL, _END = 0.2, 10.0


class RefilledTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table that was filled again, and the versions that read it. `outdated`: it was there, in another format."""

    table: str
    versions: tuple[str, ...]
    entities: int
    outdated: bool = False


def describe(refilled: RefilledTable) -> str:
    versions = ", ".join(refilled.versions)
    if refilled.outdated:
        return (
            f"the stored features of version {versions} had the format of another version of Cumulant; they were "
            f"filled again from the newest data and the posted rows, {refilled.entities:,} entities"
        )
    return (
        f"the online store had lost the stored features of version {versions}; they were filled again from the newest "
        f"data, {refilled.entities:,} entities; posted rows that the data do not contain are lost"
    )


def lost_tables(project: Project) -> dict[str, tuple[str, ...]]:
    """Tables that served versions read and the project's online store does not have, or has in another format than
    this version of Cumulant writes, with these versions.

    Raises:
        EngineUnavailableError: the online store does not answer.
        IntegrityError: the desired state is damaged. CumulantError: the journal does not answer.
    """
    desired, tables = deployment_of(project).read(project.name), dict[str, tuple[str, ...]]()
    for served in desired.versions.values():
        # Without a command, the machines that serve the version have one each, with the environment's online store.
        elsewhere = bool(served.command) and online_of(served.command) != project.endpoints.online
        if (table := stored_table(served)) is not None and not elsewhere:
            tables[table] = (*tables.get(table, ()), served.version)
    if not tables:
        return {}
    from cumulant.features.online.entity_cache import is_filled

    store = project.online()
    return {table: versions for table, versions in tables.items() if not is_filled(store, table)}


@verb("features.materialize")
def refill(project: Project, *, principal: Principal, progress: Progress = silent) -> tuple[RefilledTable, ...]:
    """Fill the tables that the online store lost, or has in another format. Servers read them with their next request.

    Raises:
        EngineUnavailableError: the online store does not answer.
        CumulantError: neither the newest data nor an earlier snapshot can be read.
    """
    from cumulant.flows.ledger.run_context import open_run

    lost = lost_tables(project)
    if not lost:
        return ()
    with open_run(project, "refill", principal=principal, progress=progress) as context:
        return tuple(_refill(context, table, versions) for table, versions in lost.items())


def _refill(context: Context, table: str, versions: tuple[str, ...]) -> RefilledTable:
    from cumulant.features.events import StateLost
    from cumulant.flows.registry.version_servable import describe_servable
    from cumulant.servable.folder import load_description

    project = context.project
    outdated = bool(project.online().meta(table))
    served = deployment_of(project).read(project.name).versions[versions[0]]  # versions of one table have one plan
    folder = servable_of(project, served)
    if folder is None:
        described = describe_servable(project, project.registry().resolve(f"{project.name}/{served.version}"))
    else:
        described = load_description(folder)
    assert isinstance(described, Servable), "a version that reads a table has a plan"
    entities = fill_anew(context, described.plan, table)
    if not outdated:
        context.emit(StateLost(table=table, versions=versions))
    return RefilledTable(table=table, versions=versions, entities=entities, outdated=outdated)


def fill_anew(context: Context, plan: FeaturePlan, table: str) -> int:
    """Fill a table that is lost from the newest data, and return how many entities it has."""
    from cumulant.flows.serving.serve import materialize

    return materialize(context, plan, _newest_snapshots(context, plan.sources), as_of=None, into=table)[1]


def _newest_snapshots(context: Context, sources: Iterable[str]) -> dict[str, Snapshot]:
    """Snapshots of the newest data; where they are refused or cannot be read, of the last accepted ones."""
    from cumulant.flows.data.validate import newest_snapshot, snapshots_of

    try:
        return snapshots_of(context, sources)[0]
    except CumulantError:
        accepted = {name: newest_snapshot(context.project, name) for name in sources}
        if None in accepted.values():
            raise
        return {name: snapshot for name, snapshot in accepted.items() if snapshot is not None}


@contextmanager
def refill_in_background(project: Project, report: Callable[[str], None]) -> Iterator[None]:
    """While the block lasts, fill what the online store loses, in a process of its own; what happens is reported."""
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(project, ended, report), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_END + _ROUND)


def _watch(project: Project, ended: threading.Event, report: Callable[[str], None]) -> None:
    pause = _ROUND
    while not ended.wait(pause):
        try:
            pause = _ROUND if not lost_tables(project) or _run_child(project, ended, report) else _AFTER_FAILURE
        except (CumulantError, OSError) as error:
            text = error.message if isinstance(error, CumulantError) else str(error)
            report(f"stored features cannot be checked: {project.vault.redact(text)}")
            pause = _AFTER_FAILURE


def _run_child(project: Project, ended: threading.Event, report: Callable[[str], None]) -> bool:
    """Whether another process filled the tables; it is stopped where this one ends before."""
    line = [sys.executable, "-m", __name__, str(project.root), "--env", project.environment]
    report("stored features that are served are lost or have another format; they are filled again")
    process = start(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, death_signal=signal.SIGTERM)
    assert process.stdout is not None
    with process.stdout as output:
        while process.poll() is None:
            if ended.wait(_POLL):
                stop(process, _END)
                return False
        lines = output.read().decode(errors="replace").strip().splitlines()
    for text in lines[-3:]:
        report(text)
    return process.returncode == 0


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 where everything is there afterwards."""
    parser = argparse.ArgumentParser(description="Fill stored features that the online store lost.")
    parser.add_argument("project", help="folder of cumulant.yaml")
    parser.add_argument("--env", default="local", help="environment of the project file")
    options = parser.parse_args(words)
    try:
        with load(Path(options.project), environment=options.env) as project:
            for refilled in refill(project, principal=project.principal()):
                sys.stdout.write(f"{describe(refilled)}\n")
    except CumulantError as error:
        sys.stdout.write(f"stored features are not filled: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
