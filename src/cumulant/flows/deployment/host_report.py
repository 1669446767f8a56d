"""What each machine of `deploy: hosts://` reports of itself: a row of the journal, renewed once a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import msgspec

from cumulant.core.errors import CumulantError, IntegrityError, LeaseHeldError
from cumulant.core.events import Actor
from cumulant.flows.ledger.processes import Process, is_gone
from cumulant.flows.stack.status import Status
from cumulant.ports.deploy import ServerState
from cumulant.ports.journal import Journal, Row, Transaction

SERVER_HOST = "server_host"
#: seconds between two reports, and seconds without one after which a machine counts as lost
BEAT, LAPSE = 1.0, 6.0
#: seconds between two readings above which an observer cannot tell how long a machine did not report meanwhile
_LONGEST_GAP = 3.0
_ACTOR = Actor("service:supervisor")

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


def write_report(journal: Journal, report: HostReport) -> None:
    """Write a machine's report, which no other supervisor has written that may still run.

    Raises:
        LeaseHeldError: another machine, or another folder of this one, reports by its name: each would undo what the
            other reports.
        CumulantError: the journal does not take it.
    """
    with journal.transaction(actor=_ACTOR) as transaction:
        other = readable_report(transaction, SERVER_HOST, report.host, HostReport)
        if other is not None and other.supervisor != report.supervisor and not is_gone(other.supervisor):
            raise name_taken_error(other)
        transaction.put(SERVER_HOST, report.host, msgspec.to_builtins(report))


def name_taken_error(other: HostReport) -> LeaseHeldError:
    return LeaseHeldError(
        f"{other.host} is the name of another machine or folder of this project, which runs as process"
        f" {other.supervisor.pid}",
        subject=other.host,
        hint="give each a name of its own with CUMULANT_HOST_NAME, or end the other with `cumulant down` there",
    )


def remove_report(journal: Journal, host: str, *, version: int | None = None) -> None:
    """Remove a machine's report; as `remove_row`."""
    remove_row(journal, SERVER_HOST, host, actor=_ACTOR, version=version)


def remove_own_report(journal: Journal, host: str, supervisor: Process) -> None:
    """Remove the report of a machine, unless another supervisor has written it; as `remove_own_row`."""
    remove_own_row(journal, SERVER_HOST, host, HostReport, lambda report: report.supervisor == supervisor, actor=_ACTOR)


def remove_own_row(
    journal: Journal, kind: str, key: str, content: type[Content], is_own: Callable[[Content], bool], *, actor: Actor
) -> None:
    """Remove a row, unless a process whose own it is not has written it.

    Raises:
        CumulantError: the journal does not answer.
    """
    with journal.transaction(actor=actor) as transaction:
        report = readable_report(transaction, kind, key, content)
        if report is not None and is_own(report):
            transaction.delete(kind, key)


def remove_row(journal: Journal, kind: str, key: str, *, actor: Actor, version: int | None) -> None:
    """Remove a row, unless it was renewed since it had `version`.

    Raises:
        CumulantError: the journal does not answer.
    """
    with journal.transaction(actor=actor) as transaction:
        row = transaction.get(kind, key)
        if row is not None and version in (None, row.version):
            transaction.delete(kind, key)


def read_reports(journal: Journal) -> list[HostReport]:
    """The reports of all machines. One of a machine that was lost a moment ago may be among them."""
    return list(readable_reports(journal.rows(SERVER_HOST), HostReport).values())


def readable_reports(rows: Iterable[Row], kind: type[Content]) -> dict[str, Content]:
    """Reports by machine, without those that this version of Cumulant cannot read: they delay no other machine."""
    reports = {}
    for row in rows:
        with suppress(msgspec.ValidationError):
            reports[row.key] = msgspec.convert(row.value, kind)
    return reports


def readable_report(transaction: Transaction, kind: str, key: str, content: type[Content]) -> Content | None:
    """The report under this key; None where there is none, or none that this version of Cumulant can read."""
    return readable_reports(filter(None, [transaction.get(kind, key)]), content).get(key)


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


def forget_lost_hosts(journal: Journal, watch: HostWatch) -> list[str]:
    """Remove the reports of lost machines; their names. Call it about once a second.

    Raises:
        CumulantError: the journal does not answer.
    """
    rows = {row.key: row for row in journal.rows(SERVER_HOST)}
    supervisors = {host: report.supervisor for host, report in readable_reports(rows.values(), HostReport).items()}
    lost = watch.lost({host: row.version for host, row in rows.items()}, supervisors)
    for host in lost:
        remove_report(journal, host, version=rows[host].version)
    return lost


@contextmanager
def watch_hosts(journal: Journal, report: Callable[[str], object]) -> Iterator[None]:
    """Remove the reports of lost machines from a thread while the block runs: their servers then leave the routes."""
    ending, watch = threading.Event(), HostWatch()

    def work() -> None:
        while not ending.wait(BEAT):
            with suppress(CumulantError):  # a journal that does not answer: the next time
                for host in forget_lost_hosts(journal, watch):
                    report(
                        f"{host} counts as lost until it reports again: its supervisor has ended, or has not reported"
                        f" for {LAPSE:g} s; the routes change to servers of other machines, if there are any by then"
                    )

    thread = threading.Thread(target=work, name="cumulant-hosts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(BEAT)


def servers_of(reports: Sequence[HostReport]) -> list[ServerState]:
    return [server for report in reports for server in report.servers]
