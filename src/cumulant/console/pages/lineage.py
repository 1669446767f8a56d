"""Lineage of a project: what was made of what, around one snapshot, table, run, version or release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.console.lineage_chart import TITLES, NodeGroup, grouped, lineage_chart, node_text
from cumulant.console.page_request import Crumb, Nav, PageRequest, PageRoute
from cumulant.core.errors import UsageError, not_found
from cumulant.flows.registry.lineage_graph import KINDS, LineageGraph, LineageNode, lineage_graph, near

if TYPE_CHECKING:
    from starlette.responses import Response

_ACTION = "lineage.show"
_HOPS = 2


def lineage(page: PageRequest) -> Response:
    graph = lineage_graph(page.project, principal=page.principal)
    focus = page.query("focus") or _newest(graph)
    whole = page.query("all")
    if whole and whole not in KINDS:
        raise UsageError("that is no kind of the graph", subject="all", hint=", ".join(KINDS))
    if graph.nodes and focus not in graph.nodes:
        raise not_found("node of the lineage", focus[:80], graph.nodes)
    shown = near(graph, focus, hops=_HOPS)
    columns = grouped(shown, focus, whole=whole or None)

    def href(node: LineageNode | NodeGroup) -> str:
        if isinstance(node, NodeGroup):
            return page.href("lineage", focus=focus, all=node.kind)
        return page.href("lineage", focus=node.key)

    return page.page(
        "lineage.html.jinja",
        title=f"Lineage of {page.project.name}",
        crumbs=[Crumb(page.project.name, page.href()), Crumb("Lineage")],
        live=page.may("events.show"),
        chart=lineage_chart(shown, focus, columns, href) if shown.nodes else None,
        nodes=[
            (TITLES[node.kind], node_text(node), node.id, _own_page(page, node), href(node), node.key == focus)
            for kind in KINDS
            for node in shown.nodes.values()
            if node.kind == kind
        ],
        focus=graph.nodes.get(focus),
        total=len(graph.nodes),
    )


def _newest(graph: LineageGraph) -> str:
    """The newest version that was made here; without one the newest version, or whatever is there."""
    made_here = {target for _, target in graph.edges}
    versions = [key for key, node in graph.nodes.items() if node.kind == "version"]
    keys = [key for key in versions if key in made_here] or versions or list(graph.nodes)
    return keys[-1] if keys else ""


def _own_page(page: PageRequest, node: LineageNode) -> str:
    if node.kind == "snapshot":
        return page.href("data", node.name)
    if node.kind == "version":
        is_registered = node.version.isdecimal()
        return page.href("models", node.name, node.version) if is_registered else page.href("releases")
    if node.kind == "table":
        return page.href("features")
    return page.href("runs" if node.kind == "run" else "releases", node.id)


ROUTES = (PageRoute("/projects/{project}/lineage", lineage, _ACTION, nav=Nav("Lineage", "l")),)
