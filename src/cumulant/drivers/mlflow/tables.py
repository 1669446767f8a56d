"""A reader of a registry in a SQLite file, from MLflow's own tables: importing MLflow takes seconds of CPU.

Only columns that MLflow has had since it has aliases are read, and nothing is written. A file that cannot be read this
way (another schema, several workspaces) gives None: MLflow's client then reads it, or raises its error. One that stays
locked raises EngineUnavailableError: the client would wait as long again for the same.
"""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec

from cumulant.core.errors import EngineUnavailableError
from cumulant.ports.registry import ModelVersion

Result = TypeVar("Result")
#: the stage of a version that was deleted
_DELETED = "Deleted_Internal"
#: the bits of an SQLite error code of its kind
_PRIMARY = 0xFF


class Tables(msgspec.Struct, frozen=True):
    database: Path
    #: seconds to wait for a lock
    wait: float = 10.0

    def models(self) -> list[str] | None:
        return self._read(_in_default_workspace(_models)) if self.database.exists() else []

    def versions(self, name: str) -> list[ModelVersion] | None:
        return self._read(_in_default_workspace(partial(_versions, name))) if self.database.exists() else []

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

    def _read(self, read: Callable[[sqlite3.Connection], Result | None]) -> Result | None:
        """The result of `read` on one state of the file; None if the file cannot be read this way."""
        try:
            with closing(
                sqlite3.connect(f"{self.database.as_uri()}?mode=ro", self.wait, isolation_level=None, uri=True)
            ) as opened:
                opened.execute("BEGIN")
                return read(opened)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & _PRIMARY == sqlite3.SQLITE_BUSY:
                raise EngineUnavailableError(
                    f"the registry does not answer: {error}",
                    subject=str(self.database),
                    hint="run it again when the process that writes to the registry has ended",
                ) from error
            return None


def _in_default_workspace(
    read: Callable[[sqlite3.Connection], Result | None],
) -> Callable[[sqlite3.Connection], Result | None]:
    """`read`, or None where models of another workspace than the default one are registered."""

    def checked(opened: sqlite3.Connection) -> Result | None:
        columns = {row[1] for row in opened.execute("PRAGMA table_info(registered_models)")}
        if "workspace" in columns:
            query = "SELECT 1 FROM registered_models WHERE workspace IS NOT 'default' LIMIT 1"
            if opened.execute(query).fetchone() is not None:
                return None
        return read(opened)

    return checked


def _models(opened: sqlite3.Connection) -> list[str]:
    return [name for (name,) in opened.execute("SELECT name FROM registered_models ORDER BY name")]


def _versions(name: str, opened: sqlite3.Connection) -> list[ModelVersion]:
    tags: dict[int, dict[str, str]] = defaultdict(dict)
    aliases: dict[int, list[str]] = defaultdict(list)
    for version, key, value in opened.execute(
        "SELECT version, key, value FROM model_version_tags WHERE name = ?", (name,)
    ):
        tags[version][key] = value
    for version, alias in opened.execute(
        "SELECT version, alias FROM registered_model_aliases WHERE name = ? ORDER BY alias", (name,)
    ):
        aliases[version].append(alias)
    rows = opened.execute(
        "SELECT version, run_id, coalesce(creation_time, last_updated_time, 0) FROM model_versions"
        " WHERE name = ? AND current_stage != ? ORDER BY version DESC",
        (name, _DELETED),
    )
    return [
        model_version(name, version, run_id, created, aliases=tuple(aliases[version]), tags=tags[version])
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


def _metrics(run_id: str, opened: sqlite3.Connection) -> dict[str, float] | None:
    if opened.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run_id,)).fetchone() is None:
        return None
    rows = opened.execute("SELECT key, value, is_nan FROM latest_metrics WHERE run_uuid = ?", (run_id,))
    return {key: math.nan if is_nan else value for key, value, is_nan in rows}


def _artifacts(run_id: str, opened: sqlite3.Connection) -> str | None:
    row = opened.execute("SELECT artifact_uri FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
    return row[0] if row else None


def _folder(uri: str | None) -> Path | None:
    place = urlsplit(uri or "")
    return Path(url2pathname(place.path)) if place.scheme == "file" and not place.netloc else None


def _storage(version: ModelVersion, opened: sqlite3.Connection) -> str | None:
    query = "SELECT storage_location FROM model_versions WHERE name = ? AND version = ?"
    row = opened.execute(query, (version.name, int(version.version))).fetchone()
    return row[0] if row else None
