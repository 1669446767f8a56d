"""MLflow's own tables in a schema of a PostgreSQL database, which appears atomically."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from cumulant.drivers.mlflow.location import PostgresTablesLocation, load_psycopg, mlflow_uri
from cumulant.drivers.mlflow.postgres_connection import connect, has_tables, refusal

#: of the advisory lock under which one process at a time makes the tables: `mlflow` as a number
_LOCK = 0x6D6C666C6F77


def make_schema(location: PostgresTablesLocation) -> None:
    """Create MLflow's tables, unless the schema has them.

    MLflow creates them one after another, each in a transaction of its own. So that nobody uses some of them, they are
    created in a draft that is renamed, by one process at a time. A schema that exists without them, such as `public`,
    gets them directly.

    Raises:
        EngineUnavailableError: the server does not answer.
        UsageError: it refuses the connection.
        StorageError: it refuses to make them.
    """
    psycopg = load_psycopg()
    from cumulant.core.network.postgresql import detail

    try:
        with connect(location) as opened:
            if has_tables(opened, location):
                return
            opened.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))  # it ends with the connection
            if not has_tables(opened, location):
                _make(opened, location)
    except psycopg.Error as error:
        raise refusal(detail(error), location) from error


def _make(opened: Any, location: PostgresTablesLocation) -> None:
    present = opened.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (location.schema,)).fetchone()
    if present:
        _make_tables(location, location.schema)
        return
    # Named after its schema: another user's draft of another schema, which was left, is not this user's to drop.
    draft = f"{location.schema}_draft"
    opened.execute(f'DROP SCHEMA IF EXISTS "{draft}" CASCADE')
    opened.execute(f'CREATE SCHEMA "{draft}"')
    _make_tables(location, draft)
    opened.execute(f'ALTER SCHEMA "{draft}" RENAME TO "{location.schema}"')


def _make_tables(location: PostgresTablesLocation, schema: str) -> None:
    module = import_module("mlflow.store.tracking.sqlalchemy_store")
    store = module.SqlAlchemyStore(mlflow_uri(location.settings, schema), location.artifacts)
    store.engine.dispose()
