"""The queue of steps: its decisions, and workers that are killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import MissingPartError, StepCancelledError, StepFailedError, StorageError
from cumulant.core.events import Actor
from cumulant.core.version import __version__
from cumulant.drivers.local.compute import SubprocessCompute
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.drivers.worker.compute import WorkerCompute
from cumulant.flows.ledger.lease import LEASE
from cumulant.flows.worker import worker as worker_module
from cumulant.flows.worker.worker import StepWorker
from cumulant.ports.compute import Resources, StepCall
from cumulant.ports.journal import Row
from cumulant.ports.step_outcome import StepOutcome, describe
from cumulant.ports.step_queue import (
    MOST_ATTEMPTS,
    QUEUED_STEP,
    QueuedStep,
    WorkerOffer,
    can_adopt,
    candidates,
    fits,
    lease_of,
    read_queued,
)

HERE = Path(__file__).parent
NOW = datetime(2026, 1, 1, tzinfo=UTC)
STATES = ("queued", "running", "ended", "collected", "cancelled")

resources = st.builds(
    Resources,
    cpu=st.integers(0, 8).map(float),
    memory=st.integers(0, 8),
    gpu=st.integers(0, 2),
    region=st.sampled_from(["", "eu", "us"]),
)
offers = st.builds(
    WorkerOffer,
    cpu=st.integers(0, 8).map(float),
    memory=st.integers(0, 8),
    gpu=st.integers(0, 2),
    region=st.sampled_from(["", "eu", "us"]),
)
outcomes = st.sampled_from([None, StepOutcome(result={"n": 1}), StepOutcome(error=describe(StepFailedError("no")))])
steps = st.builds(
    QueuedStep,
    call=st.builds(StepCall, function=st.just("a:b"), arguments=st.just({}), resources=resources),
    request=st.sampled_from(["r1", "r2", "r3"]),
    caller=st.just("c"),
    version=st.sampled_from(["1", "2"]),
    queued=st.integers(0, 5).map(lambda seconds: NOW + timedelta(seconds=seconds)),
    status=st.sampled_from(STATES),
    outcome=outcomes,
)


def as_row(number, step):
    return Row(QUEUED_STEP, f"k{number}", msgspec.to_builtins(step), 1, NOW)


# Decisions -----------------------------------------------------------------------------------------------------


@given(st.lists(steps, max_size=8), offers, st.sets(st.sampled_from(["r1", "r2", "r3"])))
def test_a_worker_tries_every_open_step_that_it_fits_and_no_other(queued, offer, refused):
    rows = [as_row(number, step) for number, step in enumerate(queued)]
    chosen = [row.key for row, _ in candidates(rows, offer, version="1", refused=refused)]
    assert len(chosen) == len(set(chosen))
    for row, step in zip(rows, queued, strict=True):
        wanted = (
            step.status in ("queued", "running")
            and step.version == "1"
            and step.request not in refused
            and step.call.resources.cpu <= offer.cpu
            and step.call.resources.memory <= offer.memory
            and step.call.resources.gpu <= offer.gpu
            and (not step.call.resources.region or step.call.resources.region == offer.region)
        )
        assert (row.key in chosen) == wanted
    when = [next(step.queued for number, step in enumerate(queued) if key == f"k{number}") for key in chosen]
    assert when == sorted(when)


@given(resources, offers, st.integers(0, 4))
def test_a_worker_that_has_more_fits_as_well(needed, offer, more):
    larger = WorkerOffer(offer.cpu + more, offer.memory + more, offer.gpu + more, offer.region)
    assert not fits(needed, offer) or fits(needed, larger)


@given(steps)
def test_a_step_is_adopted_where_it_goes_on_or_has_an_unread_result(step):
    unread = step.status == "ended" and step.outcome is not None and step.outcome.error is None
    goes_on = step.status in ("queued", "running")
    assert can_adopt(step, "1") == (step.version == "1" and (unread or goes_on))
    assert not can_adopt(None, "1")


@given(steps)
def test_a_row_is_read_as_it_was_written(step):
    assert read_queued(as_row(1, step)) == step


# Workers -------------------------------------------------------------------------------------------------------


def worker_of(journal, compute=None, **options):
    settings = {"offer": WorkerOffer(2, 1 << 30), "prepare": nullcontext, "progress": lambda *_, **__: None, **options}
    return StepWorker(journal, compute or SubprocessCompute(), actor=Actor("w"), **settings)


@contextmanager
def calling(path, call, key="k"):
    """A caller in a thread; gives its results and errors."""
    journal, got = SqliteJournal(f"sqlite://{path}"), []

    def run():
        try:
            got.append(WorkerCompute(journal=lambda: journal).run(call, key=key))
        except Exception as error:
            got.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: journal.get(QUEUED_STEP, key) is not None)
    yield got
    thread.join(60)
    assert not thread.is_alive()


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


class LacksAPart:
    def run(self, call, **_):
        raise MissingPartError("this needs the Python package xgboost", hint="pip install it")


def test_a_worker_without_an_extra_leaves_the_step_and_says_so(tmp_path):
    path = tmp_path / "journal.db"
    journal = SqliteJournal(f"sqlite://{path}")
    call = StepCall("cumulant.testing.conformance.compute:add", {"first": 1, "second": 2})
    with calling(path, call) as got:
        lacking = worker_of(journal, LacksAPart())
        (run,) = lacking.work(threading.Event(), once=True)
        assert (run.ending, run.attempt) == ("left", 1)
        step = read_queued(journal.get(QUEUED_STEP, "k"))
        assert step.status == "queued"
        assert "pip install it" in step.note
        assert list(lacking.work(threading.Event(), once=True)) == []
        (run,) = worker_of(journal).work(threading.Event(), once=True)
        assert run.ending == "done"
    assert got == [{"sum": 3, "pair": [1, 2]}]


class Full:
    """Prepares a call on a machine whose disk is full, until it is mended."""

    mended = False

    @contextmanager
    def __call__(self, call):
        if not self.mended:
            raise StorageError("the disk is full", hint="free some space")
        yield call


def test_a_worker_with_a_full_disk_leaves_the_step_for_a_while_and_says_so(tmp_path, monkeypatch):
    path, full = tmp_path / "journal.db", Full()
    journal = SqliteJournal(f"sqlite://{path}")
    call = StepCall("cumulant.testing.conformance.compute:add", {"first": 1, "second": 2})
    with calling(path, call) as got:
        lacking = worker_of(journal, prepare=full)
        (run,) = lacking.work(threading.Event(), once=True)
        assert (run.ending, run.note) == ("left", "the disk is full; free some space")
        step = read_queued(journal.get(QUEUED_STEP, "k"))
        assert (step.status, step.attempts) == ("queued", 0)
        assert "free some space" in step.note
        full.mended = True
        assert list(lacking.work(threading.Event(), once=True)) == [], "it waits"
        later = time.monotonic() + worker_module._MACHINE_PAUSE
        monkeypatch.setattr(worker_module, "time", SimpleNamespace(monotonic=lambda: later))
        (run,) = lacking.work(threading.Event(), once=True)
        assert (run.ending, run.attempt) == ("done", 1)
    assert got == [{"sum": 3, "pair": [1, 2]}]


def test_a_step_that_finds_no_space_fails(tmp_path):
    class Full:
        def run(self, call, **_):
            raise StorageError("the disk is full")

    with calling(tmp_path / "journal.db", StepCall("a:b", {})) as got:
        (run,) = worker_of(SqliteJournal(f"sqlite://{tmp_path}/journal.db"), Full()).work(threading.Event(), once=True)
        assert run.ending == "failed"
    assert [type(error) for error in got] == [StorageError]


def test_an_error_that_ends_workers_is_counted(tmp_path):
    """One that no worker expects: the step may be what ends them."""
    path = tmp_path / "journal.db"
    journal = SqliteJournal(f"sqlite://{path}")

    class Faulty:
        def run(self, call, **_):
            raise AssertionError("unexpected")

    with calling(path, StepCall("a:b", {})) as got:
        for _ in range(MOST_ATTEMPTS):
            with pytest.raises(AssertionError):
                list(worker_of(journal, Faulty()).work(threading.Event(), once=True))
        assert list(worker_of(journal, Faulty()).work(threading.Event(), once=True)) == []
    (error,) = got
    assert f"{MOST_ATTEMPTS} workers were lost" in error.message


def test_a_step_that_needs_more_than_a_worker_has_waits_for_another_one(tmp_path):
    path = tmp_path / "journal.db"
    journal = SqliteJournal(f"sqlite://{path}")
    needed = Resources(gpu=1, region="eu")
    call = StepCall("cumulant.testing.conformance.compute:add", {"first": 1, "second": 2}, needed)
    with calling(path, call) as got:
        assert list(worker_of(journal, offer=WorkerOffer(8, 8, 2, "us")).work(threading.Event(), once=True)) == []
        fitting = worker_of(
            journal,
            offer=WorkerOffer(8, 8, 1, "eu"),
            prepare=lambda call: nullcontext(msgspec.structs.replace(call, resources=Resources())),
        )
        (run,) = fitting.work(threading.Event(), once=True)
        assert run.ending == "done"
    assert got[0]["sum"] == 3


def test_an_interrupted_worker_gives_its_step_back(tmp_path):
    path = tmp_path / "journal.db"
    journal = SqliteJournal(f"sqlite://{path}")

    class Interrupted:
        def run(self, call, **_):
            raise KeyboardInterrupt

    call = StepCall("cumulant.testing.conformance.compute:add", {"first": 1, "second": 2})
    lines = []
    with calling(path, call):
        with pytest.raises(KeyboardInterrupt):
            list(worker_of(journal, Interrupted(), progress=lines.append).work(threading.Event(), once=True))
        assert lines == [f"{call.shown} k: begins, attempt 1", f"{call.shown} k: interrupted, queued again"]
        step = read_queued(journal.get(QUEUED_STEP, "k"))
        assert (step.status, step.attempts) == ("queued", 0)
        (run,) = worker_of(journal).work(threading.Event(), once=True)
        assert (run.ending, run.attempt) == ("done", 1)


def test_a_step_without_reports_ends_where_another_worker_has_its_lease(tmp_path):
    path = tmp_path / "journal.db"
    journal = SqliteJournal(f"sqlite://{path}")

    class TakenOver:
        def run(self, call, *, cancel, **_):
            with journal.transaction(actor=Actor("other")) as transaction:
                lease = transaction.get(LEASE, lease_of("k"))
                transaction.put(LEASE, lease.key, lease.value | {"life": "another"})
            assert cancel.wait(60), "it was not ended"
            raise StepCancelledError("ended")

    call = StepCall("cumulant.testing.conformance.compute:add", {"first": 1, "second": 2})
    with calling(path, call) as got:
        (run,) = worker_of(journal, TakenOver()).work(threading.Event(), once=True)
        assert run.ending == "lost"
        assert read_queued(journal.get(QUEUED_STEP, "k")).status == "running"
        with journal.transaction(actor=Actor("other")) as transaction:
            transaction.delete(LEASE, lease_of("k"))
        (run,) = worker_of(journal).work(threading.Event(), once=True)
        assert (run.ending, run.attempt) == ("done", 2)
    assert got == [{"sum": 3, "pair": [1, 2]}]


@contextmanager
def process(path, *, host, lease):
    """A worker process on a machine of that name."""
    started = subprocess.Popen(
        [sys.executable, str(HERE / "queue_worker.py"), str(path), str(lease)],
        env=os.environ | {"CUMULANT_HOST_NAME": host, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
@pytest.mark.parametrize("hosts", [("a", "a"), ("a", "b")], ids=["same machine", "another machine"])
def test_the_step_of_a_killed_worker_is_taken_over(tmp_path, hosts):
    path = tmp_path / "journal.db"
    call = StepCall("queue_worker:wait_once", {"folder": str(tmp_path)})
    lease = 60 if hosts[0] == hosts[1] else 2
    with calling(path, call) as got, process(path, host=hosts[0], lease=lease) as first:
        until((tmp_path / "call-0").exists)
        first.send_signal(signal.SIGKILL)
        first.wait(60)
        with process(path, host=hosts[1], lease=lease):
            until(lambda: got)
    assert got == [{"number": 1}]
    assert read_queued(SqliteJournal(f"sqlite://{path}").get(QUEUED_STEP, "k")).attempts == 2


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_step_that_ends_its_workers_fails(tmp_path):
    path = tmp_path / "journal.db"
    with calling(path, StepCall("queue_worker:wait_always", {"folder": str(tmp_path)})) as got:
        for number in range(MOST_ATTEMPTS):
            with process(path, host="a", lease=60):
                until(lambda number=number: (tmp_path / f"call-{number}").exists())
        with process(path, host="a", lease=60):
            until(lambda: got)
    (error,) = got
    assert isinstance(error, StepFailedError)
    assert f"{MOST_ATTEMPTS} workers were lost" in error.message


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_the_process_of_a_cancelled_step_is_ended(tmp_path):
    path, cancel, errors = tmp_path / "journal.db", threading.Event(), []
    journal = SqliteJournal(f"sqlite://{path}")

    def run():
        try:
            WorkerCompute(journal=lambda: journal).run(
                StepCall("queue_worker:wait_always", {"folder": str(tmp_path)}), key="k", cancel=cancel
            )
        except Exception as error:
            errors.append(error)

    with process(path, host="a", lease=60) as started:
        caller = threading.Thread(target=run, daemon=True)
        caller.start()
        until((tmp_path / "call-0").exists)
        cancel.set()
        assert started.stdout.readline().split() == ["queue_worker:wait_always", "cancelled", "1"]
        caller.join(60)
    assert len(errors) == 1


def test_settled_rows_are_removed_after_an_hour(tmp_path):
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")

    class Later:
        def now(self):
            return datetime.now(UTC) + timedelta(hours=2)

        def sleep(self, seconds):
            raise AssertionError(seconds)

    call = StepCall("a:b", {})
    with journal.transaction(actor=Actor("test")) as transaction:
        for status in STATES:
            step = QueuedStep(
                call=call, request=status, caller="c", version=f"not {__version__}", queued=NOW, status=status
            )
            transaction.put(QUEUED_STEP, status, msgspec.to_builtins(step))
    list(worker_of(journal).work(threading.Event(), once=True))
    assert {row.key for row in journal.rows(QUEUED_STEP)} == set(STATES)
    list(worker_of(journal, clock=Later()).work(threading.Event(), once=True))
    assert {row.key for row in journal.rows(QUEUED_STEP)} == {"queued", "running", "ended"}


def test_a_row_of_another_version_that_cannot_be_read_holds_up_no_worker(tmp_path):
    path = tmp_path / "journal.db"
    journal = SqliteJournal(f"sqlite://{path}")
    with journal.transaction(actor=Actor("test")) as transaction:
        transaction.put(QUEUED_STEP, "a", {"call": "of another form", "status": "queued"})
    call = StepCall("cumulant.testing.conformance.compute:add", {"first": 1, "second": 2})
    with calling(path, call) as got:
        (run,) = worker_of(journal).work(threading.Event(), once=True)
        assert run.ending == "done"
    assert got[0]["sum"] == 3
    assert journal.get(QUEUED_STEP, "a") is not None
