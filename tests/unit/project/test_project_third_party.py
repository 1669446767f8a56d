"""A driver of another package: installed, it serves a project, whose code has no line for it."""

from __future__ import annotations

import textwrap

import polars as pl
import pytest

from cumulant.core.errors import NotFoundError
from cumulant.core.events import Actor
from cumulant.ports.plugins import Drivers
from cumulant.project.driver_checks import check_drivers
from cumulant.project.file.loading import load
from cumulant.project.private import open_to_others

MODULES = {
    "driver": """
        from cumulant.ports.driver import Driver

        base = Driver(
            clients={"journal": "acme_base.clients:Journal", "online": "acme_base.clients:Online"},
            path="file",
            default_paths={"online": "acme/online.base"},
        )
        shelf = Driver(clients={"tables": "acme_base.clients:Tables", "objects": "acme_base.clients:Tables"}, path="folder")
        remote = Driver(
            clients={"tables": "acme_base.clients:Remote", "objects": "acme_base.clients:Remote"},
            embeds={"tables": "acme-shelf"},
        )
    """,
    "clients": """
        from pathlib import Path

        from cumulant.drivers.local.journal import SqliteJournal
        from cumulant.drivers.local.online import SqliteOnline
        from cumulant.drivers.local.tables import FileTables

        class Journal(SqliteJournal):
            def __init__(self, url):
                super().__init__(url.replace("acme://", "sqlite://"))

        class Online(SqliteOnline):
            def __init__(self, url):
                super().__init__(url.replace("acme://", "sqlite://"))

        class Tables(FileTables):
            def __init__(self, url):
                super().__init__(url.replace("acme-shelf://", "file://"))

        class Remote:
            def __init__(self, url, *, embedded=None):
                self.url, self.embedded = url, embedded
    """,
}
ENTRY_POINTS = """
[cumulant.drivers]
acme = acme_base.driver:base
acme-shelf = acme_base.driver:shelf
acme-remote = acme_base.driver:remote
"""


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """The other package, installed: its code and its entry points are where Python looks."""
    place = tmp_path / "packages"
    (place / "acme_base").mkdir(parents=True)
    for name, text in {"__init__": "", **MODULES}.items():
        (place / "acme_base" / f"{name}.py").write_text(textwrap.dedent(text))
    about = place / "acme_base-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-base\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(place)


@pytest.fixture
def make(acme, tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()

    def made(**keys):
        lines = "".join(f"    {key}: {value}\n" for key, value in keys.items())
        (folder / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: shop}}\nenvironments:\n  local:\n{lines}")
        return load(folder)

    return made


def test_its_relative_and_missing_paths_are_the_project_s(make):
    with make(journal="acme://data/journal.base", online="acme://", store="acme-shelf://shelf") as project:
        root, state = project.root, project.root / ".cumulant"
        assert project.endpoints.journal == f"acme://{root}/data/journal.base"
        assert project.endpoints.online == f"acme://{state}/acme/online.base"
        assert project.endpoints.tables == f"acme-shelf://{root}/shelf/tables"
        check_drivers(project)
        with project.journal().transaction(actor=Actor("user:ada")) as transaction:
            transaction.put("kind", "key", {"a": 1}, expect=0)
        assert (root / "data" / "journal.base").is_file()
        assert project.online().meta("none") == {}
        assert (state / "acme" / "online.base").is_file()
        assert project.tables().write("t", pl.DataFrame({"x": [1]})).rows == 1
        assert (root / "shelf" / "tables").is_dir()


@pytest.mark.parametrize("url", ["acme:///srv/j.base", "acme://~/j.base"])
def test_its_absolute_paths_stay(make, url):
    with make(journal=url) as project:
        assert project.endpoints.journal == url


def test_a_url_of_a_driver_without_paths_stays(make):
    with make(store="acme-remote://bucket/x") as project:
        assert project.endpoints.tables == "acme-remote://bucket/x/tables"


def test_its_files_outside_of_the_state_are_looked_at_by_doctor(make):
    with make(journal="acme://data/journal.base") as project:
        project.journal().head()
        file = project.root / "data" / "journal.base"
        file.chmod(0o644)
        file.parent.chmod(0o755)
        assert file in open_to_others(project.root, project.endpoints, project.drivers)


def test_a_client_is_given_the_embedded_client_that_its_driver_names(make, tmp_path):
    with make(store="acme-remote://bucket/x") as project:
        tables = project.tables().embedded(tmp_path / "copies")
        assert type(tables).__name__ == "Tables"
        tables.write("t", pl.DataFrame({"x": [1, 2]}))
        assert (tmp_path / "copies").is_dir()
        assert project.objects().embedded is None, "its driver embeds tables only"


def test_a_bucket_keeps_its_copies_in_the_embedded_stores(tmp_path):
    pytest.importorskip("obstore")
    for port, name in (("tables", "FileTables"), ("objects", "FileObjects")):
        client = Drivers.installed().client("s3://bucket/x", port)
        assert type(client._embedded(tmp_path)).__name__ == name


def test_an_alias_of_another_program_leads_to_the_driver_that_declares_it(tmp_path, monkeypatch):
    from cumulant.project.tracking import registry_here

    drivers, root, state = Drivers.installed(), tmp_path, tmp_path / "state"
    urls = {
        "sqlite:///ml.db": f"mlflow+sqlite://{root}/ml.db",
        "sqlite:////srv/ml.db": "mlflow+sqlite:///srv/ml.db",
        "mlflow+sqlite://": f"mlflow+sqlite://{state}/mlflow.db",
        "https://ml.example.com": "https://ml.example.com",
    }
    for url, expected in urls.items():
        assert drivers.anchored(url, "registry", root=root, state=state) == expected
    assert drivers.anchored("sqlite:///ml.db", "journal", root=root, state=state) == "sqlite:///ml.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///ml.db")
    with pytest.raises(NotFoundError, match=str(tmp_path / "ml.db")):
        registry_here()
    (tmp_path / "ml.db").touch()
    assert registry_here()._location.database == tmp_path / "ml.db"  # type: ignore[attr-defined]
