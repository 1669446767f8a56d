"""The processes of a stack as a table for a terminal, and as a document for `--json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cumulant.flows.deployment.host_report import HostReport
    from cumulant.flows.stack.status import ChildStatus, Status

_COLUMNS = ("process", "state", "pid", "address", "up for", "restarts", "last words")
_SILENT_SECONDS = 30.0
_STYLES = {"ready": "green", "waiting": "red", "not ready": "red", "ended": "red", "starting": "yellow"}


def document(status: Status | None) -> dict[str, Any]:
    """The document of `--json`; `running`: whether the supervisor lives."""
    if status is None:
        return {"running": False, "processes": []}
    return {
        "running": status.running,
        "model": status.model,
        "environment": status.environment,
        "url": status.url,
        "supervisor": status.supervisor.pid,
        "since": status.since,
        "at": status.at,
        "trouble": status.trouble or None,
        "processes": [_row(child) for child in status.children],
    }


def table(status: Status) -> RenderableType:
    """The processes, one a line."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from cumulant.flows.reports.terminal import clean

    grid = Table(box=None, pad_edge=False, header_style="dim")
    for name in _COLUMNS:
        grid.add_column(name, overflow="fold" if name == "last words" else "ellipsis")
    for child in status.children:
        state = Text(child.state, style=_STYLES.get(child.state, ""))
        age = "" if child.since is None else span((datetime.now(UTC) - child.since).total_seconds())
        restarts = str(child.restarts) if child.restarts else ""
        message = ": ".join(filter(None, (child.silence, child.message)))
        grid.add_row(
            clean(child.name),
            state,
            str(child.pid or ""),
            address(status, child),
            age,
            restarts,
            Text(clean(child.trouble), style="red") if child.trouble else Text(clean(message)),
        )
    processes = grid if status.children else Text("no process runs here yet", style="dim")
    parts: list[RenderableType] = [Text(clean(heading(status)), style="bold"), processes]
    if status.trouble:
        parts.append(Text(clean(status.trouble), style="red"))
    return Group(*parts)


def hosts_table(hosts: Sequence[HostReport]) -> RenderableType:
    """The machines of `deploy: hosts://`, one a line."""
    from rich.table import Table
    from rich.text import Text

    from cumulant.flows.reports.terminal import clean

    grid = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("machine", "roles", "serves", "trouble"):
        grid.add_column(name, overflow="fold")
    for report in hosts:
        served = [f"{server.version}{'' if server.ready else ' (not ready)'}" for server in report.servers]
        trouble = Text(
            clean("; ".join(filter(None, [*_troubles(report), silence(report, datetime.now(UTC))]))), style="red"
        )
        grid.add_row(clean(report.host), ", ".join(report.roles), ", ".join(served), trouble)
    return grid


def host_documents(hosts: Sequence[HostReport]) -> list[dict[str, Any]]:
    """The machines for `--json`."""
    return [
        {
            "host": report.host,
            "roles": report.roles,
            "trouble": "; ".join(_troubles(report)) or None,
            "at": None if report.status is None else report.status.at,
            "servers": [
                {"version": server.version, "url": server.endpoint, "ready": server.ready, "restarts": server.restarts}
                for server in report.servers
            ],
            "processes": [] if report.status is None else [_row(child) for child in report.status.children],
        }
        for report in hosts
    ]


def _troubles(report: HostReport) -> list[str]:
    """What a machine and its processes cannot do, each once: its servers use the same stores."""
    children = () if report.status is None else report.status.children
    return [text for text in dict.fromkeys([report.trouble, *(child.trouble for child in children)]) if text]


def silence(report: HostReport, now: datetime) -> str:
    """For how long a machine has not reported, by its own clock; empty for as long as clocks may differ.

    A controller removes the reports of lost machines; where none runs, they stay.
    """
    if report.status is None or (now - report.status.at).total_seconds() < _SILENT_SECONDS:
        return ""
    return f"no report for {span((now - report.status.at).total_seconds())}"


def shares_text(shares: Mapping[str, float]) -> str:
    """Which version answers which share of the requests."""
    named = [f"version {version} answers {100 * share:.4g}%" for version, share in shares.items()]
    return f"{', '.join(named)} of the requests"


def unserved_text(shares: Mapping[str, float], hosts: Sequence[HostReport]) -> str:
    """Which versions get requests that no machine can answer; empty where there are none.

    Servers that are not ours, whose version is their URL, are not judged.
    """
    ready = {server.version for report in hosts for server in report.servers if server.ready}
    late = [version for version, share in shares.items() if share > 0 and version not in ready and "://" not in version]
    if not late:
        return ""
    return (
        f"no machine has a server of version {', '.join(late)} that is ready:"
        " `cumulant up --role servers` on a machine starts one"
    )


def heading(status: Status) -> str:
    """One line on the whole."""
    if not status.running:
        return f"the supervisor of {status.model} was killed: `cumulant down` tidies up, `cumulant up` starts again"
    if status.roles and "gateway" not in status.roles:
        return f"{status.model}: {', '.join(status.roles)} on this machine"
    if status.url is None:
        return f"{status.model}: the gateway does not answer yet"
    return f"{status.model} at {status.url}"


def address(status: Status, child: ChildStatus) -> str:
    return (status.url or "") if child.kind == "gateway" else (child.url or "")


def span(seconds: float) -> str:
    """`12 s`, `5 min`, `3 h`, `2 d`."""
    for most, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < most:
            return f"{max(seconds, 0) // size:.0f} {unit}"
    return f"{seconds // 86_400:.0f} d"


def _row(child: ChildStatus) -> dict[str, Any]:
    return {
        "name": child.name,
        "kind": child.kind,
        "version": child.version,
        "state": child.state,
        "pid": child.pid,
        "url": child.url,
        "ready": child.ready,
        "restarts": child.restarts,
        "not_ready_since": child.not_ready_since,
        "since": child.since,
        "says": child.message,
        "trouble": child.trouble or None,
    }
