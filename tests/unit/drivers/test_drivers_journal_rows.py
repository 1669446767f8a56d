"""State rows and the events that carry their hashes: rows changed by hand, kills, journals of an older format."""

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import ClassVar

import msgspec
import pytest

from cumulant.core.errors import StorageError, UsageError
from cumulant.core.events import GENESIS, Actor, Event, Fact
from cumulant.core.ids import digest
from cumulant.core.scope import Scope
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.drivers.local.sqlite import Database
from cumulant.flows.alerting.store import ALERTS
from cumulant.flows.data.validate import NEWEST, SNAPSHOT
from cumulant.flows.ledger.ledger import RUN, STEP  # type: ignore[attr-defined]
from cumulant.flows.ledger.run_events import verify
from cumulant.flows.registry.model_record import MODEL
from cumulant.flows.release.store import PAST, RELEASE
from cumulant.flows.training.evaluation_record import EVALUATION
from cumulant.flows.training.window_uses import USE
from cumulant.ports.journal_store import row_hash
from cumulant.review.queue import CLOSED, DRAW, OPEN

ADA = Actor("user:ada")
DECIDING = [RUN, STEP, MODEL, RELEASE, PAST, EVALUATION, SNAPSHOT, NEWEST, USE, OPEN, CLOSED, DRAW, ALERTS]


class Happened(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "test.happened"


def tamper(folder, statement, *values):
    with closing(sqlite3.connect(folder / "journal.db")) as connection, connection:
        assert connection.execute(statement, values).rowcount > 0


def problems(journal):
    return [(found.row, found.problem) for found in verify(journal).breaks]


@pytest.fixture
def journal(tmp_path):
    """One row of each deciding kind, written with event 1, and one that was deleted with event 2."""
    opened = SqliteJournal(f"sqlite://{tmp_path}/journal.db")
    with opened.transaction(actor=ADA) as tx:
        tx.emit(Happened())
        for kind in [*DECIDING, "gone"]:
            tx.put(kind, "a", {"status": "running"})
    with opened.transaction(actor=ADA) as tx:
        tx.delete("gone", "a")
        tx.emit(Happened())
    assert problems(opened) == []
    yield opened
    opened.close()


def test_an_untouched_journal_says_what_it_compared(journal):
    verified = verify(journal)
    assert (verified.breaks, verified.rows, verified.since) == ([], len(DECIDING) + 1, 1)


@pytest.mark.parametrize("kind", DECIDING)
def test_an_edited_row_is_named(journal, tmp_path, kind):
    tamper(tmp_path, """UPDATE state SET value = '{"status":"promoted"}' WHERE kind = ?""", kind)
    assert problems(journal) == [(f"state row {kind} a", "has another content than version 1 in event 1")]


@pytest.mark.parametrize("kind", DECIDING)
def test_a_deleted_row_is_named(journal, tmp_path, kind):
    tamper(tmp_path, "DELETE FROM state WHERE kind = ?", kind)
    assert problems(journal) == [(f"state row {kind} a", "is missing: event 1 has version 1")]


@pytest.mark.parametrize("kind", DECIDING)
def test_an_inserted_row_is_named(journal, tmp_path, kind):
    tamper(tmp_path, "INSERT INTO state VALUES ('default/default/local', ?, 'b', 1, 0, '{}')", kind)
    assert problems(journal) == [(f"state row {kind} b", "was inserted: no event and no record of a write has it")]


@pytest.mark.parametrize(
    ("statement", "row", "problem"),
    [
        ("UPDATE state SET version = 7 WHERE kind = 'run'", "run", "has version 7: event 1 has version 1"),
        ("UPDATE state SET updated = 7 WHERE kind = 'run'", "run", "has another content than version 1 in event 1"),
        ("UPDATE state SET value = 7 WHERE kind = 'run'", "run", "has another content than version 1 in event 1"),
        ("UPDATE state SET value = NULL WHERE kind = 'run'", "run", "has another content than version 1 in event 1"),
        ("UPDATE state SET value = '{}' WHERE kind = 'gone'", "gone", "has another content than version 2 in event 2"),
        ("DELETE FROM state WHERE kind = 'gone'", "gone", "is missing: event 2 has version 2"),
    ],
)
def test_other_changes_of_a_row(journal, tmp_path, statement, row, problem):
    tamper(tmp_path, statement)
    assert problems(journal) == [(f"state row {row} a", problem)]


@pytest.mark.parametrize(
    "change",
    [
        "value = CAST(value AS TEXT)",
        # The text before the last " +" of the value moves into the time before it.
        """updated = updated || ' +{"note":"1', value = CAST('2"}' AS BLOB)""",
    ],
)
def test_a_row_whose_columns_hold_other_types_is_named(journal, tmp_path, change):
    with journal.transaction(actor=ADA) as tx:
        tx.put("lease", "a", {"note": "1 +2"})
        tx.emit(Happened())
    tamper(tmp_path, f"UPDATE state SET {change} WHERE kind = 'lease'")
    assert problems(journal) == [("state row lease a", "has another content than version 1 in event 3")]


def test_a_row_edited_with_its_record_set_right(journal, tmp_path):
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection, connection:
        updated = connection.execute("SELECT updated FROM state WHERE kind = 'release'").fetchone()[0]
        connection.execute("UPDATE state SET value = CAST('{}' AS BLOB) WHERE kind = 'release'")
        connection.execute("UPDATE row_writes SET hash = ? WHERE kind = 'release'", (row_hash(1, updated, b"{}"),))
    digest = "carries another digest than that of the recorded hashes of its state rows"
    assert [(found.seq, found.problem) for found in verify(journal).breaks] == [(1, digest)]


def test_records_that_were_deleted(journal, tmp_path):
    tamper(tmp_path, "DELETE FROM row_writes WHERE event = 2")
    found = verify(journal).breaks
    assert (found[0].seq, found[0].problem) == (
        2,
        "carries a digest of state rows whose recorded hashes are missing",
    )


def test_a_row_without_an_event_enters_the_next_one(journal, tmp_path):
    for number in range(3):
        with journal.transaction(actor=ADA) as tx:
            tx.put("lease", "a", {"beat": number})
    assert problems(journal) == []
    tamper(tmp_path, "UPDATE state SET value = '{}' WHERE kind = 'lease'")
    assert problems(journal) == [
        ("state row lease a", "has another content than version 3 in the record of its last write")
    ]
    with journal.transaction(actor=ADA) as tx:
        tx.emit(Happened())
    assert problems(journal) == [("state row lease a", "has another content than version 3 in event 3")]


def test_a_transaction_that_is_undone_records_nothing(journal):
    def undone():
        with journal.transaction(actor=ADA) as tx:
            tx.put("run", "a", {})
            tx.emit(Happened())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        undone()
    assert problems(journal) == []


def test_rows_written_between_two_events_of_one_transaction(tmp_path):
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")
    with journal.transaction(actor=ADA) as tx:
        tx.emit(Happened())
        tx.put("run", "a", {"n": 1})
        tx.emit(Happened())
        tx.put("run", "a", {"n": 2})
    first, second = journal.events()
    assert (first.previous, first.rows) == (GENESIS, None)
    assert second.rows is not None
    assert journal.head().hash == second.hash == journal.witness().hash
    assert problems(journal) == []


# Kills ---------------------------------------------------------------------------------------------------------


def write_for_ever(url):
    journal = SqliteJournal(url)
    number = 0
    while True:
        number += 1
        with journal.transaction(actor=ADA) as tx:
            tx.put("run", str(number % 7), {"n": number})
            if number % 3:
                tx.emit(Happened())
            tx.put("step", str(number % 5), {"n": number})


def test_a_kill_between_row_and_event_is_no_false_alarm(tmp_path):
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")
    chance = random.Random(1)
    for _ in range(5):
        seq = journal.head().seq
        process = multiprocessing.get_context("fork").Process(
            target=write_for_ever, args=(f"sqlite://{tmp_path}/journal.db",)
        )
        process.start()
        while journal.head().seq < seq + 5:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert problems(journal) == []


def test_rows_that_others_write_meanwhile_are_no_break(tmp_path):
    url = f"sqlite://{tmp_path}/journal.db"
    process = multiprocessing.get_context("fork").Process(target=write_for_ever, args=(url,))
    process.start()
    try:
        journal = SqliteJournal(url)
        while journal.head().seq < 20:
            time.sleep(0.005)
        for _ in range(20):
            assert problems(journal) == []
    finally:
        process.kill()
        process.join()


# Journals of older formats ---------------------------------------------------------------------------------------

FORMAT_1 = """
CREATE TABLE state (
    kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, updated INTEGER NOT NULL, value BLOB,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE events (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, run TEXT, envelope BLOB NOT NULL);
CREATE INDEX events_by_kind ON events (kind, seq);
CREATE INDEX events_by_run ON events (run, seq) WHERE run IS NOT NULL;
CREATE TABLE chain (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL);
CREATE TABLE cursors (subscriber TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
"""
FORMAT_2 = """
CREATE TABLE row_writes (
    id INTEGER PRIMARY KEY, event INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    version INTEGER NOT NULL, hash TEXT NOT NULL
);
CREATE UNIQUE INDEX row_writes_waiting ON row_writes (kind, key) WHERE event = 0;
"""
SHOP = Scope(project="shop")


def old_journal(folder, version):
    """A journal as format 1 or 2 held it: three events, whose hashes know no environment, and three rows."""
    previous = GENESIS
    with closing(sqlite3.connect(folder / "journal.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(FORMAT_1 + (FORMAT_2 if version == 2 else ""))
        for seq in (1, 2, 3):
            value, rows = msgspec.json.encode({"n": seq}), None
            connection.execute("INSERT INTO state VALUES ('run', ?, 1, 0, ?)", (str(seq), value))
            if version == 2:
                written = ("run", str(seq), 1, row_hash(1, 0, value))
                connection.execute(
                    "INSERT INTO row_writes (event, kind, key, version, hash) VALUES (?, ?, ?, ?, ?)", (seq, *written)
                )
                rows = digest([written])
            event = Event(
                seq=seq,
                id=f"e{seq}",
                time=datetime(2026, 5, 1, tzinfo=UTC),
                kind="test.happened",
                schema=1,
                actor="user:ada",
                reason=None,
                project="shop",
                run=None,
                cause=None,
                data={},
                previous=previous,
                rows=rows,
            ).sealed()
            previous = event.hash
            connection.execute(
                "INSERT INTO events VALUES (?, ?, NULL, ?)", (seq, event.kind, msgspec.json.encode(event))
            )
        connection.execute("INSERT INTO chain VALUES (1, 3, ?)", (previous,))
        connection.execute("INSERT INTO cursors VALUES ('console', 2)")
        connection.execute(f"PRAGMA user_version={version}")


def open_shop(url):
    """Read a journal as one of several processes that open it at once."""
    return [row.key for row in SqliteJournal(url, scope=SHOP).rows("run")]


@pytest.mark.parametrize(("version", "since"), [(1, None), (2, 1)])
def test_a_journal_of_an_older_format_goes_on(tmp_path, version, since):
    old_journal(tmp_path, version)
    url = f"sqlite://{tmp_path}/journal.db?adopt=local"
    with multiprocessing.get_context("fork").Pool(4) as pool:  # which upgrade it at once
        assert pool.map(open_shop, [url] * 4) == [["1", "2", "3"]] * 4
    journal = SqliteJournal(url, scope=SHOP)
    verified = verify(journal)
    assert (verified.breaks, verified.rows, verified.since) == ([], 3, since)
    assert journal.cursor("console") == 2
    with journal.transaction(actor=ADA) as tx:
        tx.put("run", "1", {"n": 7})
        tx.emit(Happened())
    verified = verify(journal)
    assert (verified.breaks, verified.rows, verified.since) == ([], 3, since or 4)
    assert journal.witness() == journal.head()
    assert SqliteJournal(url, scope=Scope(project="other")).rows("run") == []
    tamper(tmp_path, "UPDATE state SET value = '{}' WHERE key = '2'")
    event = 2 if since else 4
    assert problems(journal) == [("state row run 2", f"has another content than version 1 in event {event}")]


@pytest.mark.parametrize("version", [1, 2])
def test_a_journal_of_an_older_format_stays_with_its_project(tmp_path, version):
    old_journal(tmp_path, version)
    url = f"sqlite://{tmp_path}/journal.db?adopt=local"
    assert SqliteJournal(url, scope=Scope(project="other")).rows("run") == []  # which opens it first
    assert open_shop(url) == ["1", "2", "3"]
    assert verify(SqliteJournal(url, scope=SHOP)).breaks == []


@pytest.mark.parametrize("version", [1, 2])
def test_a_journal_of_an_older_format_that_cannot_be_written_still_verifies(tmp_path, monkeypatch, version):
    old_journal(tmp_path, version)
    before = (tmp_path / "journal.db").read_bytes()
    monkeypatch.setattr(Database, "frozen", property(lambda _: True))  # root may write everywhere
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db?adopt=local", scope=SHOP)
    verified = verify(journal)
    assert (verified.breaks, verified.rows) == ([], 3)
    with pytest.raises(StorageError, match="can be read but not written"), journal.transaction(actor=ADA) as tx:
        tx.put("run", "4", {})
    assert (tmp_path / "journal.db").read_bytes() == before


@pytest.mark.parametrize("event", [-1, 1_000_000_000, "one", 0.5])
def test_a_record_of_no_event_is_found(journal, tmp_path, event):
    tamper(tmp_path, "UPDATE state SET value = x'00' WHERE kind = ?", RELEASE)
    hashed = row_hash(1, *_row(tmp_path, RELEASE))
    tamper(
        tmp_path,
        "INSERT INTO row_writes (scope, event, kind, key, version, hash) VALUES ('default/default/local', ?, ?, 'a', 1, ?)",
        event,
        RELEASE,
        hashed,
    )
    assert problems(journal)


def test_a_waiting_record_of_a_version_that_an_event_carries_is_found(journal, tmp_path):
    tamper(tmp_path, "UPDATE state SET value = x'00' WHERE kind = ?", RELEASE)
    hashed = row_hash(1, *_row(tmp_path, RELEASE))
    tamper(
        tmp_path,
        "INSERT INTO row_writes (scope, event, kind, key, version, hash)"
        " VALUES ('default/default/local', 0, ?, 'a', 1, ?)",
        RELEASE,
        hashed,
    )
    assert [row for row, _ in problems(journal)] == [f"state row {RELEASE} a"]


def test_lost_hashes_are_found(journal, tmp_path):
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection, connection:
        connection.execute("DROP TABLE row_writes")
    assert problems(journal) == [(None, "carries a digest of state rows, whose hashes are missing")]


def _row(folder, kind):
    with closing(sqlite3.connect(folder / "journal.db")) as connection:
        return connection.execute("SELECT updated, value FROM state WHERE kind = ?", (kind,)).fetchone()


def test_a_journal_of_an_older_format_is_not_taken_by_the_first_environment_that_opens_it(tmp_path):
    old_journal(tmp_path, 2)
    url = f"sqlite://{tmp_path}/journal.db"
    staging, prod = (Scope(project="shop", environment=name) for name in ("staging", "prod"))
    with pytest.raises(UsageError, match="which environment wrote it") as caught:
        SqliteJournal(url, scope=staging).rows("run")
    assert "?adopt=staging" in caught.value.hint
    url += "?adopt=prod"
    assert SqliteJournal(url, scope=staging).rows("run") == []  # which upgrades it
    assert [row.key for row in SqliteJournal(url, scope=prod).rows("run")] == ["1", "2", "3"]


@pytest.mark.parametrize(("place", "environment"), [("", "local"), ("environments/prod", "prod")])
def test_a_journal_in_the_folder_of_an_environment_is_its_own(tmp_path, place, environment):
    folder = tmp_path / ".cumulant" / place
    folder.mkdir(parents=True)
    old_journal(folder, 2)
    journal = SqliteJournal(f"sqlite://{folder}/journal.db", scope=Scope(project="shop", environment=environment))
    assert [row.key for row in journal.rows("run")] == ["1", "2", "3"]
