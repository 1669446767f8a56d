"""The trials of a search on disk: what a crash leaves in the last line is dropped, other damage is told."""

import numpy as np
import pytest

from cumulant.core.errors import IntegrityError
from cumulant.training.records import TrialRecord
from cumulant.training.search.trial_journal import TrialJournal

RECORDS = [TrialRecord(number=number, trainer="lightgbm", score=0.5, scores=(0.5,)) for number in range(3)]


def made(folder):
    with TrialJournal(folder, "search") as journal:
        for record in RECORDS:
            journal.append(record, np.zeros(2))
    return folder / "trials.jsonl"


def records(folder):
    with TrialJournal(folder, "search") as journal:
        return journal.records


@pytest.mark.parametrize(
    "tail", [b'{"number":3,"trai', b"\0\0\0\0\n", b"\xff\xfe{\n", b'{"number":3,"trainer":"light\xff"}\n', b"{}\n"]
)
def test_a_garbled_last_line_is_dropped_and_the_search_goes_on(tmp_path, tail):
    path = made(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert records(tmp_path) == RECORDS
    assert path.read_bytes() == whole
    more = TrialRecord(number=3, trainer="lightgbm")
    with TrialJournal(tmp_path, "search") as journal:
        journal.append(more, None)
    assert records(tmp_path) == [*RECORDS, more]


@pytest.mark.parametrize("line", [b"", b"\0\0\0", b"{}", b"[1]"])
def test_a_garbled_line_among_others_is_told_and_nothing_is_lost(tmp_path, line):
    path = made(tmp_path)
    lines = path.read_bytes().split(b"\n")
    lines[2] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(IntegrityError, match="line 3 of the trials") as caught:
        records(tmp_path)
    assert "search" in caught.value.hint
    assert path.read_bytes() == b"\n".join(lines)
