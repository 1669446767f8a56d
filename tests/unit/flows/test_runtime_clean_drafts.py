"""`clean` removes the drafts that a killed process left among the files of a project's state."""

from __future__ import annotations

import os
import time

import pytest

from cumulant.flows.maintenance.cleanup import clean
from cumulant.project.file.loading import load
from cumulant.testing.registry import MemoryRegistry

DAY = 86_400
#: what a kill leaves, as the caches, the book and the outcomes name it
DRAFTS = (
    "monitoring/profiles/abc/.2026-11-24.4711",
    "monitoring/rows/def/.reference.12",
    "stack/.desired_state.json.345",
    "joined/.progress.99",
    "gateway/.state.json.345",
)
#: what others own, under names that are somewhat alike
KEPT = (
    "monitoring/profiles/abc/2026-11-24",
    "predictions/date=2026-11-24/.life-000018.writing",
    "predictions/date=2026-11-24/.life-000018.journal",
    "labels/.upkeep",
    "stack/server-3.1",
    "search/.hidden",
    "mlartifacts/1/models/.weights.1",
)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    registry = MemoryRegistry()
    with load(tmp_path) as found:
        found.registry = lambda: registry
        yield found


def test_old_drafts_are_listed_and_removed_and_nothing_else_is(project):
    for name in (*DRAFTS, *KEPT):
        path = project.state / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"some bytes")
        os.utime(path, (time.time() - 2 * DAY,) * 2)
    young = project.state / "stack" / ".status.json.7"
    young.write_bytes(b"being written")
    who = project.principal()
    listed = clean(project, principal=who)
    assert {(item.key, item.kind, item.bytes) for item in listed} == {(name, "file", 10) for name in DRAFTS}
    assert all((project.state / name).exists() for name in DRAFTS)
    assert clean(project, principal=who, dry_run=False) == listed
    assert not any((project.state / name).exists() for name in DRAFTS)
    assert all((project.state / name).exists() for name in KEPT)
    assert young.exists()
    assert clean(project, principal=who) == []
