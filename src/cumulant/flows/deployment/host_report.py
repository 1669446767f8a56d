"""What each machine of `deploy: hosts://` reports of itself: a row of the journal, renewed once a second.

It is a report of the journal, apart from its state, since the writers of state take turns: many machines that renew a
row under the project's lock would hold each other up. What changes of a machine is an event too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import msgspec

from cumulant.core.errors import CumulantError, IntegrityError, LeaseHeldError
from cumulant.core.events import Actor, Fact
from cumulant.flows.deployment.events import HostRemoved
from cumulant.flows.ledger.processes import Process, is_gone
from cumulant.flows.stack.event_reporting import EventQueue
from cumulant.flows.stack.status import Status
from cumulant.ports.deploy import ServerState
from cumulant.ports.journal import Journal, Row

SERVER_HOST = "server_host"
#: seconds between two reports, and seconds without one after which a machine counts as lost
BEAT, LAPSE = 1.0, 6.0
#: seconds between two readings above which an observer cannot tell how long a machine did not report meanwhile
_LONGEST_GAP = 3.0
_ACTOR = Actor("service:supervisor")

#: attempts to write a report that other processes write or remove meanwhile
_TRIES = 4

Content = TypeVar("Content", bound=msgspec.Struct)


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """One machine. `desired`: the edition of the desired state that it follows."""

    host: str
    roles: tuple[str, ...]
    supervisor: Process
    servers: tuple[ServerState, ...] = ()
    desired: int = 0
    #: the processes of the machine; None until the supervisor wrote them
    status: Status | None = None
    #: what keeps the machine from serving all that it should
    trouble: str = ""
    #: fingerprint of the machine's salt; empty where it is unknown
    salt: str = ""
    #: fingerprint of the tokens that its servers take of callers, empty without one; None where it is unknown
    tokens: str | None = None


def write_report(journal: Journal, report: HostReport, *, version: int = 0) -> int:
    """Write a machine's report, as `write_own_report`.

    Raises:
        LeaseHeldError: another machine, or another folder of this one, reports by its name: each would undo what the
            other reports.
        CumulantError: the journal does not take it.
    """
    return write_own_report(
        journal,
        SERVER_HOST,
        report.host,
        report,
        version=version,
        process=lambda content: content.supervisor,
        taken=name_taken_error,
    )


def write_own_report(
    journal: Journal,
    kind: str,
    key: str,
    report: Content,
    *,
    version: int,
    process: Callable[[Content], Process],
    taken: Callable[[Content], LeaseHeldError],
) -> int:
    """Write a report, which no other process has written that may still run; its row's new version.

    With the `version` that this process wrote last it takes one message to the journal, and waits for no other writer.

    Raises:
        LeaseHeldError: what `taken` makes of the report of another process.
        CumulantError: the journal does not take it.
    """
    value, attempts = msgspec.to_builtins(report), _TRIES
    while True:
        try:
            return journal.report(kind, key, value, expect=version).version
        except LeaseHeldError:
            attempts -= 1
            if not attempts:
                raise
        row = _find_report(journal, kind, key)  # it was removed, or the answer to the last write was lost
        other = readable_reports(filter(None, [row]), type(report)).get(key)
        if other is not None and process(other) != process(report) and not is_gone(process(other)):
            raise taken(other)
        version = row.version if row else 0


def _find_report(journal: Journal, kind: str, key: str) -> Row | None:
    return next((row for row in journal.reports(kind) if row.key == key), None)


def name_taken_error(other: HostReport) -> LeaseHeldError:
    return LeaseHeldError(
        f"{other.host} is the name of another machine or folder of this project, which runs as process"
        f" {other.supervisor.pid}",
        subject=other.host,
        hint="give each a name of its own with CUMULANT_HOST_NAME, or end the other with `cumulant down` there",
    )


def remove_own_report(journal: Journal, host: str, supervisor: Process) -> bool:
    """Remove the report of a machine, unless another supervisor has written it; as `remove_own_row`."""
    return remove_own_row(journal, SERVER_HOST, host, HostReport, lambda report: report.supervisor == supervisor)


def remove_own_row(
    journal: Journal, kind: str, key: str, content: type[Content], is_own: Callable[[Content], bool]
) -> bool:
    """Remove a report, unless a process whose own it is not has written it; whether it was removed.

    Raises:
        CumulantError: the journal does not answer.
    """
    row = _find_report(journal, kind, key)
    report = readable_reports(filter(None, [row]), content).get(key)
    return (
        row is not None
        and report is not None
        and is_own(report)
        and journal.remove_report(kind, key, expect=row.version)
    )


def read_reports(journal: Journal) -> list[HostReport]:
    """The reports of all machines. One of a machine that was lost a moment ago may be among them."""
    return list(readable_reports(journal.reports(SERVER_HOST), HostReport).values())


def readable_reports(rows: Iterable[Row], kind: type[Content]) -> dict[str, Content]:
    """Reports by machine, without those that this version of Cumulant cannot read: they delay no other machine."""
    reports = {}
    for row in rows:
        with suppress(msgspec.ValidationError):
            reports[row.key] = msgspec.convert(row.value, kind)
    return reports


def read_shared(row: Row, kind: type[Content]) -> Content:
    """The content of a row that all machines must read alike.

    Raises:
        IntegrityError: this version of Cumulant cannot read it.
    """
    try:
        return msgspec.convert(row.value, kind)
    except msgspec.ValidationError as error:
        raise IntegrityError(
            f"the row {row.kind}/{row.key} of the journal cannot be read: {error}",
            subject=f"{row.kind}/{row.key}",
            hint="another version of Cumulant wrote it: give every machine the same one",
        ) from None


class HostWatch:
    """Decides, by its own monotonic clock, which machines still report.

    Time in which the journal did not answer the observer counts for no machine: none could report in it.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic, *, lapse: float = LAPSE) -> None:
        self._steady, self._lapse = steady, lapse
        self._seen: dict[str, tuple[int, float]] = {}
        self._read: float | None = None

    def lost(self, versions: Mapping[str, int], supervisors: Mapping[str, Process]) -> list[str]:
        """Names of machines whose reports have stood still for too long, or whose supervisor is known to be gone.

        `versions`: the present version of each machine's row; `supervisors`: those of reports that can be read.
        """
        now = self._steady()
        gap = 0.0 if self._read is None else now - self._read
        unobserved = gap - BEAT if gap > _LONGEST_GAP else 0.0
        self._read = now
        seen = {}
        for host, version in versions.items():
            before = self._seen.get(host)
            seen[host] = (version, now) if before is None or before[0] != version else (version, before[1] + unobserved)
        self._seen = seen
        gone = {host for host, supervisor in supervisors.items() if is_gone(supervisor)}
        return [host for host, (_, since) in seen.items() if now - since > self._lapse or host in gone]


def forget_lost_hosts(journal: Journal, watch: HostWatch) -> Iterator[str]:
    """Remove the reports of lost machines; the name of each once it is removed. Call it about once a second.

    Raises:
        CumulantError: the journal does not answer.
    """
    rows = {row.key: row for row in journal.reports(SERVER_HOST)}
    supervisors = {host: report.supervisor for host, report in readable_reports(rows.values(), HostReport).items()}
    lost = watch.lost({host: row.version for host, row in rows.items()}, supervisors)
    for host in lost:
        if journal.remove_report(SERVER_HOST, host, expect=rows[host].version):
            yield host


def emit(journal: Journal, fact: Fact) -> None:
    """Report what changed of the machines.

    Raises:
        CumulantError: the journal does not answer.
    """
    with journal.transaction(actor=_ACTOR) as transaction:
        transaction.emit(fact)


def _emit_lost(journal: Journal, removed: HostRemoved) -> None:
    """Report that a lost machine was removed, unless it reports again by now: its last event would be its removal. The
    event of one that reports later waits for this transaction.
    """
    with journal.transaction(actor=_ACTOR) as transaction:
        if _find_report(journal, SERVER_HOST, removed.host) is None:
            transaction.emit(removed)


@contextmanager
def watch_hosts(journal: Journal, report: Callable[[str], object]) -> Iterator[None]:
    """Remove the reports of lost machines from a thread while the block runs: their servers then leave the routes. The
    events of it wait for other writers of the journal in another thread.
    """
    ending, watch = threading.Event(), HostWatch()
    events = EventQueue[HostRemoved](lambda removed: _emit_lost(journal, removed), pause=BEAT)

    def work() -> None:
        while not ending.wait(BEAT):
            with suppress(CumulantError):  # a journal that does not answer: the next time
                for host in forget_lost_hosts(journal, watch):
                    report(
                        f"{host} counts as lost until it reports again: its supervisor has ended, or has not reported"
                        f" for {LAPSE:g} s; the routes change to servers of other machines, if there are any by then"
                    )
                    events.put(HostRemoved(host=host, lost=True))

    thread = threading.Thread(target=work, name="cumulant-hosts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(BEAT)
        events.close(patience=BEAT)


def servers_of(reports: Sequence[HostReport]) -> list[ServerState]:
    return [server for report in reports for server in report.servers]
