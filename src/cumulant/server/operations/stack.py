"""The processes that serve a project, and its service level objectives."""

from __future__ import annotations

from typing import Literal

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.flows.deployment.host_lifecycle import list_hosts, missing_champion_text
from cumulant.flows.deployment.host_report import HostReport
from cumulant.flows.observe.slo import SloView, objective_rules, show_objectives
from cumulant.flows.stack.lifecycle import ps, traffic_shares
from cumulant.flows.stack.status import Status
from cumulant.server.operation import ApiCall, get


@get("/stack", action="stack.show")
def show(call: ApiCall) -> Status | None:
    """Show the processes that serve the project on the server's machine; null where none do."""
    return ps(call.project, principal=call.principal)


class StackDetail(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: processes of the server's machine; `shares`: of the requests, by version; `hosts`: machines of
    `deploy: hosts://`, `hosts_unknown`: why they are not known; `missing`: why no machine serves the champion.
    """

    status: Status | None
    shares: dict[str, float]
    hosts: list[HostReport]
    hosts_unknown: str = ""
    missing: str = ""


@get("/stack/detail", action="stack.show")
def detail(call: ApiCall) -> StackDetail:
    """Show the processes with their shares of the requests, and the machines that serve."""
    status = ps(call.project, principal=call.principal)
    hosts, unread, missing = [], "", ""
    try:
        hosts = list_hosts(call.project, principal=call.principal)
        missing = missing_champion_text(call.project, principal=call.principal) if hosts else ""
    except CumulantError as error:
        if status is None:
            raise
        unread = error.message  # what runs on this machine is known without the journal
    shares = {} if status is None else traffic_shares(call.project)
    return StackDetail(status=status, shares=shares, hosts=hosts, hosts_unknown=unread, missing=missing)


@get("/objectives", action="stack.show")
def objectives(call: ApiCall) -> SloView:
    """Show the service level objectives with their budgets and burn rates."""
    requests = None if call.memory is None else call.memory.requests
    return show_objectives(call.project, principal=call.principal, requests=requests)


class RulesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`source`: whose counters; `selector`: narrows the series that are read, such as `environment="prod"`."""

    source: Literal["gateway", "servers"] = "gateway"
    selector: str = ""


class RuleFile(msgspec.Struct, frozen=True):
    """A rule file for Prometheus."""

    rules: str


@get("/objectives/rules", action="stack.show")
def rules(call: ApiCall, query: RulesQuery) -> RuleFile:
    """Show the rule file for Prometheus: burn rates, budget and alerts of the objectives."""
    return RuleFile(
        objective_rules(call.project, principal=call.principal, source=query.source, selector=query.selector)
    )


OPERATIONS = (show, detail, objectives, rules)
