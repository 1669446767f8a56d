"""State rows and the events that carry their hashes: rows changed by hand, kills, journals of an older format."""

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from typing import ClassVar

import pytest

from cumulant.core.events import GENESIS, Actor, Fact
from cumulant.drivers.local import journal as local
from cumulant.drivers.local import row_hashes
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
    tamper(tmp_path, "INSERT INTO state VALUES (?, 'b', 1, 0, '{}')", kind)
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
        connection.execute(
            "UPDATE row_writes SET hash = ? WHERE kind = 'release'", (row_hashes.hash_of(1, updated, b"{}"),)
        )
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


# Journals of format 1 ------------------------------------------------------------------------------------------


def old_journal(folder):
    """What a journal of format 1 held: three events and two rows."""
    schema = local._SCHEMA.replace(row_hashes.SCHEMA, "")
    database = Database(folder / "journal.db", schema=schema, version=1, holds="journal")
    with database.write() as connection:
        for seq in (1, 2, 3):
            transaction = local.SqliteTransaction(
                connection,
                actor=ADA,
                run=None,
                options={},
                clock=local.SystemClock(),  # type: ignore[attr-defined]
            )
            transaction.put("run", f"{seq}", {"n": seq})
            transaction.emit(Happened())
    database.close()


def test_a_journal_of_format_1_is_covered_from_its_next_event_on(tmp_path):
    old_journal(tmp_path)
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")
    verified = verify(journal)
    assert (verified.breaks, verified.rows, verified.since) == ([], 0, None), "reading changes no file"
    with journal.transaction(actor=ADA) as tx:
        tx.put("run", "1", {"n": 7})
        tx.emit(Happened())
    verified = verify(journal)
    assert (verified.breaks, verified.rows, verified.since) == ([], 3, 4)
    tamper(tmp_path, "UPDATE state SET value = '{}' WHERE key = '2'")
    assert problems(journal) == [("state row run 2", "has another content than version 1 in event 4")]


def test_a_journal_of_format_1_that_cannot_be_written_still_verifies(tmp_path, monkeypatch):
    old_journal(tmp_path)
    monkeypatch.setattr(Database, "frozen", property(lambda _: True))  # root may write everywhere
    verified = verify(SqliteJournal(f"sqlite://{tmp_path}/journal.db"))
    assert (verified.breaks, verified.rows, verified.since) == ([], 0, None)


@pytest.mark.parametrize("event", [-1, 1_000_000_000, "one", 0.5])
def test_a_record_of_no_event_is_found(journal, tmp_path, event):
    tamper(tmp_path, "UPDATE state SET value = x'00' WHERE kind = ?", RELEASE)
    hashed = row_hashes.hash_of(1, *_row(tmp_path, RELEASE))
    tamper(
        tmp_path,
        "INSERT INTO row_writes (event, kind, key, version, hash) VALUES (?, ?, 'a', 1, ?)",
        event,
        RELEASE,
        hashed,
    )
    assert problems(journal)


def test_a_waiting_record_of_a_version_that_an_event_carries_is_found(journal, tmp_path):
    tamper(tmp_path, "UPDATE state SET value = x'00' WHERE kind = ?", RELEASE)
    hashed = row_hashes.hash_of(1, *_row(tmp_path, RELEASE))
    tamper(
        tmp_path, "INSERT INTO row_writes (event, kind, key, version, hash) VALUES (0, ?, 'a', 1, ?)", RELEASE, hashed
    )
    assert [row for row, _ in problems(journal)] == [f"state row {RELEASE} a"]


def test_lost_hashes_are_found(journal, tmp_path):
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection, connection:
        connection.execute("DROP TABLE row_writes")
    assert problems(journal) == [(None, "carries a digest of state rows, whose hashes are missing")]


def _row(folder, kind):
    with closing(sqlite3.connect(folder / "journal.db")) as connection:
        return connection.execute("SELECT updated, value FROM state WHERE kind = ?", (kind,)).fetchone()
