"""The page of lineage: the graph of a project, two steps around a node, with older nodes as groups."""

import re

import msgspec
import pytest
from console_support import ADA, HOSTILE, console_client, make_project
from hypothesis import given
from hypothesis import strategies as st
from releases import MOMENT, release

from cumulant.console.lineage_chart import MOST, NodeGroup, box_lines, grouped
from cumulant.core.events import Actor
from cumulant.flows.registry.lineage_graph import LineageGraph, LineageNode, lineage_graph, near
from cumulant.flows.release import store

BASE = "/projects/shop/lineage"


@pytest.fixture
def project(tmp_path):
    with make_project(tmp_path / "shop", "shop") as loaded:
        yield loaded


def put_version(project, number, *, snapshots=None, table="t1", run=None, model="shop"):
    value = {
        "run": run or f"run{number}",
        "snapshots": snapshots or {"visits": "s1"},
        "table": f"features/{table}",
        "created": f"2026-01-{number:02}T00:00:00Z",
        "other": "keys are for others",
    }
    with project.journal().transaction(actor=Actor("t")) as transaction:
        transaction.put("model", f"{model}/{number}", value)


def test_a_trained_version_hangs_from_its_snapshot_by_its_features_and_run(trained):
    graph = lineage_graph(trained, principal=ADA)
    kinds = [node.kind for node in graph.nodes.values()]
    assert sorted(kinds) == ["run", "snapshot", "table", "version"]
    assert [tuple(key.partition(":")[0] for key in edge) for edge in graph.edges] == [
        ("snapshot", "table"),
        ("table", "run"),
        ("run", "version"),
    ]
    client = console_client(trained)
    text = client.get(BASE).text
    assert "Lineage: 3 nodes and 2 edges" in text  # the snapshot is three steps from the version
    snapshot = next(key for key in graph.nodes if key.startswith("snapshot:"))
    assert "Lineage: 3 nodes and 2 edges" in client.get(f"{BASE}?focus={snapshot}").text
    assert 'href="/projects/shop/models/shop/1"' in text
    assert text.count('marker-end="url(#arrow)"') == 2
    assert 'data-go="l" aria-current="page">Lineage</a>' in text


def test_older_nodes_of_a_kind_are_a_group_that_opens(project):
    for number in range(1, 10):
        put_version(project, number, run="one")
    client = console_client(project)
    text = client.get(f"{BASE}?focus=run:one").text
    assert "4 more" in text
    assert ">shop 9<" in text.replace("\n", "")
    group = re.search(r'href="([^"]+all=version)"', text)[1].replace("&amp;", "&")
    opened = client.get(group).text
    assert "4 more" not in opened
    assert opened.count('class="node"') == 1 + 1 + 9
    columns, width = re.search(r'viewBox="-1 0 (\d+) .*columns(\d)"', opened).group(2, 1)
    assert int(width) * 11 / 12 <= 734 / 5 * int(columns), "letters of 12 units have 11 pixels on a page of 800"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("shop 9", ["shop 9"]),
        ("20261201T024407-32326b", ["20261201T024407-", "32326b"]),
        ("weather-observations 81950488", ["weather-observa…", "81950488"]),
        ("w" * 40, ["w" * 16, "w" * 15 + "…"]),
        ("-" + "w" * 20, ["-" + "w" * 15, "w" * 5]),
        ("w" * 16 + " 3", ["w" * 16, "3"]),
    ],
)
def test_a_box_keeps_the_identity_after_a_long_name(text, lines):
    assert box_lines(text) == lines


def test_hostile_names_are_texts(project):
    put_version(project, 1, snapshots={HOSTILE: HOSTILE}, run=HOSTILE)
    text = console_client(project).get(BASE).text
    assert HOSTILE not in text
    assert "<script>alert" not in text


def test_wrong_choices_are_refused_and_without_versions_the_page_says_what_to_do(project):
    client = console_client(project)
    assert "cumulant train" in client.get(BASE).text
    put_version(project, 1)
    assert client.get(f"{BASE}?focus=version:shop/9").status_code == 404
    assert client.get(f"{BASE}?all=nothing").status_code == 400


def test_an_external_server_that_was_released_is_a_version_without_a_page_and_not_the_first_choice(project):
    put_version(project, 1)
    for identity, version in (("r1", "1"), ("r2", "http://127.0.0.1:9")):
        arm = msgspec.structs.replace(release().candidate, version=version)
        ended = release(id=identity, model="shop", candidate=arm, status="rolled_back", ended=MOMENT)
        current = store.read(project.journal(), "shop")
        with project.journal().transaction(actor=Actor("t")) as transaction:
            store.write(transaction, None, ended, expect=current[1] if current else 0)
    client = console_client(project)
    assert "two steps around version shop/1" in client.get(BASE).text
    text = client.get(BASE, params={"focus": "version:shop/http://127.0.0.1:9"}).text
    assert ">shop http://127.0.0.1" in text
    assert "rolled back" in text
    assert 'href="/projects/shop/releases">Page of this version' in text


def node(number):
    return LineageNode(kind="version", id=str(number))


@given(
    st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda edge: edge[0] < edge[1])), st.integers(0, 9)
)
def test_what_is_near_is_reached_by_at_most_two_edges_one_way(pairs, centre):
    nodes = {node(number).key: node(number) for number in range(10)}
    edges = tuple((node(a).key, node(b).key) for a, b in sorted(pairs))
    shown = near(LineageGraph(nodes=nodes, edges=edges), node(centre).key)
    after = {b for a, b in pairs if a == centre}
    after |= {b for a, b in pairs if a in after}
    before = {a for a, b in pairs if b == centre}
    before |= {a for a, b in pairs if b in before}
    assert set(shown.nodes) == {node(number).key for number in {centre} | after | before}
    assert all(set(edge) <= set(shown.nodes) for edge in shown.edges)


@pytest.mark.parametrize("count", [1, MOST, MOST + 1, 40])
def test_a_group_takes_what_is_old_and_never_the_focus(count):
    nodes = {node(number).key: node(number) for number in range(count)}
    column = grouped(LineageGraph(nodes=nodes, edges=()), node(0).key)["version"]
    assert len(column) <= MOST + 1
    drawn = [each for each in column if isinstance(each, LineageNode)]
    hidden = [member for each in column if isinstance(each, NodeGroup) for member in each.members]
    assert {each.key for each in (*drawn, *hidden)} == set(nodes)
    assert node(0) in drawn
    assert node(count - 1) in drawn
