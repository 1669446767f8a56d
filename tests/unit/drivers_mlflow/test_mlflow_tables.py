"""Reading MLflow's tables in a SQLite file gives what MLflow's own client gives, and imports no MLflow."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest
from mlflow_servables import FRAME, servable

from cumulant.core.errors import EngineUnavailableError, NotFoundError, UsageError
from cumulant.drivers.mlflow.client import MlflowRegistry
from cumulant.drivers.mlflow.tables import Tables

pytestmark = pytest.mark.filterwarnings("ignore")

READS = """
import json, pathlib, sys
from cumulant.drivers.mlflow.client import MlflowRegistry
registry = MlflowRegistry(sys.argv[1])
champion = registry.resolve("late@champion")
folder = registry.fetch(champion, pathlib.Path(sys.argv[2]))
metrics = registry.metrics(champion.run_id)
loaded = {"mlflow", "pandas", "numpy", "pyarrow", "sqlalchemy"} & set(sys.modules)
print(json.dumps([list(registry.models()), champion.version, folder.name, metrics["log_loss"], sorted(loaded)]))
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A registry with what MLflow's pages can do to one: removed versions and aliases, tags, a model without versions."""
    place = tmp_path_factory.mktemp("tables")
    address = f"mlflow+sqlite://{place / 'mlflow.db'}"
    registry = MlflowRegistry(address)
    with registry.run("flights", "train", key="r") as run:
        run.metrics({"log_loss": 0.5, "odd": math.nan, "endless": math.inf})
        run.metrics({"log_loss": 0.25}, step=3)
        registry.register(run, "late", servable(place / "one"), FRAME, tags={"snapshot": "s1"}, key="k")
    client = registry._client
    for number in range(2, 12):
        client.create_model_version("late", f"file://{place}/elsewhere", run.id if number % 2 else None)
        registry.tag("late", str(number), {"number": str(number), "empty": ""})
    client.delete_model_version("late", "11")
    for alias, version in (("champion", "1"), ("before", "10"), ("candidate", "10"), ("old", "2")):
        registry.alias("late", alias, version)
    registry.alias("late", "old", None)
    registry.tag("late", "3", {"number": None})
    client.create_registered_model("bare")
    client.create_registered_model("Zeta")
    client.create_model_version("Zeta", f"file://{place}/elsewhere")
    return address


@pytest.fixture
def registry(url):
    return MlflowRegistry(url)


@pytest.fixture
def by_client(url):
    """The same registry, read by MLflow's client."""
    registry = MlflowRegistry(url)
    registry.__dict__["_tables"] = None
    return registry


def test_models_versions_and_metrics_are_those_of_the_client(registry, by_client):
    assert list(registry.models()) == list(by_client.models()) == ["Zeta", "bare", "late"]
    for name in registry.models():
        assert registry.versions(name) == by_client.versions(name)
    assert [one.version for one in registry.versions("late")][:2] == ["10", "9"]
    run_id = registry.resolve("late/1").run_id
    mine, theirs = registry.metrics(run_id), by_client.metrics(run_id)
    assert mine.keys() == theirs.keys() >= {"log_loss", "odd", "endless"}
    assert all(
        value == theirs[name] or (math.isnan(value) and math.isnan(theirs[name])) for name, value in mine.items()
    )
    assert "_client" not in registry.__dict__


@pytest.mark.parametrize("uri", ["late", "late/11", "late@old", "late@candidate", "models:/late/3", "none", "bare"])
def test_a_uri_resolves_as_with_the_client(uri, registry, by_client):
    results = []
    for one in (registry, by_client):
        try:
            results.append(one.resolve(uri))
        except NotFoundError as error:
            results.append((str(error), error.hint))
    assert results[0] == results[1]


def test_a_fetched_servable_is_that_of_the_client(registry, by_client, tmp_path):
    folders = [
        one.fetch(one.resolve("late@champion"), tmp_path / name)
        for name, one in (("mine", registry), ("theirs", by_client))
    ]
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]
    assert "servable.json" in files[0]


def test_reading_imports_no_mlflow(url, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", READS, url, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == [["Zeta", "bare", "late"], "1", "late-1", 0.25, []]


@contextmanager
def copied(url, file):
    """A copy of the registry's database in `file`, open for changes that are committed."""
    with (
        closing(sqlite3.connect(url.removeprefix("mlflow+sqlite://"))) as source,
        closing(sqlite3.connect(file)) as copy,
    ):
        source.backup(copy)
        yield copy
        copy.commit()


def both(file):
    """The registry in `file`, and the same read by MLflow's client."""
    registries = [MlflowRegistry(f"mlflow+sqlite://{file}") for _ in range(2)]
    registries[1].__dict__["_tables"] = None
    return registries


def test_models_of_several_workspaces_are_read_by_the_client(url, tmp_path):
    file = tmp_path / "mlflow.db"
    with copied(url, file) as copy:
        columns = {row[1] for row in copy.execute("PRAGMA table_info(registered_models)")}
        if "workspace" not in columns:
            pytest.skip("this MLflow has no workspaces")
        copy.execute("INSERT INTO registered_models (name, workspace, creation_time) VALUES ('late', 'other', 1)")
        copy.execute(
            "INSERT INTO model_versions (name, version, creation_time, current_stage, source, status, workspace)"
            " VALUES ('late', 99, 1, 'None', 'x', 'READY', 'other')"
        )
        copy.execute(
            "INSERT INTO registered_model_aliases (alias, version, name, workspace)"
            " VALUES ('champion', 99, 'late', 'other')"
        )
    mine, theirs = both(file)
    assert mine._tables.versions("late") is None
    assert mine._tables.models() is None
    # It refuses both workspaces at once unless MLFLOW_ENABLE_WORKSPACES is set.
    for registry in (mine, theirs):
        with pytest.raises(EngineUnavailableError, match="workspace"):
            registry.resolve("late@champion")


def test_a_version_without_a_creation_time_has_that_of_its_last_change(url, tmp_path):
    file = tmp_path / "mlflow.db"
    with copied(url, file) as copy:
        copy.execute("UPDATE model_versions SET creation_time = NULL WHERE version IN (3, 4)")
        copy.execute("UPDATE model_versions SET last_updated_time = NULL WHERE version = 4")
    mine, theirs = both(file)
    assert mine.versions("late") == theirs.versions("late")
    assert {one.version: one.created.year for one in mine.versions("late")}["4"] == 1970
    assert mine.resolve("late/3").created.year > 2000


def test_a_locked_file_is_waited_for_once(url, tmp_path):
    file = tmp_path / "mlflow.db"
    with copied(url, file):
        pass
    registry = MlflowRegistry(f"mlflow+sqlite://{file}")
    registry.__dict__["_tables"] = Tables(file, wait=0.01)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(EngineUnavailableError, match="database is locked"):
            registry.versions("late")
        other.execute("ROLLBACK")
    assert registry.resolve("late@champion").version == "1"
    assert "_client" not in registry.__dict__


def test_another_schema_is_read_by_the_client(url, tmp_path):
    file = tmp_path / "mlflow.db"
    with copied(url, file) as copy:
        copy.execute("ALTER TABLE registered_model_aliases RENAME TO elsewhere")
        copy.execute("CREATE VIEW registered_model_aliases AS SELECT alias AS other FROM elsewhere")
    registry = MlflowRegistry(f"mlflow+sqlite://{file}")
    assert registry._tables.versions("late") is None
    assert registry._tables.models() == ["Zeta", "bare", "late"]
    file.write_bytes(b"no database" * 1000)
    assert registry._tables.models() is None
    assert registry._tables.metrics("r") is None


def test_a_file_attached_without_mlflow_is_an_artifact_of_the_run(registry, by_client, tmp_path):
    (tmp_path / "page.html").write_text("a page")
    run_id = registry.resolve("late/1").run_id
    registry.attach(run_id, tmp_path / "page.html", "report")
    assert "_client" not in registry.__dict__
    assert [one.path for one in by_client._client.list_artifacts(run_id, "report")] == ["report/page.html"]


def test_a_file_is_attached_only_among_the_files_of_the_run(registry, tmp_path):
    (tmp_path / "page.html").write_text("a page")
    (tmp_path / "outside").mkdir()
    run_id = registry.resolve("late/1").run_id
    artifacts = registry._tables.artifacts(run_id)
    (artifacts / "link").symlink_to(tmp_path / "outside")
    for folder in ("..", "report/../../..", str(tmp_path / "outside"), "link"):
        with pytest.raises(UsageError, match="not a folder among the files of the run"):
            registry.attach(run_id, tmp_path / "page.html", folder)
    (artifacts / "link").unlink()
    assert list((tmp_path / "outside").iterdir()) == []
    registry.attach(run_id, tmp_path / "page.html", "one/../two")
    assert (artifacts / "two" / "page.html").read_text() == "a page"


def test_a_page_that_is_remembered_is_read_again_when_anybody_wrote(url, by_client):
    registry = MlflowRegistry(url)
    first = registry.versions("late", limit=3)
    first[0].tags["mine"] = "x"
    assert registry.versions("late", limit=3) == by_client.versions("late", limit=3)
    by_client.tag("late", "10", {"later": "1"})
    assert registry.versions("late", limit=3)[0].tags["later"] == "1"
    by_client.tag("late", "10", {"later": None})
    assert registry.versions("late", limit=3) == by_client.versions("late", limit=3)
    assert list(registry.models()) == list(registry.models()) == ["Zeta", "bare", "late"]
