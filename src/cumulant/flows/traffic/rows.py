"""Rows of the journal: the routes of each model, and what each machine's gateway reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import Actor
from cumulant.core.traffic import Routes
from cumulant.flows.deployment.host_report import (
    HostWatch,
    read_shared,
    readable_reports,
    remove_own_row,
    write_own_report,
)
from cumulant.flows.ledger.processes import Process
from cumulant.flows.traffic.events import RoutesChanged
from cumulant.ports.journal import Journal, Row, Transaction
from cumulant.ports.traffic import EndpointHealth

ROUTES, GATEWAY = "routes", "gateway"
#: seconds between two reports of a gateway; without one it turns unready, and later counts as lost
BEAT, SILENT, LAPSE = 1.0, 10.0, 15.0
ACTOR = Actor("service:gateway")


class Refusal(msgspec.Struct, frozen=True):
    """A gateway does not take the routes of a revision."""

    revision: int
    reason: str


class GatewayReport(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway of one machine. `ready`: it runs, and works by every model's routes, where there are any.

    Attributes:
        agent: the process beside the gateway that reports.
        url: where callers reach it; None while it does not run.
        routes: by model, what it works by.
        health: of the servers of these routes.
        active: requests under way, by model and arm.
        refused: by model, the revision that it does not take.
    """

    host: str
    agent: Process
    url: str | None = None
    ready: bool = False
    routes: dict[str, Routes] = {}
    health: dict[str, tuple[EndpointHealth, ...]] = {}
    active: dict[str, dict[str, int]] = {}
    refused: dict[str, Refusal] = {}


class StoredRoutes(NamedTuple):
    """The routes of a model, and the version of their row (0: there is none)."""

    routes: Routes | None
    version: int


def read_routes(source: Journal | Transaction, model: str) -> StoredRoutes:
    row = source.get(ROUTES, model)
    return StoredRoutes(None, 0) if row is None else _stored(row)


def list_routes(journal: Journal) -> dict[str, StoredRoutes]:
    """By model."""
    return {row.key: _stored(row) for row in journal.rows(ROUTES)}


def put_routes(transaction: Transaction, routes: Routes, *, expect: int, host: str = "") -> None:
    """Write the row, and the event that wakes the gateways.

    Raises:
        LeaseHeldError: another process wrote the row since it had the version `expect`.
    """
    transaction.put(ROUTES, routes.model, msgspec.to_builtins(routes), expect=expect)
    transaction.emit(
        RoutesChanged(
            model=routes.model,
            revision=routes.revision,
            champion=routes.champion.version,
            candidate=None if routes.candidate is None else routes.candidate.version,
            weight=routes.weight,
            mirror=routes.mirror,
            host=host,
        )
    )


def _stored(row: Row) -> StoredRoutes:
    return StoredRoutes(read_shared(row, Routes), row.version)


def list_reports(journal: Journal) -> list[GatewayReport]:
    """The reports of all gateways. One of a machine that was lost a moment ago may be among them."""
    return list(readable_reports(journal.reports(GATEWAY), GatewayReport).values())


def put_report(journal: Journal, report: GatewayReport, *, version: int = 0) -> int:
    """Write a gateway's report, unless another agent that may still run has written it; as `write_own_report`.

    Raises:
        LeaseHeldError: another one has the name: each would hide that the other's gateway lags.
    """
    return write_own_report(
        journal,
        GATEWAY,
        report.host,
        report,
        version=version,
        process=lambda content: content.agent,
        taken=_name_taken_error,
    )


def _name_taken_error(other: GatewayReport) -> LeaseHeldError:
    return LeaseHeldError(
        f"another machine or folder reported a gateway by the name {other.host} less than {LAPSE:g} s ago",
        subject=other.host,
        hint="give each a name of its own with CUMULANT_HOST_NAME, or end the other with `cumulant down` there",
    )


def remove_own_report(journal: Journal, host: str, agent: Process) -> None:
    """Remove a gateway's report, unless another agent has written it; as `remove_own_row`."""
    remove_own_row(journal, GATEWAY, host, GatewayReport, lambda report: report.agent == agent)


class GatewayWatch:
    """The gateways that still report, by one observer's own monotonic clock; threads may not share it."""

    def __init__(self, journal: Journal, steady: Callable[[], float] = time.monotonic) -> None:
        self._journal = journal
        self._watch = HostWatch(steady, lapse=LAPSE)

    def present(self) -> Sequence[GatewayReport]:
        """Their reports. That of a lost one is removed: its agent writes it again if it is back.

        Raises:
            CumulantError: the journal does not answer.
        """
        rows = {row.key: row for row in self._journal.reports(GATEWAY)}
        reports = readable_reports(rows.values(), GatewayReport)
        versions = {host: row.version for host, row in rows.items()}
        lost = self._watch.lost(versions, {host: report.agent for host, report in reports.items()})
        for host in lost:
            self._journal.remove_report(GATEWAY, host, expect=versions[host])
        return [report for host, report in reports.items() if host not in lost]
