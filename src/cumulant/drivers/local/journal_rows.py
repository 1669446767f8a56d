"""Queries of the state rows and events of a journal in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from cumulant.core.units import from_micros
from cumulant.ports.journal import Row, RowVersion
from cumulant.ports.journal_store import after_prefix, decode_value, divide_kinds, key_range


def get(connection: sqlite3.Connection, scope: str, kind: str, key: str) -> Row | None:
    row = connection.execute(
        "SELECT key, value, version, updated FROM state WHERE scope = ? AND kind = ? AND key = ? AND value IS NOT NULL",
        (scope, kind, key),
    ).fetchone()
    return _row(kind, row) if row else None


def rows(
    connection: sqlite3.Connection,
    scope: str,
    kind: str,
    prefix: str = "",
    *,
    after: str | None = None,
    limit: int | None = None,
    descending: bool = False,
) -> list[Row]:
    place = (scope, kind, *key_range(prefix, after, descending=descending))
    return [_row(kind, row) for row in _select(connection, "value, ", place, limit=limit, descending=descending)]


def _select(
    connection: sqlite3.Connection,
    value: Literal["value, ", ""],
    place: tuple[str | None, ...],
    *,
    limit: int | None,
    descending: bool,
) -> Iterator[tuple[Any, ...]]:
    """The columns of rows, with their values or without. `place`: scope, kind, and the fields of a `KeyRange`."""
    return connection.execute(
        f"SELECT key, {value}version, updated FROM state WHERE scope = ?1 AND kind = ?2 AND value IS NOT NULL"  # noqa: S608 - constants
        " AND key >= ?3 AND (?4 IS NULL OR key > ?4) AND (?5 IS NULL OR key < ?5)"
        f" ORDER BY key {'DESC' if descending else 'ASC'} LIMIT ?6",
        (*place, -1 if limit is None else limit),
    )


def count(connection: sqlite3.Connection, scope: str, kind: str, prefix: str) -> int:
    (count,) = connection.execute(
        "SELECT count(*) FROM state WHERE scope = ?1 AND kind = ?2 AND value IS NOT NULL"
        " AND key >= ?3 AND (?4 IS NULL OR key < ?4)",
        (scope, kind, prefix, after_prefix(prefix)),
    ).fetchone()
    return int(count)


def versions(
    connection: sqlite3.Connection, place: tuple[str | None, ...], *, limit: int | None, descending: bool
) -> list[RowVersion]:
    listed = _select(connection, "", place, limit=limit, descending=descending)
    return [RowVersion(key, version, from_micros(updated)) for key, version, updated in listed]


def events(
    connection: sqlite3.Connection,
    scope: str,
    between: tuple[int, int | None],
    *,
    limit: int,
    kinds: Sequence[str],
    run: str | None,
) -> list[tuple[Any, ...]]:
    """Events with a number above the first of `between` and below the second: (number, kind, run, envelope)."""
    conditions: list[str] = ["scope = ?", "seq > ?"]
    values: list[object] = [scope, between[0]]
    if between[1] is not None:
        conditions.append("seq < ?")
        values.append(between[1])
    if run is not None:
        conditions.append("run = ?")
        values.append(run)
    exact, prefixes = divide_kinds(kinds)
    if prefixes:  # the events of a group are in order only without the index by kind, which `+` keeps away
        alternatives = [*["+kind = ?"] * len(exact), *["substr(kind, 1, length(?)) = ?"] * len(prefixes)]
        conditions.append(f"({' OR '.join(alternatives)})")
        values.extend((*exact, *(text for prefix in prefixes for text in (prefix, prefix))))
    elif exact:
        conditions.append(f"kind IN ({', '.join('?' * len(exact))})")
        values.extend(exact)
    return connection.execute(
        f"SELECT seq, kind, run, envelope FROM events WHERE {' AND '.join(conditions)} ORDER BY seq LIMIT ?",  # noqa: S608 - constants
        (*values, limit),
    ).fetchall()


def _row(kind: str, columns: tuple[str, bytes, int, int]) -> Row:
    key, value, version, updated = columns
    return Row(kind, key, decode_value(value), version, from_micros(updated))
