"""MLflow's own tables in a SQLite file, which appears whole or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib import import_module
from pathlib import Path

from cumulant.drivers.mlflow.lock import alone


def has_no_model(database: Path) -> bool:
    """Whether the file is not there, or MLflow's table of registered models is empty. Whatever is odd is MLflow's to
    tell: then False.
    """
    if not database.exists():
        return True
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as opened:
            return opened.execute("SELECT 1 FROM registered_models LIMIT 1").fetchone() is None
    except sqlite3.Error:
        return False


def make_database(database: Path, artifacts: Path) -> None:
    """Make MLflow's tables, unless the file is there.

    MLflow makes them one after another, each in a transaction of its own, and cannot go on with half of them. So they
    are made aside and renamed, by one process at a time.

    Raises:
        EngineUnavailableError: another process has been making them for too long.
        OSError: no space, or a folder that cannot be written.
    """
    if database.exists():
        return
    with alone(database.with_name(f"{database.name}.lock")):
        if database.exists():
            return
        draft = database.with_name(f".{database.name}.new")
        for left in (draft, *(draft.with_name(f"{draft.name}-{part}") for part in ("journal", "wal", "shm"))):
            left.unlink(missing_ok=True)
        module = import_module("mlflow.store.tracking.sqlalchemy_store")
        store = module.SqlAlchemyStore(f"sqlite:///{draft.as_posix()}", artifacts.as_uri())
        store.engine.dispose()
        draft.rename(database)
