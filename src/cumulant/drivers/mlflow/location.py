"""The location of MLflow: its tracking URI and its artifacts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cumulant.core.errors import StorageError, UsageError

EMBEDDED = "mlflow+sqlite"


class TrackingLocation(msgspec.Struct, frozen=True):
    """A tracking URI. `artifacts`: the folder of the embedded store's files; a server chooses its own."""

    tracking_uri: str
    database: Path | None = None
    artifacts: Path | None = None


def locate(url: str) -> TrackingLocation:
    """The location that a URL of the driver names.

    `mlflow+sqlite:///abs/mlflow.db` (a path without the leading slash is relative to the working directory) has its
    artifacts in `mlartifacts` beside the file. `http`, `https` and `databricks` are passed to MLflow unchanged.

    Raises:
        UsageError: another scheme.
    """
    scheme, separator, rest = url.partition("://")
    if scheme in ("http", "https", "databricks"):
        return TrackingLocation(url)
    if scheme != EMBEDDED or not separator or not rest:
        hint = f"write {EMBEDDED}:///PATH/mlflow.db, https://HOST or databricks"
        raise UsageError(f'"{url}" is no address of an MLflow registry', subject=url, hint=hint)
    database = Path(rest).expanduser().absolute()
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{database.parent} cannot be made: {error.strerror}", subject=str(database)) from error
    return TrackingLocation(f"sqlite:///{database.as_posix()}", database, database.parent / "mlartifacts")
