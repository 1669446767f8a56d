"""An embedded driver of another package: what it declares is in a backup, and works where it is restored."""

from __future__ import annotations

import textwrap

import polars as pl
import pytest
from backup_support import backup, noted

from cumulant.core.events import Actor
from cumulant.flows.backup.restore import restore
from cumulant.project.driver_checks import check_drivers
from cumulant.project.file.loading import load

MODULES = {
    "driver": """
        from cumulant.ports.driver import Driver

        _HERE = "acme_vault.clients"
        #: a database with its records beside it, and a folder of drafts that nobody needs
        base = Driver(
            clients={"journal": f"{_HERE}:Journal"},
            path="file",
            default_paths={"journal": "acme/journal.base"},
            stored={"journal": {"{name}": "sqlite", "{name}.head": "file"}},
        )
        #: one text file
        notes = Driver(
            clients={"online": f"{_HERE}:Notes"},
            path="file",
            default_paths={"online": "notes.json"},
            stored={"online": {"{name}": "file"}},
        )
        shelf = Driver(
            clients={"tables": f"{_HERE}:Tables", "objects": f"{_HERE}:Tables"},
            path="folder",
            default_paths={"tables": "shelf", "objects": "things"},
            stored={"tables": {"{name}": "folder"}, "objects": {"{name}": "folder"}},
        )
        #: on this machine too, and it does not say what of it is to be copied
        silent = Driver(clients={"online": f"{_HERE}:Notes"}, path="file")
    """,
    "clients": """
        import json
        from pathlib import Path

        from cumulant.drivers.local.journal import SqliteJournal
        from cumulant.drivers.local.tables import FileTables


        class Journal(SqliteJournal):
            def __init__(self, url):
                super().__init__(url.replace("acme://", "sqlite://"))


        class Tables(FileTables):
            def __init__(self, url):
                super().__init__(url.replace("acme-shelf://", "file://"))


        class Notes:
            def __init__(self, url):
                self.path = Path(url.partition("://")[2])

            def meta(self, table):
                return json.loads(self.path.read_text()).get(table, {}) if self.path.exists() else {}

            def put_meta(self, table, meta):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text(json.dumps({table: meta}))
    """,
}
ENTRY_POINTS = """
[cumulant.drivers]
acme = acme_vault.driver:base
acme-notes = acme_vault.driver:notes
acme-shelf = acme_vault.driver:shelf
acme-silent = acme_vault.driver:silent
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path, monkeypatch):
    place = tmp_path / "packages"
    (place / "acme_vault").mkdir(parents=True)
    for name, text in {"__init__": "", **MODULES}.items():
        (place / "acme_vault" / f"{name}.py").write_text(textwrap.dedent(text))
    about = place / "acme_vault-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-vault\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(place)


def write_project(folder, **keys):
    folder.mkdir()
    lines = "".join(f"    {key}: {value}\n" for key, value in keys.items())
    (folder / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: shop}}\nenvironments:\n  local:\n{lines}")
    with load(folder) as project:
        noted(project, 7)
        project.tables().write("t", pl.DataFrame({"x": [1, 2]}))
        project.online().put_meta("features", {"as_of": "monday"})
    return folder


@pytest.mark.parametrize(
    ("keys", "stored"),
    [
        (
            {"journal": "acme://", "online": "acme-notes://", "store": "acme-shelf://"},
            {".cumulant/acme/journal.base", ".cumulant/notes.json", ".cumulant/shelf/t.parquet/_table.json"},
        ),
        (
            {"journal": "acme://data/j.base", "online": "acme-notes://data/n.json", "store": "acme-shelf://data/shelf"},
            {"data/j.base", "data/j.base.head", "data/n.json", "data/shelf/tables/t.parquet/_table.json"},
        ),
    ],
    ids=["in the state folder", "at relative paths"],
)
def test_what_it_declares_is_backed_up_and_restored(tmp_path, keys, stored):
    root = write_project(tmp_path / "original", **keys)
    with load(root) as project:
        check_drivers(project)
        [shelf] = project.stored("tables")
        (shelf / ".any.lock").write_text("a store's file of any name")
    done = backup(root, tmp_path / "b.tar")
    names = {file.path for file in done.manifest.files}
    assert stored <= names
    assert (shelf / ".any.lock").relative_to(root).as_posix() in names
    assert not any(name.endswith(("-wal", "-shm")) for name in names), "they are of the database, not of its copy"
    assert done.manifest.left_out == ()
    folder = tmp_path / "restored"
    restore(done.archive, folder)
    with load(folder) as project:
        assert [event.data["number"] for event in project.journal().events(kinds=("test.noted",))] == [7]
        with project.journal().transaction(actor=Actor("user:ada")) as transaction:
            transaction.put("kind", "key", {"a": 1}, expect=0)
        assert project.tables().scan("t").collect()["x"].to_list() == [1, 2]
        assert project.online().meta("features") == {"as_of": "monday"}
        assert all(path.is_relative_to(folder) for path in project.stored("journal"))


def test_a_database_is_copied_whole_while_it_is_written(tmp_path):
    root = write_project(tmp_path / "original", journal="acme://data/j.base")
    with load(root) as project, project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.put("kind", "key", {"open": 1}, expect=0)
        copy = tmp_path / "copy.db"
        from cumulant.flows.backup.databases import copy_database

        [database] = [path for path, kind in project.stored("journal").items() if kind == "sqlite"]
        copy_database(database, copy)
    from cumulant.drivers.local.journal import SqliteJournal

    journal = SqliteJournal(f"sqlite://{copy}")
    assert journal.get("kind", "key") is None
    assert len(list(journal.events())) == 1


def test_what_a_driver_does_not_declare_is_named_as_left_out(tmp_path):
    root = write_project(tmp_path / "original", online="acme-silent://data/n.json")
    done = backup(root, tmp_path / "b.tar")
    assert done.manifest.left_out == ("online at acme-silent://: back it up with its own tools",)
    assert not any(file.path == "data/n.json" for file in done.manifest.files)
    outside = write_project(tmp_path / "second", online=f"acme-notes://{tmp_path}/n.json")
    assert backup(outside, tmp_path / "c.tar").manifest.left_out == (
        "online at acme-notes://: back it up with its own tools",
    )
