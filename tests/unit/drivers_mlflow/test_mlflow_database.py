"""A database that was copied or moved, with its artifacts or without."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing

import pytest

from cumulant.drivers.mlflow.database import follow_artifacts, make_database
from cumulant.drivers.mlflow.empty_tables import EmptyTables

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow


def place_of(database):
    with sqlite3.connect(database) as opened:
        (found,) = opened.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    opened.close()
    return found


def add_model(database, artifacts, name):
    """A registered model, with its artifacts in a folder of that name."""
    (artifacts / name).mkdir(parents=True)
    place = (artifacts / name).as_uri()
    with sqlite3.connect(database) as opened:
        opened.execute("PRAGMA foreign_keys=OFF")
        opened.execute(
            "INSERT INTO model_versions (name, version, storage_location, workspace) VALUES (?, 1, ?, 'default')"
            if "workspace" in {row[1] for row in opened.execute("PRAGMA table_info(model_versions)")}
            else "INSERT INTO model_versions (name, version, storage_location) VALUES (?, 1, ?)",
            (name, place),
        )
    opened.close()


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """MLflow's tables, with artifacts in `elsewhere/mlartifacts` beside the database's folder."""
    folder = tmp_path_factory.mktemp("tables")
    make_database(folder / "mlflow.db", folder / "elsewhere" / "mlartifacts")
    return folder / "mlflow.db"


@pytest.fixture
def foreign(empty_database, tmp_path):
    """A database of another program, its artifacts in a folder `elsewhere`, and an empty folder beside it."""
    database, place = tmp_path / "d" / "mlflow.db", tmp_path / "d" / "elsewhere" / "mlartifacts"
    (tmp_path / "d" / "mlartifacts").mkdir(parents=True)
    shutil.copy(empty_database, database)
    with sqlite3.connect(database) as opened:
        opened.execute("UPDATE experiments SET artifact_location = ?", (f"{place.as_uri()}/0",))
    opened.close()
    add_model(database, place, "model")
    return database, place


@pytest.mark.parametrize("present", [True, False])
def test_a_database_of_another_program_is_no_copy(foreign, present):
    database, place = foreign
    if not present:  # as on a disk that is not mounted
        place.rename(place.with_name("away"))
    follow_artifacts(database, database.with_name("mlartifacts"))
    assert place_of(database) == f"{place.as_uri()}/0"


def test_a_copy_without_all_the_artifacts_stays_with_the_original(foreign, tmp_path):
    database, place = foreign
    shutil.move(database, place.with_name("mlflow.db"))
    database = place.with_name("mlflow.db")
    copy = shutil.copytree(place.parent, tmp_path / "copy")
    (copy / "mlartifacts" / "model").rmdir()
    follow_artifacts(copy / "mlflow.db", copy / "mlartifacts")
    assert place_of(copy / "mlflow.db") == f"{place.as_uri()}/0"
    (copy / "mlartifacts" / "model").mkdir()
    follow_artifacts(copy / "mlflow.db", copy / "mlartifacts")
    assert place_of(copy / "mlflow.db") == f"{(copy / 'mlartifacts').as_uri()}/0"


def test_one_database_under_two_paths_is_no_copy(foreign, tmp_path):
    database, place = foreign
    shutil.move(database, place.with_name("mlflow.db"))
    other = tmp_path / "other"
    (other / "mlartifacts" / "model").mkdir(parents=True)
    (other / "mlflow.db").hardlink_to(place.with_name("mlflow.db"))
    follow_artifacts(other / "mlflow.db", other / "mlartifacts")
    assert place_of(other / "mlflow.db") == f"{place.as_uri()}/0"


def test_a_moved_database_follows_its_artifacts(foreign, tmp_path):
    database, place = foreign
    shutil.move(database, place.with_name("mlflow.db"))
    moved = shutil.move(place.parent, tmp_path / "moved")
    follow_artifacts(moved / "mlflow.db", moved / "mlartifacts")
    assert place_of(moved / "mlflow.db") == f"{(moved / 'mlartifacts').as_uri()}/0"


def test_a_database_whose_artifacts_are_elsewhere_stays_as_it_is(tmp_path):
    database = tmp_path / "mlflow.db"
    make_database(database, tmp_path / "elsewhere" / "mlruns")
    (tmp_path / "mlartifacts").mkdir()
    follow_artifacts(database, tmp_path / "mlartifacts")
    assert place_of(database).endswith("/elsewhere/mlruns/0")
    (tmp_path / "link").symlink_to(tmp_path)
    follow_artifacts(tmp_path / "link" / "mlflow.db", tmp_path / "link" / "mlartifacts")
    assert place_of(database).endswith("/elsewhere/mlruns/0")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def everything(database):
    with closing(sqlite3.connect(database)) as opened:
        return sorted(opened.iterdump())


def test_the_tables_of_the_next_project_are_those_that_mlflow_made(tmp_path, cache, monkeypatch):
    begun = int(time.time() * 1000)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_database(tmp_path / name / "mlflow.db", tmp_path / name / "mlartifacts")
        monkeypatch.setattr("mlflow.store.db.utils._upgrade_db", lambda _: pytest.fail("MLflow made them again"))
    first, second = (everything(tmp_path / name / "mlflow.db") for name in ("one", "two"))
    assert [one for one in second if one not in first] == [one for one in second if 'INTO "experiments"' in one]
    assert place_of(tmp_path / "two" / "mlflow.db") == f"{(tmp_path / 'two' / 'mlartifacts').as_uri()}/0"
    with closing(sqlite3.connect(tmp_path / "two" / "mlflow.db")) as opened:
        (created, updated) = opened.execute("SELECT creation_time, last_update_time FROM experiments").fetchone()
    assert created == updated >= begun
    assert (tmp_path / "two" / "mlartifacts").is_dir()


def test_tables_that_are_not_whole_or_that_others_can_write_are_not_read(cache):
    empty, content = EmptyTables(), bytes(range(256)) * 40
    assert empty.read() is None
    empty.keep(content)
    (kept,) = (cache / "cumulant" / "mlflow").iterdir()
    whole = kept.read_bytes()
    assert empty.read() == EmptyTables().read() == content
    for damaged in (whole[:5000] + b"x" + whole[5001:], whole[:5000], b""):
        kept.write_bytes(damaged)
        assert empty.read() is None
    kept.write_bytes(whole)
    kept.parent.chmod(0o770)
    assert empty.read() is None


def test_tables_of_few_versions_of_mlflow_are_kept_and_only_the_installed_one_s_are_read(cache, monkeypatch):
    for number in range(5):
        monkeypatch.setattr("mlflow.version.VERSION", f"3.{number}")
        assert EmptyTables().read() is None
        EmptyTables().keep(bytes([number]))
        assert EmptyTables().read() == bytes([number])
    assert len(list((cache / "cumulant" / "mlflow").iterdir())) == 3


def test_where_no_tables_can_be_kept_nothing_happens(tmp_path, cache, monkeypatch):
    cache.touch()
    EmptyTables().keep(b"content")
    assert EmptyTables().read() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    EmptyTables().keep(b"content")
    assert EmptyTables().read() is None
