"""Trials in an object store: a search that was killed resumes in another folder, with one moment's trials."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import EngineUnavailableError
from cumulant.testing.objects import MemoryObjects
from cumulant.training.records import TrialRecord
from cumulant.training.search.trial_journal import CopiedFolder, TrialJournal


def trial(number):
    return TrialRecord(number=number, trainer="lightgbm", score=0.5, scores=(0.5,))


def journal_at(path, objects, identity="a" * 64):
    return TrialJournal(CopiedFolder(path, objects, "search/s"), identity)


def test_a_search_resumes_in_another_folder(tmp_path):
    objects = MemoryObjects()
    with journal_at(tmp_path / "a", objects) as journal:
        for number in (0, 2, 1):
            journal.append(trial(number), np.full(2, number))
        journal.keep({1, 2})
    with journal_at(tmp_path / "b", objects) as journal:
        assert journal.records == [trial(0), trial(1), trial(2)]
        assert journal.answers(1).tolist() == [1, 1]
        assert not (tmp_path / "b" / "trial-0.npy").exists()
        journal.append(trial(3), None)
    with journal_at(tmp_path / "a", objects) as journal:
        assert journal.records == [trial(0), trial(2), trial(1), trial(3)]
    with TrialJournal(tmp_path / "b", "a" * 64) as journal:
        assert len(journal.records) == 4


def test_a_search_of_other_rows_begins_anew(tmp_path):
    objects = MemoryObjects()
    with journal_at(tmp_path / "a", objects) as journal:
        journal.append(trial(0), None)
    with journal_at(tmp_path / "b", objects, identity="b" * 64) as journal:
        assert journal.records == []


def test_trials_from_before_the_store_was_shared_are_copied(tmp_path):
    objects = MemoryObjects()
    with TrialJournal(tmp_path / "a", "a" * 64) as journal:
        journal.append(trial(0), np.zeros(2))
    journal_at(tmp_path / "a", objects).__exit__()
    with journal_at(tmp_path / "b", objects) as journal:
        assert journal.records == [trial(0)]
        assert journal.answers(0).tolist() == [0, 0]


class FailingObjects(MemoryObjects):
    """A store whose next writes fail as the text says: `x`."""

    def __init__(self, faults):
        super().__init__()
        self._faults = list(faults)

    def put(self, key, source):
        if self._faults and self._faults.pop(0) == "x":
            raise EngineUnavailableError("the store does not answer")
        return super().put(key, source)


@given(faults=st.text("x.", max_size=24), answered=st.lists(st.booleans(), min_size=1, max_size=6))
def test_copies_are_the_trials_of_one_moment_also_of_a_store_that_fails(tmp_path_factory, faults, answered):
    folder, objects = tmp_path_factory.mktemp("trials"), FailingObjects(faults)
    with journal_at(folder / "a", objects) as journal:
        for number, has_answers in enumerate(answered):
            journal.append(trial(number), np.full(2, number) if has_answers else None)
            journal.keep({number})  # only the newest answers are needed
    shutil.rmtree(folder / "a")
    with journal_at(folder / "b", objects) as journal:
        count = len(journal.records)
        assert journal.records == [trial(number) for number in range(count)]
        if count and answered[count - 1]:
            # Answers of the last copied trial are there, unless a later trial made them needless before they were copied.
            path = folder / "b" / f"trial-{count - 1}.npy"
            assert path.exists() or count < len(answered)
    if "x" not in faults:
        assert count == len(answered)


def test_a_store_that_does_not_answer_at_the_start_is_an_error(tmp_path):
    class Silent(MemoryObjects):
        def keys(self, prefix=""):
            raise EngineUnavailableError("the store does not answer")

    with pytest.raises(EngineUnavailableError):
        journal_at(tmp_path / "a", Silent())
