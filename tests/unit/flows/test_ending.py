"""The end of processes that work with the journal."""

from __future__ import annotations

import threading

import pytest

from cumulant.core.errors import EngineUnavailableError
from cumulant.flows.ledger import ending
from cumulant.flows.ledger.ending import run_until_ended
from cumulant.testing.journal import MemoryJournal


class Away(MemoryJournal):
    """A journal whose server does not answer: its clients wait, or are refused."""

    def __init__(self, *, refuses: bool = False) -> None:
        super().__init__()
        self._refuses = refuses
        self.back = threading.Event()

    def head(self):
        if self._refuses:
            raise EngineUnavailableError("no answer")
        self.back.wait(60)
        return super().head()


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(ending, "_GRACE", 0.05)
    monkeypatch.setattr(ending, "_ANSWER", 0.2)


@pytest.mark.parametrize("refuses", [False, True])
def test_work_that_waits_for_the_journal_does_not_hold_up_the_end(refuses):
    journal, ended, said = Away(refuses=refuses), threading.Event(), []
    ended.set()
    try:
        assert not run_until_ended(lambda: journal.back.wait(60), ended, journal, said.append)
    finally:
        journal.back.set()
    assert said == ["the journal does not answer: this process ends without it"]


@pytest.mark.parametrize("refuses", [False, True])
def test_what_follows_work_that_has_ended_does_not_wait_for_the_journal(refuses):
    journal, ended, said = Away(refuses=refuses), threading.Event(), []
    ended.set()
    try:
        assert not run_until_ended(lambda: None, ended, journal, said.append)
    finally:
        journal.back.set()
    assert said == ["the journal does not answer: this process ends without it"]


def test_work_that_takes_its_time_is_waited_for_while_the_journal_answers():
    ended, free, said = threading.Event(), threading.Event(), []
    answers = []

    class Answers(MemoryJournal):
        def head(self):
            answers.append(True)
            if len(answers) == 2:
                free.set()
            return super().head()

    ended.set()
    assert run_until_ended(lambda: free.wait(60), ended, Answers(), said.append)
    assert said == []
    assert len(answers) >= 2


def test_a_write_that_the_journal_holds_up_does_not_hold_up_the_end_while_reads_answer(monkeypatch):
    monkeypatch.setattr(ending, "_LONGEST", 0.2)
    ended, free, said, result = threading.Event(), threading.Event(), [], []
    ended.set()

    def end():
        result.append(run_until_ended(lambda: free.wait(60), ended, MemoryJournal(), said.append))

    thread = threading.Thread(target=end)
    thread.start()
    thread.join(20)
    waited = thread.is_alive()
    free.set()
    thread.join(60)
    assert not waited
    assert result == [False]
    assert "has not ended within" in said[0]


def test_a_failure_of_the_work_ends_the_process_and_is_raised():
    ended = threading.Event()

    def fail():
        raise EngineUnavailableError("the journal is lost")

    with pytest.raises(EngineUnavailableError, match="lost"):
        run_until_ended(fail, ended, MemoryJournal(), print)
    assert ended.is_set()
