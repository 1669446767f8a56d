"""An interrupt between the writes of a run and its step leaves neither of them running, nor the journal locked."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest

from cumulant.core.events import Actor
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.flows.ledger.ledger import Ledger
from cumulant.flows.ledger.ledger_records import runs


def run(journal: SqliteJournal) -> None:
    with Ledger.open(journal, flow="test", actor=Actor("user:ada")) as ledger:
        ledger.step("count", {}, lambda: {"rows": 3})


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, at: int = 1, before: bool = False) -> None:
    """Raise KeyboardInterrupt once, before or after the `at`-th call."""
    original, calls = getattr(owner, name), itertools.count(1)

    def interrupted(*args: Any, **options: Any) -> Any:
        call = next(calls)  # calls within this one count on
        if before and call == at:
            raise KeyboardInterrupt
        result = original(*args, **options)
        if not before and call == at:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, name, interrupted)


def statuses(journal: SqliteJournal) -> tuple[list[str], list[str]]:
    return [run.status for run in runs(journal)], [row.value["status"] for row in journal.rows("step")]


@pytest.mark.parametrize(
    ("name", "before", "ended"),
    [
        ("_take", True, (["interrupted"], [])),
        ("_take", False, (["interrupted"], ["interrupted"])),
        ("_finish", True, (["interrupted"], ["interrupted"])),
        ("_finish", False, (["interrupted"], ["done"])),
        ("_end", True, (["interrupted"], ["done"])),
        ("_end", False, (["done"], ["done"])),
    ],
)
def test_an_interrupt_between_two_writes_ends_the_run_and_its_step(tmp_path, monkeypatch, name, before, ended):
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")
    interrupt(monkeypatch, Ledger, name, before=before)
    with pytest.raises(KeyboardInterrupt):
        run(journal)
    assert statuses(journal) == ended


def test_an_error_that_an_interrupt_led_to_is_an_interrupt(tmp_path):
    """The import of a package that is written in C fails so, and a session of SQLAlchemy that is amid a statement."""
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")

    def imported() -> dict[str, object]:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    with pytest.raises(ImportError), Ledger.open(journal, flow="test", actor=Actor("user:ada")) as ledger:
        ledger.step("count", {}, imported)
    assert statuses(journal) == (["interrupted"], ["interrupted"])
    assert [event.data["interrupted"] for event in journal.events(kinds=["step.failed"])] == [True]


def test_an_interrupt_as_a_transaction_begins_does_not_lock_the_journal(tmp_path, monkeypatch):
    """Between `yield` of the context manager and the block nothing rolls back: the frames hold the connection."""
    for at in itertools.count(1):
        journal = SqliteJournal(f"sqlite://{tmp_path}/{at}.db")
        journal._database._wait = 0.1
        with monkeypatch.context() as patch:
            interrupt(patch, contextlib._GeneratorContextManager, "__enter__", at=at)
            try:
                run(journal)
            except KeyboardInterrupt:
                pass
            else:
                break  # there are no more
        runs, steps = statuses(journal)
        assert {*runs, *steps} <= {"interrupted", "done"}, at
    assert at > 15
