"""The lock of the supervisor, one a project, and the end of processes that a killed one left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cumulant.core.errors import LeaseHeldError
from cumulant.core.system.atomic_files import storage_errors
from cumulant.core.system.child_processes import kill_group
from cumulant.core.system.locks import try_lock
from cumulant.flows.ledger.processes import Process, is_gone, is_here
from cumulant.flows.stack.child_process import PATIENCE
from cumulant.flows.stack.desired_state import FOLDER
from cumulant.flows.stack.identity import home_of
from cumulant.flows.stack.reconcile import stop_order
from cumulant.flows.stack.status import Status, read_status, remove_status, set_status_aside

LOCK = "supervisor.lock"
_CHECK_SECONDS, _GRACE = 0.05, 0.3


@contextmanager
def hold_lock(state: Path) -> Iterator[None]:
    """Be the only supervisor of the project while the block runs.

    Raises:
        LeaseHeldError: another one is.
        StorageError: the folder cannot be written.
    """
    path = state / FOLDER / LOCK
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path)
    if descriptor is None:
        raise already_runs_error(_holder(path))
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        # While it is still locked: a process that waits for it then sees another file in its place and tries again.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def already_runs_error(pid: int | None) -> LeaseHeldError:
    who = "" if pid is None else f" as process {pid}"
    return LeaseHeldError(
        f"the supervisor of this project runs already{who}",
        subject=None if pid is None else str(pid),
        hint="`cumulant ps` shows its processes, `cumulant up --restart` gives them the present settings, "
        "`cumulant down` ends them",
    )


def find_supervisor(state: Path) -> int | None:
    """The process id of the living supervisor, if any."""
    path = state / FOLDER / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if try_lock(descriptor) else _holder(path)
    finally:
        os.close(descriptor)


def end_leftovers(status: Status | None, *, patience: float = PATIENCE) -> int:
    """End the processes of a supervisor that has ended without them; returns how many there were.

    They are known by number and birth, so that no process that only got the same number is touched. Those of another
    machine, or of this one before it was started again, are out of reach: their numbers are other processes' here.
    """
    if status is None:
        return 0
    living = _living(status)
    kinds = {child.name: child.kind for child in status.children if child.name in living}
    for group in stop_order(kinds):
        _end([living[name] for name in group], patience)
    return len(living)


def _living(status: Status) -> dict[str, Process]:
    present = {child.name: child.process for child in status.children if child.process and is_here(child.process)}
    return {name: process for name, process in present.items() if not is_gone(process)}


def tidy(state: Path) -> None:
    """Remove what only a living supervisor needs."""
    remove_status(state)
    for path in (state / FOLDER).glob(".desired_state.json.*"):
        path.unlink(missing_ok=True)


def own_status(state: Path) -> Status | None:
    """What the supervisor of this folder wrote last; None where that is another folder's, of which this is a copy.

    Raises:
        IntegrityError: the file is damaged.
    """
    status = read_status(state)
    if status is None:
        return None
    return status if _is_own(status, state) or find_supervisor(state) == status.supervisor.pid else None


def _is_own(status: Status, state: Path) -> bool:
    here = home_of(state)
    return status.home.is_folder(here) or status.home.is_moved(here)


def end_left_behind(state: Path) -> int:
    """End and tidy what a killed supervisor of this folder left; returns how many processes that were.

    The status of another folder is set aside where it lists living processes: it may be their only list.
    """
    own, status = own_status(state), read_status(state)
    count = end_leftovers(own)
    if own is None and status is not None and _living(status):
        set_status_aside(state)
    tidy(state)
    return count


def _end(processes: list[Process], patience: float) -> None:
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while (rest := [process for process in processes if not is_gone(process)]) and time.monotonic() < deadline:
        time.sleep(_CHECK_SECONDS)
    for process in rest:
        kill_group(process.pid)
    while rest and not all(map(is_gone, rest)):
        time.sleep(_CHECK_SECONDS)


def _lock(path: Path) -> int | None:
    """The descriptor of the locked file; None where another process holds it for longer than a check of it takes."""
    deadline = time.monotonic() + _GRACE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if try_lock(descriptor):
            with suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == path.stat().st_ino:
                    return descriptor
        elif time.monotonic() > deadline:
            os.close(descriptor)
            return None
        os.close(descriptor)
        time.sleep(_CHECK_SECONDS / 5)


def _holder(path: Path) -> int | None:
    try:
        return int(path.read_text() or "")
    except (OSError, ValueError):
        return None
