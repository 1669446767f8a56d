"""What the supervisor of a machine of `deploy: hosts://` does beside its processes.

It follows the desired state, keeps a copy of it, and reports.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError, LeaseHeldError
from cumulant.core.masking import fingerprint
from cumulant.flows.deployment.copy import renew_copy, send_rollbacks
from cumulant.flows.deployment.deployment import HostsDeployment, server_states
from cumulant.flows.deployment.events import HostChanged, HostRemoved
from cumulant.flows.deployment.follow import follow
from cumulant.flows.deployment.host_report import BEAT, HostReport, emit, remove_own_report, write_report
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.release.rollback import with_rollback
from cumulant.flows.serving.caller_tokens import tokens_fingerprint
from cumulant.flows.stack.desired_state import read_desired_state
from cumulant.flows.stack.stack_processes import SERVERS
from cumulant.flows.stack.status import read_status
from cumulant.flows.traffic.clients import traffic_of
from cumulant.ports.deploy import ServerState
from cumulant.project.host_name import host_name

if TYPE_CHECKING:
    from cumulant.flows.stack.desired_state import DesiredState
    from cumulant.ports.traffic import Traffic
    from cumulant.project.project import Project

#: seconds for which a machine that leaves waits until no request is sent to it any more
_LEAVE_SECONDS = 15.0
#: seconds to end a report that is under way and to remove it; what takes longer waits for the journal
_REPORT_SECONDS = 3.0
_CHECK_SECONDS = 0.2


class HostAgent:
    """Threads: one reports once a second; others copy servables, which may take minutes, and write events of what
    changed, which wait for other writers of the journal.
    """

    def __init__(self, project: Project, roles: Sequence[str], address: str, *, write: Callable[[str], object]) -> None:
        self._project, self._roles, self._address, self._write = project, tuple(roles), address, write
        self._deployment = HostsDeployment(project)
        self._salt = fingerprint(project.salt())
        self._ending = threading.Event()
        self._desired: DesiredState | None = None
        self._faults: tuple[str, ...] = ()
        #: the report's version as it was written last, and the first one since other machines removed it, if they did
        self._version = self._reports_since = 0
        #: the latter, and the machine, as they are and as they were at the last event
        self._present = self._emitted = (0, HostChanged(host=host_name(), roles=(), servers=()))
        #: whether `leave` could remove the report
        self.withdrawn = False
        works = [self.report, self._emit_changes, *([self._follow] if SERVERS in self._roles else [])]
        self._threads = [threading.Thread(target=self._repeat, args=(work,), daemon=True) for work in works]

    def start(self) -> None:
        """Report for the first time, and start the threads.

        Raises:
            LeaseHeldError: another machine reports by this one's name.
        """
        try:
            self.report()
        except LeaseHeldError:
            raise
        except CumulantError as error:
            self._write(f"waits: {self._project.vault.redact(error.message)}\n")
        for thread in self._threads:
            thread.start()

    def leave(self) -> str:
        """Report no more, and wait until no gateway sends requests to this machine, if another machine serves.

        It does not wait where the journal does not answer, and returns that the report could not be removed.
        """
        self._ending.set()
        removed, unrouted = threading.Event(), threading.Event()
        threading.Thread(target=self._withdraw, args=(removed, unrouted), daemon=True).start()
        self.withdrawn = removed.wait(_REPORT_SECONDS)
        if self.withdrawn:
            unrouted.wait(_LEAVE_SECONDS)
            return ""
        text = "the journal does not answer: other machines notice in some seconds that this one has ended"
        self._write(f"{text}\n")
        return text

    def _withdraw(self, removed: threading.Event, unrouted: threading.Event) -> None:
        """Remove the report, and wait until no route leads here. In a thread, since it may wait for the journal."""
        self._threads[0].join()
        try:
            own = remove_own_report(self._project.journal(), host_name(), this_process())
            removed.set()
            if own:
                self._threads[1].join()  # an event that it still writes would follow
                emit(self._project.journal(), HostRemoved(host=host_name(), lost=False))
            urls = {server.endpoint for server in self._servers()}
            traffic = traffic_of(self._project)
            while urls and self._has_others() and self._is_routed(traffic, urls):
                time.sleep(_CHECK_SECONDS)
        except CumulantError as error:
            self._write(f"this machine leaves without waiting: {self._project.vault.redact(error.message)}\n")
        finally:
            unrouted.set()

    def report(self) -> None:
        """Renew the copy of the desired state and this machine's row.

        Raises:
            CumulantError: the journal does not answer, or the state folder cannot be written.
        """
        send_rollbacks(self._project, self._deployment, with_rollback)
        self._desired = renew_copy(self._project, self._deployment)
        report = HostReport(
            host=host_name(),
            roles=self._roles,
            supervisor=this_process(),
            servers=tuple(self._servers()),
            desired=self._desired.edition,
            status=read_status(self._project.state),
            trouble="; ".join(self._faults),
            salt=self._salt,
            tokens=self._tokens(),
        )
        version = write_report(self._project.journal(), report, version=self._version)
        if version != self._version + 1:  # the machine was taken for lost, and an event says so
            self._reports_since = version
        self._version = version
        ready = tuple(f"{server.version} at {server.endpoint}" for server in report.servers if server.ready)
        present = HostChanged(host=report.host, roles=report.roles, servers=ready)
        self._present = (self._reports_since, present)

    def _emit_changes(self) -> None:
        present = self._present
        if present != self._emitted:
            emit(self._project.journal(), present[1])
            self._emitted = present

    def _tokens(self) -> str | None:
        if SERVERS not in self._roles:
            return None
        with suppress(CumulantError):  # the servers' own error says why
            return tokens_fingerprint(self._project)
        return None

    def _servers(self) -> list[ServerState]:
        if SERVERS not in self._roles:
            return []
        state = read_desired_state(self._project.state, self._project.name)
        return server_states(state.current(datetime.now(UTC)), read_status(self._project.state))

    def _follow(self) -> None:
        if self._desired is None:
            return
        before, self._faults = self._faults, follow(self._project, self._desired, self._address)
        for fault in self._faults if self._faults != before else ():
            self._write(f"{fault}\n")

    def _has_others(self) -> bool:
        return any(server.host != host_name() for server in self._deployment.present(self._project.name))

    def _is_routed(self, traffic: Traffic, urls: set[str]) -> bool:
        """Whether the routes in force lead to these servers, or a gateway may still work by earlier ones."""
        routes = traffic.in_force(self._project.name)
        if routes is None:
            return False
        return any(urls & set(arm.endpoints) for arm in routes.arms) or bool(traffic.lagging(self._project.name))

    def _repeat(self, work: Callable[[], None]) -> None:
        last = ""
        while not self._ending.is_set():
            try:
                work()
                last = ""
            except CumulantError as error:
                text = self._project.vault.redact(error.message)
                if text != last:
                    self._write(f"waits: {text}\n")
                last = text
            except Exception as error:  # noqa: BLE001 - the edge: what serves goes on, so this does too
                self._write(f"a fault, tried again: {type(error).__name__}: {error}\n")
            self._ending.wait(BEAT)
