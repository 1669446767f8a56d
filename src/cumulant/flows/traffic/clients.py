"""The clients of traffic and exchanges that an environment names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.flows.deployment.deployment import is_shared
from cumulant.flows.traffic.exchange_log import LoggedExchanges
from cumulant.flows.traffic.rows import list_reports
from cumulant.flows.traffic.shared_traffic import SharedTraffic, url_of

if TYPE_CHECKING:
    from cumulant.ports.traffic import ExchangeSource, Traffic
    from cumulant.project.project import Project


def traffic_of(project: Project) -> Traffic:
    """The routes of all gateways of the environment: of this machine's own, or of the journal's."""
    return SharedTraffic(project.journal()) if is_shared(project) else project.gateway()


def exchanges_of(project: Project) -> ExchangeSource:
    """The requests that the gateways of the environment answered."""
    return LoggedExchanges(project.log("exchanges")) if is_shared(project) else project.gateway()


def gateway_url(project: Project) -> str | None:
    """Where callers reach a gateway of the environment; None where none runs."""
    if is_shared(project):
        return url_of(list_reports(project.journal()))
    address = project.gateway().address()
    return None if address is None else address.url
