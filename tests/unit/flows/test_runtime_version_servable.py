"""The servable of a version is opened where it is stored; only one that was not made here is copied."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cumulant.core.errors import NotFoundError
from cumulant.flows.registry.version_servable import FETCHED, open_servable
from cumulant.ports.registry import ModelVersion
from cumulant.project.file.loading import load
from cumulant.project.project import Project

KEY = "servables/a"


class CountingObjects:
    """The project's objects, with what is asked of them."""

    def __init__(self, objects) -> None:
        self._objects, self.calls = objects, []

    def __getattr__(self, name):
        self.calls.append(name)
        return getattr(self._objects, name)


class Registry:
    """A registry that has the files of every version."""

    def __init__(self) -> None:
        self.fetched = 0

    def fetch(self, version: ModelVersion, into: Path) -> Path:
        self.fetched += 1
        folder = into / "servable"
        folder.mkdir(parents=True)
        (folder / "servable.json").write_text(f"fetched {version.version}")
        return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: m}\n")
    with load(tmp_path) as loaded:
        objects, registry = CountingObjects(loaded.objects()), Registry()
        monkeypatch.setattr(loaded, "objects", lambda: objects)
        monkeypatch.setattr(loaded, "registry", lambda: registry)
        yield loaded


def version(**tags: str) -> ModelVersion:
    return ModelVersion(name="m", version="3", uri="models:/m/3", run_id=None, created=datetime.now(UTC), tags=tags)


def content(project: Project, of: ModelVersion) -> str:
    with open_servable(project, of) as folder:
        return (folder / "servable.json").read_text()


def test_the_stored_folder_itself_is_read_by_one_request(project, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "servable.json").write_text("stored")
    project.objects().put(KEY, made)
    project.objects().calls.clear()
    with open_servable(project, version(**{"cumulant.servable": KEY})) as folder:
        assert (folder / "servable.json").read_text() == "stored"
        assert folder.is_relative_to(project.state / "objects"), "no copy of it is made"
    assert project.objects().calls == ["open"]
    assert project.registry().fetched == 0


@pytest.mark.parametrize("tags", [{}, {"cumulant.servable": KEY}])
def test_a_version_that_was_not_made_here_is_fetched_once(project, tags):
    assert content(project, version(**tags)) == "fetched 3"
    assert content(project, version(**tags)) == "fetched 3"
    assert project.registry().fetched == 1
    assert (project.state / FETCHED / "m").is_dir()
    assert "keys" not in project.objects().calls, "nothing is listed for a version that is not there"


def test_a_missing_store_is_reported(project, monkeypatch):
    def missing(key: str):
        raise NotFoundError("there is no such bucket or container", subject="s3://shop/store")

    monkeypatch.setattr(project.objects()._objects, "open", missing)
    with pytest.raises(NotFoundError, match="no such bucket"):
        content(project, version(**{"cumulant.servable": KEY}))
