"""The ledger among real processes: many at once, killed, stopped and woken."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from stopped_process import stop_outside_writes

from cumulant.core.events import Actor
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.flows.ledger.ledger import Ledger
from cumulant.flows.ledger.ledger_records import read_step, runs
from cumulant.flows.ledger.run_events import verify

WORKER = Path(__file__).with_name("ledger_worker.py")


@pytest.fixture
def start(tmp_path):
    """Start a worker; every one that is left is killed at the end."""
    started = []

    def start(name, *, steps, seconds=0.05, lease=60.0):
        command = [sys.executable, WORKER, tmp_path / "journal.db", tmp_path / "log", name, steps, seconds, lease]
        started.append(subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def journal(tmp_path):
    return SqliteJournal(f"sqlite://{tmp_path}/journal.db")


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    return lambda: path.read_text().splitlines() if path.exists() else []


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def results(process):
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return [line.split() for line in out.splitlines()]


def test_ten_processes_never_run_a_step_twice(start, log, journal):
    processes = [start(f"w{number}", steps=6) for number in range(10)]
    found = [results(process) for process in processes]
    begun = Counter(line.split()[1] for line in log() if line.startswith("begin"))
    assert begun == {str(number): 1 for number in range(6)}
    assert len({tuple((number, total, by) for number, total, by, _ in lines) for lines in found}) == 1
    assert [line[1] for line in found[0]] == ["0", "1", "3", "6", "10", "15"]
    fresh = Counter(number for lines in found for number, _, _, reused in lines if reused == "False")
    assert fresh == {str(number): 1 for number in range(6)}
    kinds = Counter(event.kind for event in journal.events())
    assert kinds == {"run.started": 10, "run.finished": 10, "step.started": 6, "step.finished": 6, "step.reused": 54}
    assert verify(journal).breaks == []


def test_kill_at_twenty_random_moments(start, log, journal):
    chance, kills, steps = random.Random(7), 0, 40
    while kills < 20:
        pair = [start(f"k{kills}-{number}", steps=steps, seconds=0.03) for number in range(2)]
        until(lambda name=pair[0].args[4]: any(run.principal == f"service:{name}" for run in runs(journal)))
        time.sleep(chance.random() * 0.2)
        for process in pair:
            process.kill()
            process.communicate()
            kills += 1
    lines = results(start("last", steps=steps, seconds=0.01))
    assert [line[1] for line in lines] == [str(sum(range(number + 1))) for number in range(steps)]
    finished = Counter(event.data["step"] for event in journal.events(kinds=["step.finished"]))
    assert len(finished) == steps
    assert set(finished.values()) == {1}
    assert {read_step(row).status for row in journal.rows("step")} == {"done"}
    assert verify(journal).breaks == []
    assert_no_step_began_after_it_was_done(log(), {line[0]: line[2] for line in lines})
    lost = [run for run in runs(journal) if run.status == "lost"]
    assert len(lost) + sum(run.status == "done" for run in runs(journal)) == len(runs(journal))
    assert lost


def assert_no_step_began_after_it_was_done(lines, by):
    """`by` says whose result each step has: its `end` line is the last of that step."""
    for number, name in by.items():
        own = [line.split() for line in lines if line.split()[1] == number]
        assert own[-1] == ["end", number, name]
        doing = None
        for what, _, who in own:
            # Whoever begins takes over from a killed process; nobody begins beside a living one and goes on.
            assert what == "begin" or who == doing
            doing = who


def test_a_killed_holder_is_noticed_long_before_its_lease_ends(start, log):
    holder = start("holder", steps=1, seconds=60, lease=3600)
    until(lambda: log() == ["begin 0 holder"])
    waiter = start("waiter", steps=1, seconds=0, lease=3600)
    time.sleep(0.3)
    assert waiter.poll() is None
    holder.kill()
    assert results(waiter) == [["0", "0", "waiter", "False"]]


def test_a_process_that_slept_through_its_lease_changes_nothing(start, log, journal, tmp_path):
    sleeper = start("sleeper", steps=1, seconds=3.0, lease=0.6)
    until(lambda: log() == ["begin 0 sleeper"])
    stop_outside_writes(sleeper, tmp_path / "journal.db")
    other = start("other", steps=1, seconds=0, lease=0.6)
    assert results(other) == [["0", "0", "other", "False"]]
    before = journal.rows("step")
    sleeper.send_signal(signal.SIGCONT)
    assert results(sleeper) == [["0", "0", "other", "True"]]
    assert journal.rows("step") == before
    assert log() == ["begin 0 sleeper", "begin 0 other", "end 0 other", "end 0 sleeper"]
    assert [event.actor for event in journal.events(kinds=["step.finished"])] == ["service:other"]
    taken = [event.data["taken_from"] for event in journal.events(kinds=["step.started"])]
    assert taken[0] is None
    assert f"process {sleeper.pid} on " in taken[1]


def test_a_living_holder_keeps_its_step_many_leases_long(start, log, journal):
    holder = start("holder", steps=1, seconds=6.0, lease=2.0)
    until(lambda: log() == ["begin 0 holder"])
    said = []
    with Ledger.open(journal, flow="test", actor=Actor("user:ada"), lease=timedelta(seconds=2)) as ledger:
        done = ledger.step(
            "add", {"number": 0, "total": 0}, lambda: {"by": "me"}, progress=lambda text, share=None: said.append(text)
        )
    assert (done.result["by"], done.reused) == ("holder", True)
    assert any(f"waiting for add: process {holder.pid} on " in text for text in said)
    assert results(holder) == [["0", "0", "holder", "False"]]


def test_ctrl_c_lets_go_of_the_step(start, log, journal):
    holder = start("holder", steps=1, seconds=60, lease=3600)
    until(lambda: log() == ["begin 0 holder"])
    holder.send_signal(signal.SIGINT)
    holder.communicate(timeout=60)
    assert holder.returncode != 0
    assert [read_step(row).status for row in journal.rows("step")] == ["interrupted"]
    assert [run.status for run in runs(journal)] == ["interrupted"]
    (failed,) = journal.events(kinds=["step.failed"])
    assert failed.data["interrupted"] is True
    assert results(start("next", steps=1, seconds=0, lease=3600)) == [["0", "0", "next", "False"]]
