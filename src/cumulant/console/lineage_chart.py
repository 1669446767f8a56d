"""The graph of lineage from left to right; of many nodes of a kind the newest, and the others as one group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from cumulant.flows.registry.lineage_graph import KINDS, Kind, LineageGraph, LineageNode
from cumulant.flows.reports.svg_elements import Child, element

#: five columns are as wide as a page of 800 pixels, where a letter keeps 11 of them
_BOX, _GAP, _HEAD, _ROW, _TALL = 132.0, 30.0, 30.0, 56.0, 44.0
#: pixels of a unit where there is room for them
_LARGEST = 1.2
#: characters of a line in a box
_LINE = 16
_BREAKS = "-_/."
#: nodes of a kind, of more the older ones are a group
MOST = 6
TITLES: Mapping[Kind, str] = {
    "snapshot": "Snapshots",
    "table": "Features",
    "run": "Runs",
    "version": "Versions",
    "release": "Releases",
}


class NodeGroup(NamedTuple):
    """Nodes of a kind that are drawn as one."""

    kind: Kind
    members: tuple[LineageNode, ...]

    @property
    def key(self) -> str:
        return f"group:{self.kind}"


def grouped(graph: LineageGraph, focus: str, *, whole: Kind | None = None) -> dict[Kind, list[LineageNode | NodeGroup]]:
    """The nodes of each kind as they are drawn. `whole`: the kind that is drawn without a group."""
    columns: dict[Kind, list[LineageNode | NodeGroup]] = {}
    for kind in KINDS:
        nodes = [node for node in graph.nodes.values() if node.kind == kind]
        shown: list[LineageNode | NodeGroup] = list(nodes)
        if len(nodes) > MOST and kind != whole:
            newest = {node.key for node in nodes[-(MOST - 1) :]} | {focus}
            shown = [node for node in nodes if node.key in newest]
            shown.insert(0, NodeGroup(kind, tuple(node for node in nodes if node.key not in newest)))
        if shown:
            columns[kind] = shown
    return columns


def lineage_chart(
    graph: LineageGraph,
    focus: str,
    columns: Mapping[Kind, Sequence[LineageNode | NodeGroup]],
    href: Callable[[LineageNode | NodeGroup], str],
) -> Markup:
    """An element of its own, since its nodes are links. `href`: where a node or a group leads."""
    width = len(columns) * (_BOX + _GAP) - _GAP
    places: dict[str, tuple[float, float]] = {}
    boxes: list[Child] = []
    for across, (kind, shown) in enumerate(columns.items()):
        x = across * (_BOX + _GAP)
        boxes.append(element("text", TITLES[kind], x=x, y=18, class_="name"))
        for row, node in enumerate(shown):
            y = _HEAD + row * _ROW
            members = node.members if isinstance(node, NodeGroup) else (node,)
            places |= {member.key: (x, y) for member in members}
            boxes.append(_box(node, x, y, href(node), is_focus=node.key == focus))
    lines = dict.fromkeys((places[source], places[target]) for source, target in graph.edges)
    most = max((len(shown) for shown in columns.values()), default=1)
    box = f"-1 0 {width + 2:g} {_HEAD + most * _ROW:g}"
    label = f"Lineage: {len(graph.nodes)} nodes and {len(graph.edges)} edges; the table below lists them"
    edges = [_edge(*ends) for ends in lines]
    head = element("path", d="M0 0L8 4L0 8z", class_="arrow")
    marker = element(
        "marker", head, id="arrow", viewBox="0 0 8 8", refX=8, refY=4, markerWidth=8, markerHeight=8, orient="auto"
    )
    return element(
        "svg",
        element("defs", marker),
        *edges,
        *boxes,
        viewBox=box,
        width=round(width * _LARGEST),
        role="group",
        aria_label=label,
        class_=f"chart lineage-graph columns{len(columns)}",
    )


def node_text(node: LineageNode) -> str:
    """`flights 819504887c45`, `version 3`, `release promoted`."""
    if node.kind == "snapshot":
        return f"{node.name} {node.id[:8]}"
    if node.kind == "version":
        return f"{node.name} {node.version}"
    if node.kind == "release":
        return node.name.replace("_", " ")
    return node.id[:12] if node.kind == "table" else node.id


def _box(node: LineageNode | NodeGroup, x: float, y: float, href: str, *, is_focus: bool) -> Markup:
    if isinstance(node, NodeGroup):
        text, style = f"{len(node.members)} more", "node group-node"
        note = f"{len(node.members)} older {TITLES[node.kind].lower()}"
    else:
        text, style, note = node_text(node), "node focus-node" if is_focus else "node", f"{node.kind} {node.id}"
    lines = box_lines(text)
    top = y + 26 - 8 * (len(lines) - 1)
    texts = [element("text", line, x=x + 8, y=top + 16 * place) for place, line in enumerate(lines)]
    return element(
        "a",
        element("title", note),
        element("rect", x=x, y=y, width=_BOX, height=_TALL, rx=7, class_=style),
        *texts,
        href=href,
        aria_current="true" if is_focus else None,
    )


def box_lines(text: str) -> list[str]:
    """`text` in one or two lines; of a name that is too long the end is cut, never the identity after it."""
    if len(text) <= _LINE:
        return [text]
    head, _, rest = text.rpartition(" ")
    if not head:
        end = max(text.rfind(sign, 1, _LINE) for sign in _BREAKS) + 1 or _LINE
        head, rest = text[:end], text[end:]
    return [line if len(line) <= _LINE else f"{line[: _LINE - 1]}…" for line in (head, rest)]


def _edge(source: tuple[float, float], target: tuple[float, float]) -> Markup:
    (x0, y0), (x1, y1) = source, target
    begin, end, bend = x0 + _BOX, x1, max((x1 - x0 - _BOX) / 2, 10)
    middle0, middle1 = y0 + _TALL / 2, y1 + _TALL / 2
    path = f"M{begin:g} {middle0:g}C{begin + bend:g} {middle0:g} {end - bend:g} {middle1:g} {end:g} {middle1:g}"
    return element("path", d=path, class_="edge", marker_end="url(#arrow)")
