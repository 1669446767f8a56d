"""Readers of a registry from MLflow's own tables: importing MLflow takes seconds of CPU.

Only columns that MLflow has had since it has aliases are read, and nothing is written. A database that cannot be read
this way (another schema, several workspaces) gives None: MLflow's client then reads it, or raises its error. A SQLite
file that stays locked, and a server that does not answer, raise an error: the client would wait as long again.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec

from cumulant.core.errors import EngineUnavailableError
from cumulant.drivers.mlflow.location import PostgresTablesLocation, load_psycopg
from cumulant.drivers.mlflow.postgres_connection import connect, has_tables
from cumulant.ports.registry import ModelVersion, cut_versions

Result = TypeVar("Result")
Row = tuple[Any, ...]
#: the rows of a query; its parameters are written `?`
Query = Callable[[str, Sequence[object]], list[Row]]
#: a number above those of versions, and as a limit none; PostgreSQL counts versions in 32 bits
_MOST = 2**31 - 1
#: the stage of a version that was deleted
_DELETED = "Deleted_Internal"
_COLUMNS = (
    "SELECT column_name::text FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND table_name = 'registered_models'"
)
#: pages of versions that a connection remembers
_RESULTS = 16
#: the bits of an SQLite error code of its kind
_PRIMARY = 0xFF


class VersionPage(NamedTuple):
    """Of the versions of a model, the newest first, at most `limit` below the number `before`."""

    before: int | None = None
    limit: int | None = None

    def cut(self, listed: Sequence[ModelVersion]) -> list[ModelVersion]:
        return list(cut_versions(listed, None if self.before is None else str(self.before), self.limit))


ALL_VERSIONS = VersionPage()


class _Memory:
    """What reads of a connection gave, as long as nobody writes to the file."""

    def __init__(self) -> None:
        self._version = -1
        self._results: dict[object, object] = {}

    def read(self, query: Query, read: Callable[[Query], Result | None], key: object) -> Result | None:
        """`read(query)`, or what it gave under this key; within a transaction."""
        [(version,)] = query("PRAGMA data_version", ())  # SQLite changes it when another connection has written
        if version != self._version or len(self._results) >= _RESULTS:
            self._version, self._results = version, {}
        if key not in self._results:
            self._results[key] = read(query)
        return cast("Result | None", self._results[key])


class _Connection(NamedTuple):
    """A connection that no other thread uses, with the process and the number of the file that it was opened for."""

    opened: sqlite3.Connection
    file: tuple[int, int]
    memory: _Memory


class Tables(msgspec.Struct, frozen=True):
    """Those of a SQLite file."""

    database: Path
    #: seconds to wait for a lock
    wait: float = 10.0
    #: connections for the next reads: opening one parses the schema of all of MLflow's tables
    idle: deque[_Connection] = msgspec.field(default_factory=deque)

    def models(self) -> list[str] | None:
        if not self.database.exists():
            return []
        names = self._read(_in_default_workspace(_models), key=_models)
        return None if names is None else names.copy()

    def versions(self, name: str, page: VersionPage = ALL_VERSIONS) -> list[ModelVersion] | None:
        if not self.database.exists():
            return []
        key = None if page.limit is None else (name, page)
        listed = self._read(_in_default_workspace(partial(_versions, name, page)), key=key)
        return None if listed is None else [msgspec.structs.replace(each, tags=dict(each.tags)) for each in listed]

    def metrics(self, run_id: str) -> dict[str, float] | None:
        """The last value of each metric of a run that exists."""
        return self._read(partial(_metrics, run_id))

    def folder(self, version: ModelVersion) -> Path | None:
        """The folder of a version's files, where they lie in the file system."""
        folder = _folder(self._read(_in_default_workspace(partial(_storage, version))))
        return folder if folder is not None and folder.is_dir() else None

    def artifacts(self, run_id: str) -> Path | None:
        """The folder of a run's files, where they lie in the file system; it may not be there yet."""
        return _folder(self._read(partial(_artifacts, run_id)))

    def _read(self, read: Callable[[Query], Result | None], *, key: object = None) -> Result | None:
        """The result of `read` on one state of the file; None if the file cannot be read this way. `key`: it may be
        remembered under this, and nobody changes it.
        """
        try:
            connection = self._acquire()
            opened = connection.opened
            try:
                opened.execute("BEGIN")
                query: Query = lambda text, values: opened.execute(text, tuple(values)).fetchall()  # noqa: E731
                result = read(query) if key is None else connection.memory.read(query, read, key)
                opened.execute("COMMIT")
            except BaseException:
                opened.close()
                raise
            self.idle.append(connection)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & _PRIMARY == sqlite3.SQLITE_BUSY:
                raise EngineUnavailableError(
                    f"the registry does not answer: {error}",
                    subject=str(self.database),
                    hint="run it again when the process that writes to the registry has ended",
                ) from error
            return None
        return result

    def _acquire(self) -> _Connection:
        """A connection to the file that stands there now, of this process: none survives a fork."""
        file = (os.getpid(), self.database.stat().st_ino if self.database.exists() else 0)
        with suppress(IndexError):
            while (connection := self.idle.pop()).file != file:
                pass
            return connection
        address = f"{self.database.as_uri()}?mode=ro"
        opened = sqlite3.connect(address, self.wait, isolation_level=None, uri=True, check_same_thread=False)
        return _Connection(opened, file, _Memory())


class PostgresTables(msgspec.Struct, frozen=True):
    """Those of a schema of a PostgreSQL database."""

    location: PostgresTablesLocation

    def models(self) -> list[str] | None:
        absent: list[str] = []
        return self._read(_in_default_workspace(_models, _COLUMNS), absent)

    def versions(self, name: str, page: VersionPage = ALL_VERSIONS) -> list[ModelVersion] | None:
        absent: list[ModelVersion] = []
        return self._read(_in_default_workspace(partial(_versions, name, page), _COLUMNS), absent)

    def metrics(self, run_id: str) -> dict[str, float] | None:
        """The last value of each metric of a run that exists."""
        return self._read(partial(_metrics, run_id), None)

    def storage(self, version: ModelVersion) -> str | None:
        """The address of a version's files."""
        return self._read(_in_default_workspace(partial(_storage, version), _COLUMNS), None)

    def _read(self, read: Callable[[Query], Result | None], absent: Result | None) -> Result | None:
        """The result of `read` on one state of the tables, `absent` where there are none yet; None if they cannot be
        read this way.

        Raises:
            EngineUnavailableError, UsageError, StorageError: as `connect`; MLflow's client would fail too.
        """
        psycopg = load_psycopg()
        try:
            with connect(self.location) as opened:
                if not has_tables(opened, self.location):
                    return absent
                opened.read_only, opened.isolation_level = True, psycopg.IsolationLevel.REPEATABLE_READ

                def query(text: str, values: Sequence[object]) -> list[Row]:
                    return list(opened.execute(text.replace("?", "%s"), tuple(values)).fetchall())

                with opened.transaction():
                    return read(query)
        except psycopg.Error:
            return None


def _in_default_workspace(
    read: Callable[[Query], Result | None], columns: str = "SELECT name FROM pragma_table_info('registered_models')"
) -> Callable[[Query], Result | None]:
    """`read`, or None where models of another workspace than the default one are registered. `columns` is the query of
    the names of the columns of registered models.
    """

    def checked(query: Query) -> Result | None:
        if ("workspace",) in query(columns, ()):
            text = "SELECT 1 FROM registered_models WHERE coalesce(workspace, '') != 'default' LIMIT 1"
            if query(text, ()):
                return None
        return read(query)

    return checked


def _models(query: Query) -> list[str]:
    return sorted(name for (name,) in query("SELECT name FROM registered_models", ()))


def _versions(name: str, page: VersionPage, query: Query) -> list[ModelVersion]:
    tags: dict[int, dict[str, str]] = defaultdict(dict)
    aliases: dict[int, list[str]] = defaultdict(list)
    most = _MOST if page.before is None else page.before - 1
    rows = query(
        "SELECT version, run_id, coalesce(creation_time, last_updated_time, 0) FROM model_versions"
        " WHERE name = ? AND current_stage != ? AND version <= ? ORDER BY version DESC LIMIT ?",
        (name, _DELETED, most, _MOST if page.limit is None else page.limit),
    )
    of_these = (name, rows[-1][0] if rows else 0, rows[0][0] if rows else 0)
    named = "WHERE name = ? AND version BETWEEN ? AND ?"
    for version, key, value in query(f"SELECT version, key, value FROM model_version_tags {named}", of_these):  # noqa: S608 - constants
        tags[version][key] = value
    for version, alias in query(f"SELECT version, alias FROM registered_model_aliases {named}", of_these):  # noqa: S608 - constants
        aliases[version].append(alias)
    return [
        model_version(name, version, run_id, created, aliases=tuple(sorted(aliases[version])), tags=tags[version])
        for version, run_id, created in rows
    ]


def model_version(
    name: str, version: object, run_id: str | None, created: int, *, aliases: tuple[str, ...], tags: dict[str, str]
) -> ModelVersion:
    """A version that was `created` so many milliseconds after 1970 UTC."""
    uri, moment = f"models:/{name}/{version}", datetime.fromtimestamp(created / 1000, UTC)
    return ModelVersion(
        name=name, version=str(version), uri=uri, run_id=run_id, created=moment, aliases=aliases, tags=tags
    )


def _metrics(run_id: str, query: Query) -> dict[str, float] | None:
    if not query("SELECT 1 FROM runs WHERE run_uuid = ?", (run_id,)):
        return None
    rows = query("SELECT key, value, is_nan FROM latest_metrics WHERE run_uuid = ?", (run_id,))
    return {key: math.nan if is_nan else value for key, value, is_nan in rows}


def _artifacts(run_id: str, query: Query) -> str | None:
    rows = query("SELECT artifact_uri FROM runs WHERE run_uuid = ?", (run_id,))
    return rows[0][0] if rows else None


def _folder(uri: str | None) -> Path | None:
    place = urlsplit(uri or "")
    return Path(url2pathname(place.path)) if place.scheme == "file" and not place.netloc else None


def _storage(version: ModelVersion, query: Query) -> str | None:
    text = "SELECT storage_location FROM model_versions WHERE name = ? AND version = ?"
    rows = query(text, (version.name, int(version.version)))
    return rows[0][0] if rows else None
