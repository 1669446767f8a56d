"""The online store in one SQLite file: blobs by key; whole tables are replaced without blocking readers."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from cumulant.core.errors import StorageError
from cumulant.core.scope import Scope
from cumulant.drivers.local.location import locate
from cumulant.drivers.local.sqlite import Database
from cumulant.ports.online import Cells, Result

_SCHEMA = """
CREATE TABLE tables (name TEXT PRIMARY KEY, generation INTEGER UNIQUE) WITHOUT ROWID;
CREATE TABLE generations (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID
"""
_BATCH = 5_000
#: keys of one query
_MOST_KEYS = 128
_MAPPED = 1024**3
_META = msgspec.json.Decoder(dict[str, str])


class SqliteOnline:
    """`sqlite:///path/online.db`. Each generation of a table is an SQL table of its own.

    `swap` fills the next generation in short transactions and then points the name at it; readers use the old one
    until then. The next swap removes the rows of a killed one. The names of tables begin with the scope's prefix.

    Raises:
        StorageError: no space, a folder that cannot be written, a damaged file.
    """

    remote = False

    def __init__(self, url: str, *, scope: Scope | None = None) -> None:
        path = locate(url).path
        self._prefix = "" if scope is None else scope.prefix
        # After a power cut the next materialisation restores a filled table, but not an update.
        self._database = _open(path, durable=False)
        self._durable = _open(path, durable=True)
        # The generation by table. Reading a dropped one fails, so that a stale number is detected.
        self._generations: dict[str, int] = {}

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        connection = self._database.acquire()
        try:
            for _ in range(100):
                try:
                    generation = self._generations.get(table) or self._find(connection, table)
                    if generation is None:
                        return [None] * len(keys)
                    if len(keys) > _MOST_KEYS:
                        connection.execute("BEGIN")
                    return _read(connection, generation, keys)
                except sqlite3.OperationalError as error:
                    if not str(error).startswith("no such table"):
                        raise
                    self._generations.pop(table, None)
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise self._database.explain(error) from error
        finally:
            self._database.release(connection)
        raise StorageError(f"online table {table} was replaced again and again while it was read", subject=table)

    async def read(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.get(table, keys)

    def put(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        table, rows = self._prefix + table, list(rows)
        with self._database.write() as connection:
            generation = _generation(connection, table)
            if generation is None:
                generation = _begin(connection, table)
                _point(connection, table, generation)
            _insert(connection, generation, rows)
        return len(rows)

    def swap(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        table = self._prefix + table
        with self._database.write() as connection:
            generation = _begin(connection, table)
        count, remaining = 0, iter(rows)
        try:
            while batch := list(itertools.islice(remaining, _BATCH)):
                with self._database.write() as connection:
                    _insert(connection, generation, batch)
            with self._database.write() as connection:
                count = int(connection.execute(f"SELECT count(*) FROM {_name(generation)}").fetchone()[0])  # noqa: S608
                _point(connection, table, generation)
        except BaseException:
            self._discard(generation)
            raise
        return count

    def update(self, change: Callable[[Cells], Result]) -> Result:
        with self._durable.write() as connection:
            return change(_Cells(connection, self._prefix))

    def meta(self, table: str) -> dict[str, str]:
        with self._database.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE name = ?", (self._prefix + table,)).fetchone()
        return _META.decode(row[0]) if row else {}

    def put_meta(self, table: str, meta: dict[str, str]) -> None:
        with self._database.write() as connection:
            row = (self._prefix + table, msgspec.json.encode(meta))
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)

    def tables(self) -> list[str]:
        with self._database.read() as connection:
            rows = connection.execute("SELECT name FROM generations UNION SELECT name FROM meta ORDER BY name")
            names = [name for (name,) in rows.fetchall()]
        return [name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix)]

    def drop(self, table: str) -> None:
        table = self._prefix + table
        with self._database.write() as connection:
            connection.execute("DELETE FROM tables WHERE name = ?", (table,))
            connection.execute("DELETE FROM meta WHERE name = ?", (table,))
            generations = connection.execute("SELECT number FROM generations WHERE name = ?", (table,))
            for (number,) in generations.fetchall():
                _drop(connection, number)

    def close(self) -> None:
        self._database.close()
        self._durable.close()

    def _find(self, connection: sqlite3.Connection, table: str) -> int | None:
        """The generation of `table`; None where there is no such table."""
        generation = _generation(connection, self._prefix + table)
        if generation is not None:
            self._generations[table] = generation
        return generation

    def _discard(self, generation: int) -> None:
        with self._database.write() as connection:
            _drop(connection, generation)


class _Cells:
    """Blobs within one serialized write transaction."""

    def __init__(self, connection: sqlite3.Connection, prefix: str) -> None:
        self._connection, self._prefix = connection, prefix
        self._generations: dict[str, int] = {}

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        generation = self._generation(table)
        return [None] * len(keys) if generation is None else _read(self._connection, generation, keys)

    def put(self, table: str, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        generation = self._generation(table)
        if generation is None:
            generation = self._generations[table] = _begin(self._connection, self._prefix + table)
            _point(self._connection, self._prefix + table, generation)
        written = list(rows)
        _insert(self._connection, generation, [(key, blob) for key, blob in written if blob is not None])
        deleted = [(key,) for key, blob in written if blob is None]
        if deleted:
            self._connection.executemany(f"DELETE FROM {_name(generation)} WHERE key = ?", deleted)  # noqa: S608

    def _generation(self, table: str) -> int | None:
        if table not in self._generations:
            generation = _generation(self._connection, self._prefix + table)
            if generation is None:
                return None
            self._generations[table] = generation
        return self._generations[table]


def _open(path: Path, *, durable: bool) -> Database:
    return Database(path, schema=_SCHEMA, version=1, holds="online store", durable=durable, mapped=_MAPPED)


def _name(generation: int) -> str:
    return f"rows_{generation:d}"


def _generation(connection: sqlite3.Connection, table: str) -> int | None:
    row = connection.execute("SELECT generation FROM tables WHERE name = ?", (table,)).fetchone()
    return row[0] if row else None


def _read(connection: sqlite3.Connection, generation: int, keys: Sequence[bytes]) -> list[bytes | None]:
    """The blobs of these keys. Up to 128 of them are one query, and one moment."""
    if len(keys) == 1:
        row = connection.execute(f"SELECT value FROM {_name(generation)} WHERE key = ?", keys).fetchone()  # noqa: S608
        return [row[0] if row else None]
    blobs: dict[bytes, bytes] = {}
    for first in range(0, len(keys), _MOST_KEYS):
        part = keys[first : first + _MOST_KEYS]
        size = 1 << (len(part) - 1).bit_length()  # of few sizes, as each is another statement to prepare
        marks = ", ".join("?" * size)
        select = f"SELECT key, value FROM {_name(generation)} WHERE key IN ({marks})"  # noqa: S608
        blobs.update(connection.execute(select, (*part, *[part[0]] * (size - len(part)))).fetchall())
    return [blobs.get(key) for key in keys]


def _begin(connection: sqlite3.Connection, table: str) -> int:
    # With row numbers: without them, each comparison with a key reads the whole blob that lies beside it.
    number = connection.execute("INSERT INTO generations (name) VALUES (?)", (table,)).lastrowid or 0
    connection.execute(f"CREATE TABLE {_name(number)} (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
    return number


def _insert(connection: sqlite3.Connection, generation: int, rows: list[tuple[bytes, bytes]]) -> None:
    into = f"INSERT INTO {_name(generation)} VALUES (?, ?)"  # noqa: S608
    connection.executemany(f"{into} ON CONFLICT (key) DO UPDATE SET value = excluded.value", rows)


def _point(connection: sqlite3.Connection, table: str, generation: int) -> None:
    """Make `generation` the table's rows and drop all older ones of that name."""
    connection.execute("INSERT OR REPLACE INTO tables VALUES (?, ?)", (table, generation))
    older = connection.execute("SELECT number FROM generations WHERE name = ? AND number < ?", (table, generation))
    for (number,) in older.fetchall():
        _drop(connection, number)


def _drop(connection: sqlite3.Connection, generation: int) -> None:
    connection.execute(f"DROP TABLE IF EXISTS {_name(generation)}")
    connection.execute("DELETE FROM generations WHERE number = ?", (generation,))
