"""The tables of a journal in PostgreSQL, as numbered migrations that are applied under a lock.

A migration that was released is never changed; a change of the tables is a further one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from psycopg import sql

from cumulant.core.errors import UsageError

if TYPE_CHECKING:
    from psycopg import Connection

    from cumulant.drivers.postgres.connection import LimitedConnection

_OLDEST_SERVER = 130000

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE migrations (number integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now());
    CREATE TABLE state (
        scope text COLLATE "C" NOT NULL, kind text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL,
        version bigint NOT NULL, updated bigint NOT NULL, value text,
        PRIMARY KEY (scope, kind, key)
    );
    CREATE TABLE events (
        scope text COLLATE "C" NOT NULL, seq bigint NOT NULL, kind text COLLATE "C" NOT NULL, run text COLLATE "C",
        envelope text NOT NULL,
        PRIMARY KEY (scope, seq)
    );
    CREATE INDEX events_by_kind ON events (scope, kind, seq);
    CREATE INDEX events_by_run ON events (scope, run, seq) WHERE run IS NOT NULL;
    CREATE TABLE chain (scope text COLLATE "C" PRIMARY KEY, seq bigint NOT NULL, hash text NOT NULL);
    CREATE TABLE cursors (
        scope text COLLATE "C" NOT NULL, subscriber text COLLATE "C" NOT NULL, seq bigint NOT NULL,
        PRIMARY KEY (scope, subscriber)
    );
    CREATE TABLE row_writes (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, scope text COLLATE "C" NOT NULL, event bigint NOT NULL,
        kind text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, version bigint NOT NULL, hash text NOT NULL
    );
    CREATE UNIQUE INDEX row_writes_waiting ON row_writes (scope, kind, key) WHERE event = 0;
    CREATE INDEX row_writes_by_event ON row_writes (scope, event, id);
    """,
)


def lock_number(text: str) -> int:
    """The number of an advisory lock for what `text` names."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], signed=True)


def migrate(connection: LimitedConnection, schema: str, *, wait: float) -> None:
    """Bring the tables of `schema` to the present version. Others that do so at once are waited for.

    Raises:
        UsageError: the server is too old, stores no UTF-8, or has tables of a newer Cumulant.
        psycopg.Error: what the server refuses.
    """
    if _present(connection, schema) == len(MIGRATIONS):
        return
    _check_server(connection)
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = {round(wait * 1000)}")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_number(f"cumulant migrations {schema}"),))
        for number in range(_present(connection, schema), len(MIGRATIONS)):
            if number == 0:
                _make_schema(connection, schema)
            with connection.unlimited():  # tables may be large
                connection.execute(MIGRATIONS[number])
            connection.execute("INSERT INTO migrations (number) VALUES (%s)", (number + 1,))


def _present(connection: Connection, schema: str) -> int:
    """The newest migration that was applied; 0 where there are no tables."""
    # Not `to_regclass`: it may answer from a cache of before another process's migration.
    tables = connection.execute(
        "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = 'migrations'", (schema,)
    )
    if tables.fetchone() is None:
        return 0
    row = connection.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchone()
    number: int = row[0] if row else 0
    if number > len(MIGRATIONS):
        raise UsageError(
            f"the journal was written by a newer Cumulant (format {number}, known: {len(MIGRATIONS)})",
            subject=schema,
            hint="upgrade: pip install -U cumulant",
        )
    return number


def _check_server(connection: Connection) -> None:
    if connection.info.server_version < _OLDEST_SERVER:
        raise UsageError(
            f"the journal needs PostgreSQL 13 or newer, and the server is {connection.info.server_version // 10000}",
            subject="journal",
            hint="upgrade the server",
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise UsageError(
            f"the journal needs a database of UTF-8 text, and this one has {encoding}",
            subject="journal",
            hint="make another: CREATE DATABASE cumulant ENCODING 'UTF8' TEMPLATE template0",
        )


def _make_schema(connection: Connection, schema: str) -> None:
    present = connection.execute("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", (schema,))
    if present.fetchone() is None:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
