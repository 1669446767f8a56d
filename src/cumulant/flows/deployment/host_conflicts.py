"""What keeps a machine from joining the others of `deploy: hosts://`: one that has its name, or another salt."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from cumulant.core.errors import UsageError
from cumulant.flows.deployment.host_report import BEAT, LAPSE, SERVER_HOST, HostReport, name_taken_error
from cumulant.flows.ledger.processes import is_gone, is_here
from cumulant.ports.journal import Journal, Row
from cumulant.project.host_name import host_name


def check_conflicts(journal: Journal, salt: str, *, within: float = LAPSE) -> None:
    """Refuse this machine where one that runs has its name, or another salt than the one whose fingerprint is `salt`.
    One that has not reported `within` so many seconds does not run.

    The report of one that had the name and no longer runs is removed. Of two machines that start at once, the second to
    report is refused by `write_report`.

    Raises:
        LeaseHeldError: another machine, or another folder of this one, has the name: each would undo what the other
            reports.
        UsageError: the salts differ: servers would not believe what the gateways say of requests.
        CumulantError: the journal does not answer.
    """
    rows = {row.key: row for row in journal.reports(SERVER_HOST)}
    reports = {host: report for host, row in rows.items() if (report := _read(row)) is not None}
    doubtful = {
        host for host, report in reports.items() if host == host_name() or (report.salt and report.salt != salt)
    }
    running = _running(journal, {host: (rows[host], reports[host]) for host in doubtful}, within)
    if host_name() in running:
        raise name_taken_error(reports[host_name()])
    if running:
        raise UsageError(
            f"the salt of this machine differs from that of {', '.join(sorted(running))}",
            subject="salt",
            hint="give every machine the same secret; to change it, end all of them with `cumulant down` first",
        )
    if host_name() in reports:
        journal.remove_report(SERVER_HOST, host_name(), expect=rows[host_name()].version)


def _running(journal: Journal, doubtful: Mapping[str, tuple[Row, HostReport]], within: float) -> set[str]:
    """Which of these machines run: their process is here, or they report anew."""
    running = {host for host, (_, report) in doubtful.items() if is_here(report.supervisor)}
    running -= {host for host in running if is_gone(doubtful[host][1].supervisor)}
    unknown = {host: row for host, (row, report) in doubtful.items() if not is_here(report.supervisor)}
    deadline = time.monotonic() + within
    while unknown and not running:
        present = {row.key: row.version for row in journal.reports(SERVER_HOST)}
        running |= {host for host, row in unknown.items() if present.get(host, row.version) != row.version}
        if time.monotonic() > deadline:
            break
        time.sleep(BEAT / 4)
    return running


def _read(row: Row) -> HostReport | None:
    """None for a report of another form, by another version of Cumulant."""
    try:
        return msgspec.convert(row.value, HostReport)
    except msgspec.ValidationError:
        return None
