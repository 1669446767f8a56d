"""Connections to the PostgreSQL database of MLflow's tables, with the errors of its server mapped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from cumulant.core.errors import StorageError
from cumulant.drivers.mlflow.location import SUBJECT, PostgresTablesLocation, load_psycopg


@contextmanager
def connect(location: PostgresTablesLocation) -> Iterator[Any]:
    """A connection of psycopg, with names looked up in the schema; each statement is its own transaction.

    Raises:
        MissingPartError: psycopg is not installed.
        EngineUnavailableError: the server does not answer, or no more.
        UsageError: it refuses the connection.
        StorageError: it refuses a statement for lack of a right.
    """
    psycopg = load_psycopg()
    from cumulant.core.network import postgresql

    try:
        options = f"-csearch_path={location.schema}"
        opened = psycopg.connect(**location.settings, options=options, autocommit=True)
    except psycopg.Error as error:
        raise postgresql.explain_connection(error, where=location.name, subject=SUBJECT) from error
    with closing(opened):
        try:
            yield opened
        except psycopg.OperationalError as error:
            raise postgresql.unreachable(error, where=location.name, subject=SUBJECT) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise refusal(postgresql.detail(error), location) from error


def has_tables(opened: Any, location: PostgresTablesLocation) -> bool:
    """Whether the schema is there with MLflow's tables.

    Raises:
        StorageError: the user may not use the schema, so that this is not known.
    """
    text = "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %s"
    usable = opened.execute(text, (location.schema,)).fetchone()
    if usable is None:
        return False
    if not usable[0]:
        raise refusal(f"permission denied for schema {location.schema}", location)
    row = opened.execute("SELECT to_regclass(%s) IS NOT NULL", (f'"{location.schema}".experiments',)).fetchone()
    return bool(row[0])


def refusal(text: str, location: PostgresTablesLocation) -> StorageError:
    return StorageError(
        f"the registry's database refuses: {text}",
        subject=location.name,
        hint="let the user create a schema in this database, or own an empty one, or grant it the tables; "
        "&schema= names another",
    )
