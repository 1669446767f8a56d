"""A database that was copied or moved, with its artifacts or without."""

from __future__ import annotations

import shutil
import sqlite3

import pytest

from cumulant.drivers.mlflow.database import follow_artifacts, make_database

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
