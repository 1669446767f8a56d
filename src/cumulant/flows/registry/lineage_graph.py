"""The lineage of a project as a graph: snapshots, feature tables, runs, versions and their releases."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from cumulant.flows.ledger.actions import verb
from cumulant.flows.registry.model_record import MODEL
from cumulant.flows.release.store import list_models, list_releases

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project

Kind = Literal["snapshot", "table", "run", "version", "release"]
#: the kinds from left to right
KINDS: tuple[Kind, ...] = ("snapshot", "table", "run", "version", "release")


class LineageNode(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot (`name`: its source), a table of features, a run, a version (`name`: of the model) or a release."""

    kind: Kind
    id: str
    name: str = ""

    @property
    def key(self) -> str:
        """Unique in a graph: `version:flight-late/3`."""
        return f"{self.kind}:{self.id}"

    @property
    def version(self) -> str:
        """The number of a version, or the address of an external server that was released; of other kinds empty."""
        return self.id.partition("/")[2] if self.kind == "version" else ""


class LineageGraph(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes by key, the oldest first in each kind, and edges from what was used to what was made of it."""

    nodes: dict[str, LineageNode]
    edges: tuple[tuple[str, str], ...]


class _VersionOrigin(msgspec.Struct, frozen=True):
    """What of a version's record the graph needs; other keys are ignored."""

    run: str
    snapshots: dict[str, str]
    table: str
    created: str


@verb("lineage.show")
def lineage_graph(project: Project, *, principal: Principal) -> LineageGraph:
    """All versions that the project's journal knows, with what made them and where they were released."""
    journal = project.journal()
    nodes: dict[str, LineageNode] = {}
    edges: dict[tuple[str, str], None] = {}
    for path in (*_version_paths(journal), *_release_paths(journal, project.name)):
        for node in path:
            nodes.setdefault(node.key, node)
        edges |= {(source.key, target.key): None for source, target in itertools.pairwise(path)}
    return LineageGraph(nodes=nodes, edges=tuple(edges))


def near(graph: LineageGraph, focus: str, *, hops: int = 2) -> LineageGraph:
    """The nodes at most `hops` edges from `focus` against or along the edges, and the edges between them.

    Ancestors are followed to the left alone and descendants to the right alone: what else a parent made is no lineage.
    """
    keys = {focus, *_reach(focus, graph.edges, hops), *_reach(focus, [(b, a) for a, b in graph.edges], hops)}
    return LineageGraph(
        nodes={key: node for key, node in graph.nodes.items() if key in keys},
        edges=tuple(edge for edge in graph.edges if keys.issuperset(edge)),
    )


def _reach(focus: str, edges: Iterable[tuple[str, str]], hops: int) -> set[str]:
    following: dict[str, list[str]] = {}
    for source, target in edges:
        following.setdefault(source, []).append(target)
    reached, front = set[str](), {focus}
    for _ in range(hops):
        front = {target for source in front for target in following.get(source, ())} - reached
        reached |= front
    return reached


def _version_paths(journal: Journal) -> Iterator[tuple[LineageNode, ...]]:
    records = [(row.key, record) for row in journal.rows(MODEL) if (record := _read(row.value)) is not None]
    for uri, record in sorted(records, key=lambda pair: pair[1].created):
        table = record.table.rpartition("/")[2]
        path = (
            LineageNode(kind="table", id=table),
            LineageNode(kind="run", id=record.run),
            LineageNode(kind="version", id=uri, name=uri.partition("/")[0]),
        )
        for source, snapshot in record.snapshots.items():
            yield (LineageNode(kind="snapshot", id=snapshot, name=source), *path)
        yield path


def _release_paths(journal: Journal, model: str) -> Iterator[tuple[LineageNode, ...]]:
    for name in dict.fromkeys((model, *list_models(journal))):
        for release in reversed(list_releases(journal, name)):
            candidate = LineageNode(kind="version", id=f"{name}/{release.candidate.version}", name=name)
            yield (candidate, LineageNode(kind="release", id=release.id, name=release.status))


def _read(value: dict[str, object]) -> _VersionOrigin | None:
    try:
        return msgspec.convert(value, _VersionOrigin)
    except msgspec.ValidationError:
        return None
