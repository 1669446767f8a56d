"""The supervisor's status of its processes, in a file that is replaced atomically."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from cumulant.core.errors import IntegrityError
from cumulant.core.system.atomic_files import replace_file
from cumulant.flows.ledger.processes import Process, is_gone
from cumulant.flows.stack.desired_state import FOLDER
from cumulant.flows.stack.identity import Home
from cumulant.flows.stack.reconcile import Kind

STATUS = "status.json"
#: seconds after which a living supervisor, which writes each second, cannot write
STALE = 10.0
State = Literal["starting", "ready", "not ready", "waiting", "draining", "stopping", "ended"]


class ChildStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process. `waiting`: it has ended and is started again after a delay; `ended`: it is not."""

    name: str
    kind: Kind
    version: str | None = None
    state: State
    #: None while it does not run
    process: Process | None = None
    url: str | None = None
    ready: bool
    #: in the last minute
    restarts: int
    #: None while it is ready
    not_ready_since: datetime | None
    #: when it was started
    since: datetime | None
    #: the last line of its log
    message: str = ""
    #: what it cannot do though it is ready
    trouble: str = ""

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pid

    @property
    def silence(self) -> str:
        """Since when one that should be ready is not, as `since 2026-11-24 10:05 UTC`; else empty."""
        if self.state != "not ready" or self.not_ready_since is None:
            return ""
        return f"since {self.not_ready_since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All processes of a supervisor, as they were at `at`."""

    model: str
    environment: str
    #: what this machine does of `deploy: hosts://`; empty: everything is on this machine
    roles: tuple[str, ...] = ()
    supervisor: Process
    since: datetime
    at: datetime
    #: where callers reach the gateway; None while it does not answer
    url: str | None
    children: tuple[ChildStatus, ...] = ()
    #: what keeps the supervisor from doing all that it should
    trouble: str = ""
    #: the state folder that the supervisor works in; a copy of it holds a status that is not its own
    home: Home

    @property
    def running(self) -> bool:
        return not is_gone(self.supervisor)

    @property
    def faulty(self) -> list[ChildStatus]:
        """The processes that should be ready and are not, or that cannot do all that they should."""
        passing = ("starting", "draining", "stopping")
        return [child for child in self.children if child.state not in passing and (child.trouble or not child.ready)]

    def server(self, version: str) -> ChildStatus | None:
        return next((child for child in self.children if child.version == version), None)


def without_ended_processes(status: Status, now: datetime | None = None) -> Status:
    """The status without the processes that have ended since: the supervisor was killed, or cannot write."""
    silent = ((now or datetime.now(UTC)) - status.at).total_seconds()
    if status.running and silent < STALE:
        return status
    if status.running:
        text = f"the supervisor could not write this for {silent:.0f} s: see `cumulant doctor`, the disk may be full"
        status = msgspec.structs.replace(status, trouble="; ".join(filter(None, (text, status.trouble))))
    # A living supervisor restarts what ends, though it cannot write so.
    state: State = "waiting" if status.running else "ended"
    children = [
        msgspec.structs.replace(child, state=state, process=None, since=None, ready=False)
        if child.process is None or is_gone(child.process)
        else child
        for child in status.children
    ]
    return msgspec.structs.replace(status, children=tuple(children))


def read_status(state: Path) -> Status | None:
    """The last status in a project's state folder; None if it has none.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = state / FOLDER / STATUS
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise IntegrityError(
            f"{path} cannot be read: {error}",
            subject=str(path),
            hint="end the processes that it named by hand (`ps`), then `cumulant up --repair` sets it aside",
        ) from None


def write_status(state: Path, status: Status) -> None:
    """Raises OSError where the disk does not take it."""
    path = state / FOLDER / STATUS
    replace_file(path, msgspec.json.encode(status), durable=False)


def set_status_aside(state: Path) -> None:
    """Rename the status, so that the next supervisor's does not replace it."""
    path = state / FOLDER / STATUS
    path.rename(path.with_name(f"{STATUS}.other-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"))


def remove_status(state: Path) -> None:
    for path in (state / FOLDER).glob(f".{STATUS}.*"):
        path.unlink(missing_ok=True)
    (state / FOLDER / STATUS).unlink(missing_ok=True)
