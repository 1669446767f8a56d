"""Where MLflow lies: its tracking URI, and where its artifacts go."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cumulant.core.errors import StorageError, UsageError

EMBEDDED = "mlflow+sqlite"


class Location(msgspec.Struct, frozen=True):
    """`artifacts` is the folder of the embedded store's files; a server decides by itself."""

    tracking_uri: str
    database: Path | None = None
    artifacts: Path | None = None


def locate(url: str) -> Location:
    """What a URL of the driver means to MLflow.

    `mlflow+sqlite:///abs/mlflow.db` (a path without the leading slash is relative to the working directory)
    keeps its artifacts in `mlartifacts` beside the file. `http`, `https` and `databricks` go to MLflow as they are.

    Raises:
        UsageError: another scheme.
    """
    scheme, found, rest = url.partition("://")
    if scheme in ("http", "https", "databricks"):
        return Location(url)
    if scheme != EMBEDDED or not found or not rest:
        hint = f"write {EMBEDDED}:///PATH/mlflow.db, https://HOST or databricks"
        raise UsageError(f'"{url}" is no address of an MLflow registry', subject=url, hint=hint)
    database = Path(rest).expanduser().absolute()
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{database.parent} cannot be made: {error.strerror}", subject=str(database)) from error
    return Location(f"sqlite:///{database.as_posix()}", database, database.parent / "mlartifacts")
