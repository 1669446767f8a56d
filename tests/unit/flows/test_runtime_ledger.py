"""The ledger within one process."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest

from cumulant.core.errors import (
    ContractBreachError,
    DataError,
    DefinitionError,
    LeaseHeldError,
    RetryableError,
    StepCancelledError,
    StepFailedError,
)
from cumulant.core.events import Actor, Fact
from cumulant.drivers.local.compute import SubprocessCompute
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.flows.ledger.lease import LeaseRenewal
from cumulant.flows.ledger.ledger import Ledger, identity_of
from cumulant.flows.ledger.ledger_records import describe, is_under_way, read_run, read_step, recorded_error, runs
from cumulant.flows.ledger.processes import Process, is_gone, is_here, this_process
from cumulant.flows.ledger.run_events import verify
from cumulant.ports.compute import StepCall
from cumulant.testing.journal import MemoryJournal

ADA = Actor("user:ada")


class Stored(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "test.stored"
    rows: int


@pytest.fixture(params=["sqlite", "memory"])
def journal(request, tmp_path):
    return MemoryJournal() if request.param == "memory" else SqliteJournal(f"sqlite://{tmp_path}/journal.db")


@pytest.fixture
def ledger(journal):
    with Ledger.open(journal, flow="test", actor=ADA) as ledger:
        yield ledger


def kinds(journal):
    return [event.kind for event in journal.events()]


def never():
    raise AssertionError("the step was done again")


def status_of(journal, name, inputs=None, code=""):
    return read_step(journal.get("step", identity_of(name, inputs, code))).status


# Found, or done ------------------------------------------------------------------------------------------------


def test_a_done_step_is_found(ledger):
    first = ledger.step("count", {"of": "flights"}, lambda: {"rows": 3})
    again = ledger.step("count", {"of": "flights"}, never)
    assert (first.result, first.reused) == ({"rows": 3}, False)
    assert (again.result, again.reused, again.identity) == ({"rows": 3}, True, first.identity)
    assert again.seconds == first.seconds


def test_a_done_step_is_found_by_a_later_run(journal):
    for expected in (False, True):
        with Ledger.open(journal, flow="test", actor=ADA) as ledger:
            assert ledger.step("count", 1, lambda: {"rows": 3}).reused is expected
    assert kinds(journal) == [
        "run.started",
        "step.started",
        "step.finished",
        "run.finished",
        "run.started",
        "step.reused",
        "run.finished",
    ]


@pytest.mark.parametrize(
    ("name", "inputs", "code"), [("other", {"a": 1}, "v1"), ("count", {"a": 2}, "v1"), ("count", {"a": 1}, "v2")]
)
def test_another_name_input_or_code_is_another_step(ledger, name, inputs, code):
    ledger.step("count", {"a": 1}, lambda: {"n": 1}, code="v1")
    assert ledger.step(name, inputs, lambda: {"n": 2}, code=code).result == {"n": 2}


def test_the_order_of_keys_is_no_difference(ledger):
    ledger.step("count", {"a": 1, "b": 2}, dict)
    assert ledger.step("count", {"b": 2, "a": 1}, never).reused


def test_a_fresh_result_is_what_a_found_one_will_be(ledger):
    odd = {"pair": (1, 2.0), "when": datetime(2013, 1, 1, tzinfo=UTC), "nan": float("nan"), "set": {1}}
    fresh = ledger.step("odd", None, lambda: odd)
    assert fresh.result == ledger.step("odd", None, never).result
    assert fresh.result == {"pair": [1, 2.0], "when": "2013-01-01T00:00:00Z", "nan": None, "set": [1]}


@pytest.mark.parametrize("result", [None, [1], "text", {"f": object()}])
def test_a_result_that_is_no_json_object(ledger, journal, result):
    with pytest.raises(DefinitionError, match="not a JSON object"):
        ledger.step("odd", None, lambda: result)
    assert status_of(journal, "odd") == "failed"


def test_a_step_inside_another(ledger):
    def outer():
        return {"outer": ledger.step("inner", 1, lambda: {"n": 1}).result["n"]}

    assert ledger.step("outer", 1, outer).result == {"outer": 1}
    with pytest.raises(DefinitionError, match="needs its own result"):
        ledger.step("self", 1, lambda: ledger.step("self", 1, never).result)


def test_a_result_whose_artefact_is_gone_is_made_again(ledger, journal):
    stored = {"a"}
    holds = lambda result: result["key"] in stored  # noqa: E731
    ledger.step("store", None, lambda: {"key": "a"}, verify=holds)
    assert ledger.step("store", None, never, verify=holds).reused
    stored.clear()
    again = ledger.step("store", None, lambda: stored.add("a") or {"key": "a"}, verify=holds)
    assert not again.reused
    assert ledger.step("store", None, never, verify=holds).reused
    assert [event.data["attempt"] for event in journal.events(kinds=["step.finished"])] == [1, 2]


# What becomes visible together ---------------------------------------------------------------------------------


def test_state_and_facts_become_visible_with_the_result(ledger, journal):
    def write(tx, result):
        tx.put("snapshot", "newest", result)
        tx.emit(Stored(rows=result["rows"]))
        assert journal.get("snapshot", "newest") is None

    ledger.step("ingest", None, lambda: {"rows": 3}, write=write)
    ledger.step("ingest", None, never, write=lambda tx, result: never())
    assert journal.get("snapshot", "newest").value == {"rows": 3}
    assert kinds(journal) == ["run.started", "step.started", "test.stored", "step.finished", "step.reused"]


@pytest.mark.parametrize(
    "error", [DataError("bad"), LeaseHeldError("the snapshot's row was changed"), KeyboardInterrupt()]
)
def test_nothing_becomes_visible_where_writing_fails(ledger, journal, error):
    def write(tx, result):
        tx.put("snapshot", "newest", result)
        raise error

    with pytest.raises(type(error)):
        ledger.step("ingest", None, lambda: {"rows": 3}, write=write)
    assert journal.get("snapshot", "newest") is None
    assert status_of(journal, "ingest") == ("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
    assert not ledger.step("ingest", None, lambda: {"rows": 3}).reused


def test_a_holder_whose_row_was_taken_leaves_the_other_result(ledger, journal):
    other = Ledger(journal, actor=Actor("user:eve"), run="other", lease=timedelta(seconds=0.05))

    def slow():
        # Someone else takes the row over and finishes first: as after a long sleep of this process.
        row = journal.get("step", identity_of("slow", None))
        record = read_step(row)
        with other.transaction() as tx:
            tx.put("step", row.key, row.value | {"status": "done", "result": {"by": "eve"}}, expect=row.version)
        assert record.status == "running"
        return {"by": "ada"}

    done = ledger.step("slow", None, slow)
    assert (done.result, done.reused) == ({"by": "eve"}, True)
    assert "step.finished" not in kinds(journal)


@pytest.mark.parametrize("stands", [False, True], ids=["new", "failed before"])
def test_of_two_that_find_a_step_free_at_once_one_takes_it(stands):
    class Racing(MemoryJournal):
        """Between this process's look and its next move, another takes the step and ends it."""

        other = None

        def get(self, kind, key):
            row = super().get(kind, key)
            if kind == "step" and self.other is not None:
                other, self.other = self.other, None
                assert other.step("count", None, lambda: {"by": "eve"}).reused is False
            return row

    journal = Racing()
    ledger = Ledger(journal, actor=ADA, run="one")
    if stands:
        with pytest.raises(ZeroDivisionError):
            ledger.step("count", None, lambda: {"n": 1 / 0})
    journal.other = Ledger(journal, actor=Actor("user:eve"), run="two")
    done = ledger.step("count", None, never)
    assert (done.result, done.reused) == ({"by": "eve"}, True)


# Failure -------------------------------------------------------------------------------------------------------


def test_a_failed_step_is_recorded_and_done_again(ledger, journal):
    error = ContractBreachError("too many rows refused", subject="flights", hint="look at the quarantine")

    def refuse():
        raise error

    with pytest.raises(ContractBreachError) as caught:
        ledger.step("check", None, refuse)
    assert caught.value is error
    row = read_step(journal.get("step", identity_of("check", None)))
    assert (row.status, row.attempt, row.error) == ("failed", 1, error.as_dict())
    (event,) = journal.events(kinds=["step.failed"])
    assert event.data["error"] == error.as_dict()
    assert ledger.step("check", None, dict).reused is False
    assert read_step(journal.get("step", identity_of("check", None))).attempt == 2


def test_words_of_foreign_errors_are_not_recorded(ledger, journal):
    with pytest.raises(ZeroDivisionError):
        ledger.step("check", None, lambda: {"n": 1 / 0})

    def leak():
        raise ValueError("card 4111-1111 is not a number")

    with pytest.raises(ValueError, match="4111"):
        ledger.step("leak", None, leak)
    assert status_of(journal, "leak") == "failed"
    assert "card 4111-1111" not in "".join(str(event) for event in journal.events())
    assert "card 4111-1111" not in str(journal.rows("step"))


def in_threads(begun, *calls):
    """Results of the calls, each in a thread; the first has set `begun` before the others start."""
    found = [None] * len(calls)

    def run(place, call):
        try:
            found[place] = call()
        except BaseException as error:  # the test looks at it
            found[place] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
        assert begun.wait(60)
    for thread in threads:
        thread.join(60)
    return found


@pytest.mark.parametrize(
    ("error", "runs_of_it"),
    [(DataError("no such column", subject="flights", hint="look"), 1), (RetryableError("busy"), 2)],
)
def test_who_waited_for_a_step_that_failed(ledger, error, runs_of_it):
    count, begun = [], threading.Event()

    def fail():
        count.append(1)
        begun.set()
        time.sleep(0.3)
        raise error

    first, second = in_threads(begun, *[lambda: ledger.step("check", None, fail)] * 2)
    assert first is error
    assert len(count) == runs_of_it
    assert type(second) is type(error)
    assert (second.message, second.subject, second.hint) == (error.message, error.subject, error.hint)


def test_threads_share_a_ledger(ledger):
    count, begun = [], threading.Event()

    def work():
        count.append(1)
        begun.set()
        time.sleep(0.3)
        return {"n": len(count)}

    found = in_threads(begun, *[lambda: ledger.step("count", None, work)] * 5)
    assert [step.result for step in found] == [{"n": 1}] * 5
    assert sorted(step.reused for step in found) == [False, True, True, True, True]


class AheadClock:
    def __init__(self, span):
        self._span = span

    def now(self):
        return datetime.now(UTC) + self._span

    def sleep(self, seconds):
        time.sleep(seconds)


@pytest.mark.parametrize("ahead", [timedelta(days=3650), timedelta(days=-3650)])
def test_a_wrong_clock_takes_no_step_away(journal, ahead):
    # Renewed every 0.5 s; to a clock that is years ahead, the lease would have ended at once.
    one = Ledger(journal, actor=ADA, run="one", lease=timedelta(seconds=3))
    two = Ledger(journal, actor=ADA, run="two", lease=timedelta(seconds=3), clock=AheadClock(ahead))
    begun = threading.Event()

    def work():
        begun.set()
        time.sleep(1.0)
        return {"by": "one"}

    _, second = in_threads(begun, lambda: one.step("count", None, work), lambda: two.step("count", None, never))
    assert (second.result, second.reused) == ({"by": "one"}, True)


def test_a_silent_holder_on_another_machine_is_waited_for_one_lease(ledger, journal):
    far = Process("far:1234", 1, "0")
    ledger.step("count", None, dict)
    row = journal.get("step", identity_of("count", None))
    running = row.value | {
        "status": "running",
        "result": None,
        "lease": 0.3,
        "holder": {"host": far.host, "pid": 1, "born": "0"},
    }
    with ledger.transaction() as tx:
        tx.put("step", row.key, running)
    done = ledger.step("count", None, lambda: {"n": 2})
    assert (done.result, done.reused) == ({"n": 2}, False)
    taken = [event.data["taken_from"] for event in journal.events(kinds=["step.started"])]
    assert taken == [None, "process 1 on far"]


# Compute -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signal", "error"), [(9, RetryableError), (11, StepFailedError)])
def test_a_step_whose_process_was_killed(journal, signal, error):
    ledger = Ledger(journal, actor=ADA, run="r")
    call = StepCall(f"{__name__}:die", {"signal": signal})
    with pytest.raises(error) as caught:
        ledger.step("die", 1, lambda: SubprocessCompute().run(call))
    assert type(caught.value) is error
    assert status_of(journal, "die", 1) == "failed"


def die(signal):
    import os

    os.kill(os.getpid(), signal)


# Runs ----------------------------------------------------------------------------------------------------------


def test_the_row_of_a_run(journal):
    with Ledger.open(journal, flow="train", actor=ADA, settings={"trials": 3}) as ledger:
        assert read_run(journal.get("run", ledger.run)).status == "running"
        one = ledger.step("one", None, dict)
        ledger.step("one", None, dict)
        ledger.emit(Stored(rows=1))
    (run,) = runs(journal)
    assert (run.id, run.flow, run.status, run.principal) == (ledger.run, "train", "done", "user:ada")
    assert (run.settings, run.process) == ({"trials": 3}, this_process())
    assert [(use.name, use.identity, use.reused) for use in run.steps] == [
        ("one", one.identity, False),
        ("one", one.identity, True),
    ]
    assert run.started <= run.finished
    events = list(journal.events(run=ledger.run))
    assert [event.kind for event in events] == [
        "run.started",
        "step.started",
        "step.finished",
        "step.reused",
        "test.stored",
        "run.finished",
    ]
    assert [events.index(next(e for e in events if e.id == event.cause)) for event in events[1:]] == [0, 1, 0, 0, 0]
    assert verify(journal).breaks == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DataError("bad"), "failed", "data"),
        (ContractBreachError("refused"), "refused", "contract-breach"),
        (ValueError("bug"), "failed", "internal"),
        (KeyboardInterrupt(), "interrupted", "internal"),
    ],
)
def test_how_a_run_ends(journal, error, status, code):
    with pytest.raises(type(error)), Ledger.open(journal, flow="train", actor=ADA):
        raise error
    (run,) = runs(journal)
    assert (run.status, run.error["code"]) == (status, code)
    last = list(journal.events())[-1]
    assert (last.kind, last.data["status"]) == ("run.failed", status)


def test_runs_come_newest_first(journal):
    for flow in ("one", "two", "three"):
        with Ledger.open(journal, flow=flow, actor=ADA):
            pass
    assert [run.flow for run in runs(journal)] == ["three", "two", "one"]


# Parts ---------------------------------------------------------------------------------------------------------


def test_which_processes_are_gone():
    import subprocess
    import sys

    here = this_process()
    assert not is_gone(here)
    assert is_gone(Process(here.host, here.pid, "1"))  # the id was given to another process since
    assert not is_gone(Process("elsewhere:0", 1, "1"))
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        pass
    assert is_gone(Process(here.host, child.pid, "1"))


def test_a_declared_host_name_makes_a_machine_of_its_own(monkeypatch):
    dead = Process(this_process().host, 2**22 + 1, "1")
    assert is_here(dead)
    assert is_gone(dead)
    monkeypatch.setenv("CUMULANT_HOST_NAME", "trainer")
    assert not is_here(dead)
    assert not is_gone(dead)
    assert str(this_process()).endswith(" on trainer")
    renamed = Process(this_process().host, dead.pid, "1")
    assert is_gone(renamed)
    monkeypatch.setenv("CUMULANT_HOST_NAME", "gateway")
    assert not is_gone(renamed)


def test_a_process_that_ended_but_was_not_waited_for_is_gone():
    import subprocess
    import sys

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        from pathlib import Path

        born = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        process = Process(this_process().host, child.pid, born)
        assert not is_gone(process)
        child.kill()
        deadline = time.monotonic() + 60
        while not is_gone(process):
            assert time.monotonic() < deadline


def test_errors_come_back_from_their_record():
    for error in (DataError("a", subject="s", hint="h"), StepFailedError("x"), ContractBreachError("b")):
        back = recorded_error(describe(error), "check")
        assert type(back) is type(error)
        assert (back.subject, back.hint) == (error.subject, error.hint)
    assert isinstance(recorded_error(describe(ValueError("secret")), "check"), StepFailedError)
    assert recorded_error(describe(ValueError("secret")), "check").message == "step check failed: ValueError"


# Quiet ------------------------------------------------------------------------------------------------------------


def test_a_quiet_run_that_finds_everything_done_leaves_nothing(journal, ledger):
    ledger.step("add", 1, lambda: {"sum": 1})
    before = kinds(journal)
    with Ledger.open(journal, flow="look", actor=ADA, quiet=True) as quiet:
        assert quiet.run in [row.key for row in journal.rows("run")], "clean sees it"
        assert quiet.step("add", 1, never).reused
    assert kinds(journal) == before
    assert journal.get("run", quiet.run) is None


def test_a_quiet_run_that_does_something_tells_all_of_it_in_order(journal, ledger):
    ledger.step("add", 1, lambda: {"sum": 1})
    before = len(kinds(journal))
    with Ledger.open(journal, flow="look", actor=ADA, quiet=True) as quiet:
        quiet.step("add", 1, never)
        quiet.step("add", 2, lambda: {"sum": 2})
        quiet.step("add", 1, never)
    assert kinds(journal)[before:] == ["run.started", "step.reused", "step.started", "step.finished", "run.finished"]
    assert {event.run for event in journal.events(after=before)} == {quiet.run}
    assert [use.reused for use in read_run(journal.get("run", quiet.run)).steps] == [True, False]
    assert verify(journal).breaks == []


def test_a_quiet_run_that_fails_says_so(journal):
    with pytest.raises(DataError), Ledger.open(journal, flow="look", actor=ADA, quiet=True):
        raise DataError("nothing is there")
    assert kinds(journal) == ["run.started", "run.failed"]


# Runs of other machines ----------------------------------------------------------------------------------------


def run_elsewhere(journal, lease):
    """The row of a run whose process is on another machine."""
    with Ledger.open(journal, flow="train", actor=ADA) as ledger:
        row = journal.get("run", ledger.run)
        value = row.value | {"process": {"host": "elsewhere:0", "pid": 1, "born": "0"}, "lease": lease, "id": "far"}
    with journal.transaction(actor=ADA) as tx:
        tx.put("run", "far", value, expect=0)
    return read_run(journal.get("run", "far"))


def test_a_run_of_a_machine_that_is_gone_ends_with_its_lease(journal):
    run = run_elsewhere(journal, 0.3)
    begun = time.monotonic()
    assert not is_under_way(journal, run)
    assert time.monotonic() - begun > 0.3


def test_a_run_of_another_machine_that_renews_is_under_way(journal):
    run = run_elsewhere(journal, 600.0)

    def renew():
        with journal.transaction(actor=ADA) as tx:
            tx.put("run", "far", tx.get("run", "far").value)

    with LeaseRenewal(renew, every=0.05):
        assert is_under_way(journal, run)


def test_a_run_renews_its_row_while_it_works(journal):
    with Ledger.open(journal, flow="train", actor=ADA, lease=timedelta(seconds=0.3)) as ledger:
        version, deadline = journal.get("run", ledger.run).version, time.monotonic() + 60
        while journal.get("run", ledger.run).version < version + 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    ended = journal.get("run", ledger.run)
    time.sleep(0.15)
    assert journal.get("run", ledger.run) == ended, "nothing is written after its end"


def test_a_step_whose_lease_is_lost_is_cancelled_and_the_other_one_s_result_returned(tmp_path):
    journal, cancel = SqliteJournal(f"sqlite://{tmp_path}/journal.db"), threading.Event()

    def overtaken():
        other = SqliteJournal(f"sqlite://{tmp_path}/journal.db")
        with other.transaction(actor=ADA) as tx:
            row = tx.get("step", identity_of("count", 1))
            done = {**row.value, "status": "done", "result": {"rows": 3}, "seconds": 1.0}
            tx.put("step", row.key, done)
        assert cancel.wait(30)
        raise StepCancelledError("step count was cancelled")

    with Ledger.open(journal, flow="test", actor=ADA, lease=timedelta(seconds=0.6)) as ledger:
        result = ledger.step("count", 1, overtaken, cancel=cancel)
    assert (result.result, result.reused) == ({"rows": 3}, True)
