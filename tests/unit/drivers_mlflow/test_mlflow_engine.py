"""Errors of MLflow's clients and stores, as the driver maps them."""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing

import pytest
import requests

from cumulant.core.errors import EngineUnavailableError, StorageError
from cumulant.drivers.mlflow.client import MlflowRegistry
from cumulant.drivers.mlflow.engine import engine


def test_a_store_of_artifacts_that_does_not_answer_may_answer_later():
    with (
        pytest.raises(EngineUnavailableError, match=r"files does not answer as it should: .*refused") as caught,
        engine("m/1"),
    ):
        requests.get("http://127.0.0.1:1/artifacts", timeout=10)
    assert "store of its artifacts" in (caught.value.hint or "")


def test_a_full_disk_is_no_store_that_does_not_answer():
    with pytest.raises(StorageError, match="cannot write: No space left"), engine("m/1"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_files_that_mlflow_reaches_by_a_package_that_is_not_installed_are_named(tmp_path):
    registry = MlflowRegistry(f"mlflow+sqlite://{tmp_path / 'mlflow.db'}")
    with registry.run("elsewhere", "train", key="k"):
        pass
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        # As where MLflow's own settings chose another place. Its class of this address needs `paramiko`.
        database.execute("UPDATE runs SET artifact_uri = 'sftp://user@host.invalid/files'")
        (run_id,) = database.execute("SELECT run_uuid FROM runs").fetchone()
    (tmp_path / "report").write_text("")
    with pytest.raises(StorageError, match=rf"needs the Python package \w+ for run {run_id}"):
        registry.attach(run_id, tmp_path / "report")


@pytest.mark.parametrize(
    ("revision", "words", "hint"),
    [("bda7b8c39065", "an earlier version", "mlflow db upgrade"), ("ffffffffffff", "a later version", "install")],
)
def test_tables_of_another_version_of_mlflow_are_no_server_that_is_down(tmp_path, revision, words, hint):
    url = f"mlflow+sqlite://{tmp_path / 'mlflow.db'}"
    with MlflowRegistry(url).run("e", "train", key="k"):
        pass
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    moved = tmp_path / "other.db"  # MLflow keeps the store of a database that this process has used
    (tmp_path / "mlflow.db").rename(moved)
    with (
        pytest.raises(StorageError, match=words) as caught,
        MlflowRegistry(f"mlflow+sqlite://{moved}").run("e", "train", key="k2"),
    ):
        pass
    assert hint in (caught.value.hint or "")
