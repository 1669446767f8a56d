"""The port `traffic` for gateways of several machines: routes are a row of the journal that each gateway follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from cumulant.core.errors import EngineUnavailableError, LeaseHeldError
from cumulant.core.traffic import Routes
from cumulant.flows.traffic.rows import ACTOR, GatewayReport, GatewayWatch, list_reports, put_routes, read_routes
from cumulant.ports.journal import Journal, Transaction
from cumulant.ports.traffic import EndpointHealth

#: seconds within which a gateway that reports must take a change: more than a lost one is waited for
_PATIENCE = 45.0
_WAIT = 0.25


class SharedTraffic:
    """Clients in several processes are independent of each other; threads may not share one."""

    def __init__(self, journal: Journal, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._journal, self._steady = journal, steady
        self._watch = GatewayWatch(journal, steady)

    def apply(self, routes: Routes) -> None:
        """As the port. A gateway that is lost is waited for until its report lapses; one that is not ready, not."""
        routes.limits.check()
        with self._journal.transaction(actor=ACTOR) as transaction:
            _write(transaction, routes, list_reports(self._journal))
        deadline = self._steady() + _PATIENCE
        while True:
            seen = self._journal.head().seq
            lagging = self._lagging(routes)
            if not lagging:
                return
            if self._steady() > deadline:
                raise EngineUnavailableError(
                    f"the gateway of {', '.join(lagging)} does not have revision {routes.revision} of the routes of"
                    f" {routes.model} after {_PATIENCE:g} s",
                    subject=routes.model,
                    hint="the log of the gateway's agent on that machine says why",
                )
            self._journal.wait(seen, _WAIT)

    def lagging(self, model: str) -> Sequence[str]:
        routes = read_routes(self._journal, model).routes
        return [] if routes is None else self._lagging(routes)

    def _lagging(self, routes: Routes) -> list[str]:
        """Machines whose ready gateway does not work by these routes, or by later ones.

        Raises:
            EngineUnavailableError: a gateway refuses them.
        """
        behind = []
        for report in self._watch.present():
            refusal = report.refused.get(routes.model)
            if refusal is not None and refusal.revision == routes.revision:
                raise EngineUnavailableError(
                    f"the gateway of {report.host} refuses revision {routes.revision} of the routes of {routes.model}:"
                    f" {refusal.reason}",
                    subject=routes.model,
                )
            applied = report.routes.get(routes.model)
            if report.ready and (applied is None or applied.revision < routes.revision):
                behind.append(report.host)
        return behind

    def in_force(self, model: str) -> Routes | None:
        return read_routes(self._journal, model).routes

    def health(self, model: str) -> Sequence[EndpointHealth]:
        """A server is ready if a gateway finds it ready; its requests under way are those of all gateways."""
        servers: dict[tuple[str, str], EndpointHealth] = {}
        for report in self._watch.present():
            for server in report.health.get(model, ()):
                known = servers.get((server.arm, server.url))
                servers[server.arm, server.url] = server if known is None else _joined(known, server)
        return list(servers.values())

    def active(self, model: str, arm: str) -> int:
        return sum(report.active.get(model, {}).get(arm, 0) for report in self._watch.present())

    def close(self) -> None:
        """Does nothing: the journal is its owner's."""


def _write(transaction: Transaction, routes: Routes, reports: Sequence[GatewayReport]) -> None:
    """Put these routes in force, unless others of the same or a higher revision are.

    A gateway may work by later ones than the row: those of a rollback that could not reach the journal.
    """
    stored = read_routes(transaction, routes.model)
    applied = [report.routes.get(routes.model) for report in reports]
    for present in (stored.routes, *applied):
        if present is not None and not present.gives_way_to(routes):
            raise LeaseHeldError(
                f"routes of {routes.model} in force have revision {present.revision}, not below {routes.revision}",
                subject=routes.model,
            )
    if stored.routes != routes:
        put_routes(transaction, routes, expect=stored.version)


def _joined(known: EndpointHealth, other: EndpointHealth) -> EndpointHealth:
    return msgspec.structs.replace(
        known,
        ready=known.ready or other.ready,
        ejected=known.ejected and other.ejected,
        active=known.active + other.active,
    )


def url_of(reports: Sequence[GatewayReport]) -> str | None:
    """Where callers reach a ready gateway; None where there is none."""
    return next((report.url for report in reports if report.ready and report.url), None)
