"""How tables of online state lie in SQLite: large blobs apart from the keys, and stores of earlier versions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from cumulant.core.scope import Scope
from cumulant.drivers.local.online import SqliteOnline


def test_searching_a_key_reads_no_blob_of_another_key(tmp_path: Path) -> None:
    """In a table without row numbers a comparison with a key reads its whole blob, so that filling is quadratic."""
    store = SqliteOnline(f"sqlite://{tmp_path}/online.db")
    store.swap("t", [(b"key", b"blob")])
    store.close()
    with sqlite3.connect(tmp_path / "online.db") as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name LIKE 'rows_%'").fetchone()
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT value FROM rows_1 WHERE key = ?", (b"key",)).fetchone()
    connection.close()
    assert "WITHOUT ROWID" not in sql
    assert "USING INDEX" in plan[-1]


def test_tables_of_earlier_versions_are_read_and_written(tmp_path: Path) -> None:
    SqliteOnline(f"sqlite://{tmp_path}/online.db").put("t", [(b"a", b"1"), (b"b", b"2")])
    with sqlite3.connect(tmp_path / "online.db") as connection:
        connection.execute("ALTER TABLE rows_1 RENAME TO newer")
        connection.execute("CREATE TABLE rows_1 (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        connection.execute("INSERT INTO rows_1 SELECT key, value FROM newer")
        connection.execute("DROP TABLE newer")
    connection.close()
    store = SqliteOnline(f"sqlite://{tmp_path}/online.db")
    assert store.get("t", [b"a", b"b"]) == [b"1", b"2"]
    store.put("t", [(b"a", b"3")])
    store.update(lambda cells: cells.put("t", [(b"b", None), (b"c", b"4")]))
    assert store.get("t", [b"a", b"b", b"c"]) == [b"3", None, b"4"]
    assert store.swap("t", [(b"d", b"5")]) == 1
    assert store.get("t", [b"a", b"d"]) == [None, b"5"]
    store.close()


def test_projects_on_one_file_do_not_see_each_other(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/online.db"
    stores = {name: SqliteOnline(url, scope=Scope(project=name)) for name in ("one", "two")}
    for name, store in stores.items():
        store.swap("t", [(b"a", name.encode())])
        store.update(lambda cells, name=name: cells.put("t", [(b"b", name.encode())]))  # type: ignore[misc]
        store.put_meta("t", {"of": name})
    stores["one"].drop("t")
    assert (stores["one"].tables(), stores["one"].meta("t")) == ([], {})
    assert stores["one"].get("t", [b"a"]) == [None]
    assert (stores["two"].tables(), stores["two"].meta("t")) == (["t"], {"of": "two"})
    assert stores["two"].get("t", [b"a", b"b"]) == [b"two", b"two"]
    for store in stores.values():
        store.close()
