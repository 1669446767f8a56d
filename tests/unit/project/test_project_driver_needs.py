"""What flows need of drivers, and that `plan` refuses a driver that lacks it: what, what for, and what to do."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from cumulant.core.errors import ProjectFileError
from cumulant.flows.project.driver_needs import driver_needs
from cumulant.flows.project.planning import plan
from cumulant.ports.driver import Driver
from cumulant.ports.plugins import GROUP, Drivers
from cumulant.project.file.loading import load
from cumulant.project.project import Project

_CLIENT = "cumulant_no_such_module:Client"
#: serves every port and has no capability
PLAIN = Driver(clients=dict.fromkeys(("journal", "tables", "objects", "files", "online"), _CLIENT))
FILE = """version: 1
model: {name: visits}
data:
  visits: {path: visits.csv, key: id}
"""
TARGET = "training: {target: bought}\n"


def loaded(folder: Path, text: str) -> Project:
    (folder / "cumulant.yaml").write_text(text)
    (folder / "features.py").write_text(
        'from cumulant.features import source\nrow = source("visits").columns("pages")\n'
    )
    (folder / "visits.csv").write_text("id,pages,bought\n1,2,0\n2,3,1\n")
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    return load(folder, drivers=Drivers({**installed, "plain": PLAIN}))


def problems(project: Project) -> list[tuple[int | None, str]]:
    with pytest.raises(ProjectFileError) as caught:
        plan(project, principal=project.principal())
    return [(line, text) for _, line, text in caught.value.problems]


def test_a_project_that_only_trains_needs_little(tmp_path: Path) -> None:
    project = loaded(tmp_path, f"{FILE}{TARGET}")
    assert driver_needs(project) == []
    plan(project, principal=project.principal(), checks=False)


def test_every_need_is_a_capability_of_a_driver_that_is_built_in(tmp_path: Path) -> None:
    text = FILE.replace("visits.csv", "'*.csv'") + (
        "serving: {}\nrelease: {alpha: 0.05}\nenvironments:\n  local: {compute: subprocess://}\n"
    )
    project = loaded(tmp_path, text)
    needs = driver_needs(project)
    assert {need.port for need in needs} == {"files", "journal", "tables", "objects", "online"}
    for need in needs:
        url = need.url or project.endpoints.of(need.port)
        project.drivers.require(url, need.port, needs)


def test_a_pattern_is_refused_where_the_driver_of_that_source_has_none(tmp_path: Path) -> None:
    others = "  other: {path: plain://bucket/*.csv, key: id}\n  single: {path: plain://other/a.csv, key: id}\n"
    [(line, text)] = problems(loaded(tmp_path, f"{FILE}{others}{TARGET}"))
    assert line == 5
    assert "the source other has a pattern as path (`glob`)" in text
    assert "file://" in text
    assert "s3://" in text


@pytest.mark.parametrize("key", ["journal", "store"])
def test_steps_in_processes_need_stores_that_processes_share(tmp_path: Path, key: str) -> None:
    text = f"{FILE}{TARGET}environments:\n  local:\n    compute: subprocess://\n    {key}: plain://x\n"
    found = problems(loaded(tmp_path, text))
    assert {line for line, _ in found} == {9}
    assert len(found) == (1 if key == "journal" else 2)
    for _, problem in found:
        assert "steps run in processes of their own with compute: subprocess:// (`processes`)" in problem
    assert ("sqlite://" in found[0][1]) == (key == "journal")


@pytest.mark.parametrize("section", ["serving: {workers: 2}\n", "release: {alpha: 0.05}\n"])
def test_serving_needs_an_online_store_that_is_replaced_whole(tmp_path: Path, section: str) -> None:
    text = f"{FILE}{TARGET}{section}environments:\n  local:\n    online: plain://x\n    journal: plain://y\n"
    found = problems(loaded(tmp_path, text))
    assert {line for line, _ in found} == {9, 10}
    assert any("while newer ones replace them (`swap`)" in text and "(`processes`)" in text for _, text in found)
    (tmp_path / "cumulant.yaml").write_text(text.replace(section, ""))
    assert driver_needs(load(tmp_path)) == []
