"""`cumulant worker`: a line for each step on standard error, and the number of all at the end."""

from __future__ import annotations

import pytest

from cumulant.flows.worker import run_worker
from cumulant.flows.worker.worker import StepRun


@pytest.fixture
def work(project, cumulant, monkeypatch):
    """Runs a worker whose steps are those of an iterator of the function that reports progress."""

    def call(steps, *words):
        monkeypatch.delenv("COLUMNS", raising=False)
        monkeypatch.setattr(run_worker, "run_worker", lambda *_, progress, **__: steps(progress))
        return cumulant("worker", "--once", "--project", str(project), *words)

    return call


def step(number, ending="done", **other):
    return StepRun(step=f"k{number}", name="search", ending=ending, attempt=1, seconds=1.0, **other)


def test_the_last_line_counts_all_steps_and_the_document_has_the_last_ones(work):
    def steps(_):
        return iter([step(number, "failed" if number < 1500 else "done") for number in range(2500)])

    assert work(steps).out == "steps: 1,500 failed, 1,000 done\n"
    assert len(work(steps, "--json").document["steps"]) == 1000
    assert work(lambda _: iter(())).out == "no step was queued that fits this worker\n"


def test_a_step_has_one_line_when_it_begins_and_one_when_it_ends_whatever_its_name_and_length(work):
    note = " ".join(["a reason"] * 40)

    def steps(progress):
        progress("waiting for data k1: begins, attempt 1")
        yield step(1, "failed", note=note)
        for _ in range(3):
            progress("waiting for the journal: it does not answer")
        yield step(2)

    lines = work(steps).err.splitlines()
    assert lines[0].startswith("takes queued steps")
    assert [line[:40].strip() for line in lines[1:]] == [
        "waiting for data k1: begins, attempt 1",
        "search k1: failed after 1.0 s, attempt 1",
        "waiting for the journal: it does not ans",
        "search k2: done after 1.0 s, attempt 1",
    ]
    assert lines[2].endswith(note)
