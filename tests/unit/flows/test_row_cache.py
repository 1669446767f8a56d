"""Rows in memory: each version is read once, and never shown as it was before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cumulant.core.events import Actor
from cumulant.flows.ledger.row_cache import RowCache
from cumulant.testing.clock import ManualClock
from cumulant.testing.journal import MemoryJournal

ADA = Actor("user:ada")


class ReadRows:
    """Converts a row to its number, and counts what was converted."""

    def __init__(self):
        self.keys = []

    def __call__(self, row):
        self.keys.append(row.key)
        return row.value["n"]

    def taken(self):
        keys, self.keys = sorted(self.keys), []
        return keys


def put(journal, **rows):
    with journal.transaction(actor=ADA) as transaction:
        for key, number in rows.items():
            transaction.put("step", key, {"n": number})


def test_a_row_is_read_again_when_it_has_changed():
    journal, read = MemoryJournal(), ReadRows()
    cache = RowCache("step", read)
    put(journal, a=1, b=2, c=3, d=4)
    assert cache.rows(journal) == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert read.taken() == ["a", "b", "c", "d"]
    put(journal, b=20)
    assert cache.rows(journal)["b"] == 20
    assert read.taken() == ["b"]
    with journal.transaction(actor=ADA) as transaction:
        transaction.delete("step", "a")
    assert list(cache.rows(journal)) == ["b", "c", "d"]
    assert read.taken() == []


def test_a_journal_that_was_restored_is_read_again():
    clock, read = ManualClock(datetime(2026, 11, 30, tzinfo=UTC)), ReadRows()
    cache, journal, restored = RowCache("step", read), MemoryJournal(clock=clock), MemoryJournal(clock=clock)
    put(journal, a=1)
    assert cache.rows(journal) == {"a": 1}
    clock.move(timedelta(hours=1))
    put(restored, a=10)
    assert restored.get("step", "a").version == journal.get("step", "a").version
    assert cache.rows(restored) == {"a": 10}


def test_pages_have_the_order_of_the_journal():
    journal = MemoryJournal()
    cache = RowCache("step", lambda row: row.value["n"])
    put(journal, a=1, b=2, c=3, d=4)
    assert list(cache.rows(journal, descending=True, after="d", limit=2)) == ["c", "b"]
    assert list(cache.rows(journal, "c")) == ["c"]


def test_rows_that_were_used_longest_ago_are_dropped():
    journal, read = MemoryJournal(), ReadRows()
    cache = RowCache("step", read, most=2)
    put(journal, a=1, b=2, c=3)
    cache.rows(journal)
    assert len(read.taken()) == 3
    cache.rows(journal, after="a")
    assert read.taken() == []
    cache.rows(journal, "a")
    assert read.taken() == ["a"]


def test_a_row_that_is_deleted_while_it_is_read_is_left_out(monkeypatch):
    journal = MemoryJournal()
    cache = RowCache("step", lambda row: row.value["n"])
    put(journal, a=1, b=2, c=3)
    cache.rows(journal)
    put(journal, b=20)
    monkeypatch.setattr(journal, "get", lambda *_: None)
    assert cache.rows(journal) == {"a": 1, "c": 3}
