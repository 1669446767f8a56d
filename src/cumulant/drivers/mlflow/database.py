"""MLflow's own tables in a SQLite file, which appears atomically."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import AbstractContextManager, closing
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cumulant.core.errors import EngineUnavailableError
from cumulant.core.system.locks import lock_file
from cumulant.drivers.mlflow.empty_tables import EmptyTables

#: columns with absolute locations of artifacts
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
_WAIT = 60.0
#: seconds to wait for another process that makes the tables
_LOCK_WAIT = 240.0


def make_database(database: Path, artifacts: Path) -> None:
    """Create MLflow's tables, unless the file exists.

    MLflow creates them one after another, each in a transaction of its own, and cannot continue with some of them. So
    they are created in a temporary file and renamed, by one process at a time. An empty database is kept for the user's
    next project.

    Raises:
        EngineUnavailableError: another process has been creating them for too long.
        OSError: no space, or a folder that cannot be written.
    """
    if database.exists():
        return
    with _exclusive_lock(database.with_name(f"{database.name}.lock")):
        if database.exists():
            return
        draft = database.with_name(f".{database.name}.new")
        for stale in (draft, *(draft.with_name(f"{draft.name}-{part}") for part in ("journal", "wal", "shm"))):
            stale.unlink(missing_ok=True)
        empty = EmptyTables()
        content = empty.read()
        if content is None:
            module = import_module("mlflow.store.tracking.sqlalchemy_store")
            store = module.SqlAlchemyStore(f"sqlite:///{draft.as_posix()}", artifacts.as_uri())
            store.engine.dispose()
            empty.keep(draft.read_bytes())
        else:
            _copy_tables(content, draft, artifacts)
        draft.rename(database)


def _copy_tables(content: bytes, draft: Path, artifacts: Path) -> None:
    """A database of tables that MLflow has made for another project. Raises OSError."""
    artifacts.mkdir(parents=True, exist_ok=True)
    draft.write_bytes(content)
    now = time.time_ns() // 1_000_000
    try:
        with closing(sqlite3.connect(draft, timeout=_WAIT)) as opened, opened:
            opened.execute(
                "UPDATE experiments SET artifact_location = ?, creation_time = ?, last_update_time = ?",
                (f"{artifacts.as_uri()}/0", now, now),
            )
    except sqlite3.Error as error:
        raise OSError(str(error)) from error


def follow_artifacts(database: Path, artifacts: Path) -> None:
    """Update the locations in a database that was copied or moved with its artifacts.

    MLflow stores absolute paths: without this a copy reads the original's artifacts, and writes to them. A database
    of another program, whose artifacts lie elsewhere, stays as it is, and so does one that cannot be written, one whose
    artifacts were not copied with it, and one file that is reached by two paths (a bind mount).

    Raises:
        EngineUnavailableError: another process has been changing the file for too long.
        sqlite3.Error: it cannot be written.
    """
    if _artifacts_before(database, artifacts) is None:
        return
    with _exclusive_lock(database.with_name(f"{database.name}.lock")):
        before = _artifacts_before(database, artifacts)
        if before is None:
            return
        with closing(sqlite3.connect(database, timeout=_WAIT)) as opened, opened:
            present = {name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for table, column in _LOCATIONS:
                if table in present:
                    opened.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608 - constants
                        f" WHERE substr({column}, 1, ?) = ?",
                        (artifacts.as_uri(), len(before) + 1, len(before) + 1, f"{before}/"),
                    )


def _artifacts_before(database: Path, artifacts: Path) -> str | None:
    """The artifact location in the database, if it is another folder of the same name than `artifacts`."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as opened:
            row = opened.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    except sqlite3.Error:
        return None
    before = str(row[0]).removesuffix("/0") if row else ""
    moved = before.startswith("file://") and before.endswith(f"/{artifacts.name}") and before != artifacts.as_uri()
    if not moved or not artifacts.is_dir() or not os.access(database.parent, os.W_OK):
        return None
    folder = _folder(before)
    if folder.is_dir() and (folder.samefile(artifacts) or not _is_original(folder.parent / database.name, database)):
        return None
    return before if _holds_artifacts(database, before, artifacts) else None


def _is_original(former: Path, database: Path) -> bool:
    """Whether another database is at the path that this one had when its locations were written."""
    return former.is_file() and not former.samefile(database)


def _holds_artifacts(database: Path, before: str, artifacts: Path) -> bool:
    """Whether `artifacts` has the files of the rows below `before`: all that still exist, else any of the models."""
    old = _folder(before)
    tables = _LOCATIONS[1:] if old.is_dir() else _LOCATIONS[2:]
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as opened:
            rows = [row for table, column in tables for row in _rows_below(opened, table, column, before)]
    except sqlite3.Error:
        return False
    within = [_folder(row).relative_to(old) for row in rows]
    if old.is_dir():
        return all((artifacts / path).exists() for path in within if (old / path).exists())
    return not within or any((artifacts / path).exists() for path in within)


def _rows_below(opened: sqlite3.Connection, table: str, column: str, before: str) -> list[str]:
    if opened.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone() is None:
        return []
    query = f"SELECT DISTINCT {column} FROM {table} WHERE substr({column}, 1, ?) = ?"  # noqa: S608 - constants
    return [value for (value,) in opened.execute(query, (len(before) + 1, f"{before}/"))]


def _folder(uri: str) -> Path:
    return Path(url2pathname(urlsplit(uri).path))


def _exclusive_lock(path: Path) -> AbstractContextManager[None]:
    """Lock on the file `path`; EngineUnavailableError if another process holds it for too long."""
    hint = "look for a stopped process that holds it"
    busy = EngineUnavailableError(f"{path} is held by another process", subject=str(path), hint=hint)
    return lock_file(path, busy, wait=_LOCK_WAIT)
