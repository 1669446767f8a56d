"""The location of MLflow: its tracking URI and its artifacts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from cumulant.core.errors import StorageError, UsageError, missing_part

EMBEDDED = "mlflow+sqlite"
POSTGRES = "mlflow+postgresql"
SCHEMA = "mlflow"
#: of errors
SUBJECT = "registry"
#: object stores whose addresses are the same for MLflow itself
BUCKETS = ("s3://", "gs://")
_POSTGRES_HINT = f"write {POSTGRES}://USER:${{secret:NAME}}@HOST:PORT/DATABASE?artifacts=s3://BUCKET/FOLDER"


class PostgresTablesLocation(msgspec.Struct, frozen=True):
    """MLflow's tables in a schema of a PostgreSQL database, reached by `settings` of libpq; the address of the files of
    new experiments; and the database's name without its password.
    """

    settings: dict[str, str]
    schema: str
    artifacts: str
    name: str


class TrackingLocation(msgspec.Struct, frozen=True):
    """A tracking URI. `artifacts`: the folder of the embedded store's files; a server chooses its own."""

    tracking_uri: str
    database: Path | None = None
    artifacts: Path | None = None
    postgres: PostgresTablesLocation | None = None

    @property
    def name(self) -> str:
        """For errors: without user and password."""
        if self.postgres is not None:
            return self.postgres.name
        scheme, mark, rest = self.tracking_uri.partition("://")
        address, slash, path = rest.partition("/")
        return f"{scheme}{mark}{address.rpartition('@')[2]}{slash}{path}"


def locate(url: str) -> TrackingLocation:
    """The location that a URL of the driver names.

    `mlflow+sqlite:///abs/mlflow.db` (a path without the leading slash is relative to the working directory) has its
    artifacts in `mlartifacts` beside the file. `mlflow+postgresql://USER:PASSWORD@HOST:PORT/DATABASE?artifacts=URL` has
    its tables in the schema `mlflow`, or that of `&schema=`; further options are those of libpq. `http`, `https` and
    `databricks` are passed to MLflow unchanged.

    Raises:
        UsageError: another scheme, or options that are missing or invalid.
    """
    scheme, separator, rest = url.partition("://")
    if scheme in ("http", "https", "databricks"):
        return TrackingLocation(url)
    if scheme == POSTGRES:
        return _postgres(rest)
    if scheme != EMBEDDED or not separator or not rest:
        hint = f"write {EMBEDDED}:///PATH/mlflow.db, {POSTGRES}://HOST/DATABASE, https://HOST or databricks"
        # Of another scheme it may have a password.
        raise UsageError("the registry's URL is no address of an MLflow registry", subject=SUBJECT, hint=hint)
    database = Path(rest).expanduser().absolute()
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{database.parent} cannot be made: {error.strerror}", subject=str(database)) from error
    return TrackingLocation(f"sqlite:///{database.as_posix()}", database, database.parent / "mlartifacts")


def _postgres(rest: str) -> TrackingLocation:
    """What follows the scheme."""
    load_psycopg()
    from cumulant.core.network.postgresql import parse_location

    database = parse_location(
        f"postgresql://{rest}", subject=SUBJECT, schema=SCHEMA, hint=_POSTGRES_HINT, extra=["artifacts"]
    )
    if "host" not in database.settings or "dbname" not in database.settings:
        raise UsageError("the registry's URL names no host or no database", subject=SUBJECT, hint=_POSTGRES_HINT)
    artifacts = database.extra.get("artifacts", "").rstrip("/")
    if not artifacts.startswith(BUCKETS):
        raise UsageError(
            "the registry's URL does not say where its files go: a bucket that MLflow knows, s3:// or gs://",
            subject=SUBJECT,
            hint=_POSTGRES_HINT,
        )
    if "options" in database.settings:
        raise UsageError("the registry's URL may not have the option `options`", subject=SUBJECT, hint="leave it out")
    return TrackingLocation(
        mlflow_uri(database.settings, database.schema),
        postgres=PostgresTablesLocation(database.settings, database.schema, artifacts, database.name),
    )


def mlflow_uri(settings: Mapping[str, str], schema: str) -> str:
    """The URI of a database as MLflow takes it: with its client, and the schema in which names are looked up."""
    others = {**settings, "options": f"-csearch_path={schema}"}
    user, password, database = (quote(others.pop(name, ""), safe="") for name in ("user", "password", "dbname"))
    at = f"{user}{password and ':'}{password}@" if user or password else ""
    where = ""
    if not re.search("[,/@]", others["host"]):  # several hosts, or a socket's folder, are an option
        host, port = others.pop("host"), others.pop("port", "")
        where = f"[{host}]" if ":" in host else host
        where += f":{port}" if port else ""
    return f"postgresql+psycopg://{at}{where}/{database}?{urlencode(others, quote_via=quote)}"


def load_psycopg() -> Any:
    """The client of PostgreSQL.

    Raises:
        MissingPartError: it is not installed.
    """
    try:
        return import_module("psycopg")
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "psycopg", "postgres") from None
