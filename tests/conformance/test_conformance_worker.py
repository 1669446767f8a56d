"""The rules of `compute` with workers: a caller queues, and a worker in a thread runs each step in a process."""

import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from cumulant.core.errors import StepCancelledError
from cumulant.core.events import Actor
from cumulant.drivers.local.compute import SubprocessCompute
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.drivers.worker.compute import WorkerCompute
from cumulant.flows.worker.worker import StepWorker
from cumulant.ports.compute import StepCall
from cumulant.ports.step_queue import QUEUED_STEP, WorkerOffer, read_queued
from cumulant.testing.conformance.compute import ComputeConformance

_SUITE = "cumulant.testing.conformance.compute"


@pytest.fixture
def journal_url(tmp_path):
    return f"sqlite://{tmp_path}/journal.db"


@pytest.fixture
def workers(journal_url):
    """Two workers on one journal."""
    stop, threads = threading.Event(), []
    for number in range(2):
        worker = StepWorker(
            SqliteJournal(journal_url),
            SubprocessCompute(),
            prepare=nullcontext,
            offer=WorkerOffer(2, 1 << 30),
            actor=Actor(f"service:worker-{number}"),
            progress=lambda text, share=None: None,
        )
        threads.append(threading.Thread(target=lambda worker=worker: list(worker.work(stop)), daemon=True))
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join(60)


class TestWorkerCompute(ComputeConformance):
    @pytest.fixture
    def compute(self, journal_url, workers):
        journal = SqliteJournal(journal_url)
        return WorkerCompute(journal=lambda: journal)

    def test_reports_arrive_in_order_and_before_the_result(self, compute):
        """A report that a newer one follows may be left out."""
        reports = []
        call = StepCall(f"{_SUITE}:report_slowly", {"count": 4})
        assert compute.run(call, progress=lambda text, share=None: reports.append((text, share))) == {"reported": 4}
        parts = [(text, share) for text, share in reports if text.startswith("part ")]
        assert parts
        assert parts == sorted(parts)
        assert set(parts) <= {(f"part {n}", n / 4) for n in range(4)}

    def test_an_interrupt_during_a_report_ends_the_step(self, compute):
        def interrupt(text, share=None):
            raise KeyboardInterrupt(text)

        with pytest.raises(KeyboardInterrupt):
            compute.run(StepCall(f"{_SUITE}:report_on", {}), key="long", progress=interrupt)
        row = compute._journal().get(QUEUED_STEP, "long")
        assert read_queued(row).status == "cancelled"

    def test_two_callers_of_one_key_get_the_result_of_one_run(self, compute, tmp_path):
        call = StepCall(f"{__name__}:count_a_call", {"file": str(tmp_path / "calls")})
        results = []
        callers = [threading.Thread(target=lambda: results.append(compute.run(call, key="one"))) for _ in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
        assert len(results) == 3
        assert {result["calls"] for result in results} == {1}

    def test_a_caller_that_is_cancelled_leaves_the_step_to_the_one_that_adopted_it(self, compute, tmp_path):
        call = StepCall(f"{__name__}:count_a_call", {"file": str(tmp_path / "calls")})
        cancel, results, errors = threading.Event(), [], []

        def first():
            try:
                compute.run(call, key="one", cancel=cancel)
            except StepCancelledError as error:
                errors.append(error)

        one = threading.Thread(target=first)
        one.start()
        while not (tmp_path / "calls").exists():
            assert one.is_alive()
        caller = row_of(compute).caller
        two = threading.Thread(target=lambda: results.append(compute.run(call, key="one")))
        two.start()
        while row_of(compute).caller == caller:
            assert two.is_alive()
        cancel.set()
        one.join(60)
        two.join(60)
        assert results == [{"calls": 1}]
        assert len(errors) == 1

    def test_a_result_that_no_caller_has_read_is_adopted(self, compute, tmp_path):
        """As that of a caller that was killed while a worker ran its step."""
        call = StepCall(f"{__name__}:count_a_call", {"file": str(tmp_path / "calls")})
        assert compute.run(call, key="one") == {"calls": 1}
        journal = compute._journal()
        with journal.transaction(actor=Actor("test")) as transaction:
            row = transaction.get(QUEUED_STEP, "one")
            transaction.put(QUEUED_STEP, "one", {**row.value, "status": "ended"})
        assert compute.run(call, key="one") == {"calls": 1}
        assert compute.run(call, key="one") == {"calls": 2}


def row_of(compute):
    return read_queued(compute._journal().get(QUEUED_STEP, "one"))


def count_a_call(file):
    """Counts its calls in a file, and takes long enough to be adopted."""
    import time

    with Path(file).open("a") as stream:
        stream.write("x")
    time.sleep(2)
    return {"calls": len(Path(file).read_text())}
